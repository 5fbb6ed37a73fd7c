//! An upstream of HTTP sources: one client and one quota, shared by all sources that name it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::http::{HttpClient, HttpSettings};
use super::quota::{Quota, QuotaStore};
use crate::quantity::Rate;

/// The settings of an upstream of HTTP sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUpstreamSettings {
    /// Its name in errors and in the keys of its quota.
    pub name: String,
    /// The longest time that a call may take, including the wait for its quota.
    pub timeout: Duration,
    /// Its rate limits. Every one of them holds. Empty: no quota.
    pub quota: Vec<Rate>,
    /// The longest pause that its own answer can cause.
    pub max_pause: Duration,
}

impl HttpUpstreamSettings {
    /// The default settings: a timeout of ten seconds, no quota, pauses of at most a minute.
    pub fn new(name: impl Into<String>) -> HttpUpstreamSettings {
        HttpUpstreamSettings {
            name: name.into(),
            timeout: Duration::from_secs(10),
            quota: Vec::new(),
            max_pause: HttpSettings::MAX_PAUSE,
        }
    }
}

/// See the module. Cheap to clone; clones share connections and quota.
#[derive(Clone, Debug)]
pub struct HttpUpstream {
    pub(super) http: HttpClient,
    pub(super) quota: Arc<Quota>,
}

impl HttpUpstream {
    /// An upstream that was never called. `store` is where all replicas share its quota. `None`:
    /// each replica has the whole quota.
    pub fn new(settings: &HttpUpstreamSettings, store: Option<QuotaStore>) -> HttpUpstream {
        let quota = Quota::new(&settings.name, settings.quota.clone(), store);
        HttpUpstream::with_quota(settings, Arc::new(quota))
    }

    fn with_quota(settings: &HttpUpstreamSettings, quota: Arc<Quota>) -> HttpUpstream {
        let client = HttpSettings {
            max_pause: settings.max_pause,
            ..HttpSettings::new(&settings.name, settings.timeout)
        };
        HttpUpstream {
            http: HttpClient::new(client),
            quota,
        }
    }

    /// Its name in errors.
    pub fn name(&self) -> &str {
        self.http.upstream()
    }

    /// The longest time that a call may take, and so the limit of a load.
    pub fn timeout(&self) -> Duration {
        self.http.timeout()
    }
}

/// All upstreams of HTTP sources. Each is built for its first source. Cheap to clone; clones share
/// everything.
#[derive(Clone)]
pub struct HttpUpstreams {
    store: Option<QuotaStore>,
    /// By name. The lock protects the map, so that two sources never build one upstream twice.
    built: Arc<Mutex<HashMap<String, (HttpUpstreamSettings, HttpUpstream)>>>,
}

impl HttpUpstreams {
    /// No upstreams yet. `store` is where all replicas share their quotas. `None`: each replica has
    /// the whole quotas.
    pub fn new(store: Option<QuotaStore>) -> HttpUpstreams {
        HttpUpstreams {
            store,
            built: Arc::default(),
        }
    }

    /// The upstream with these settings. One of the same name keeps its counters and its bookings,
    /// whatever else has changed: a reload gives no second budget.
    pub fn of(&self, settings: &HttpUpstreamSettings) -> HttpUpstream {
        let mut built = self.built.lock();
        let upstream = match built.get(&settings.name) {
            Some((before, upstream)) if before == settings => return upstream.clone(),
            Some((before, upstream)) if before.quota == settings.quota => {
                HttpUpstream::with_quota(settings, upstream.quota.clone())
            }
            Some((_, upstream)) => {
                let quota = upstream.quota.with_rates(settings.quota.clone());
                HttpUpstream::with_quota(settings, Arc::new(quota))
            }
            None => HttpUpstream::new(settings, self.store.clone()),
        };
        built.insert(settings.name.clone(), (settings.clone(), upstream.clone()));
        upstream
    }

    /// The quotas of all upstreams that were ever built, which count their calls.
    pub fn quotas(&self) -> Vec<Arc<Quota>> {
        let built = self.built.lock();
        let quotas = built.values().map(|(_, upstream)| upstream.quota.clone());
        quotas.collect()
    }
}
