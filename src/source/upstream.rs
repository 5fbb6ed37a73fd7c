//! An upstream that HTTP sources ask: one client and one quota, shared by all that name it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::http::{HttpClient, HttpSettings};
use super::quota::{Quota, QuotaStore};
use crate::quantity::Rate;

/// What an HTTP source keeps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUpstreamSettings {
    /// What errors call it, and what its quota is kept under in Redis.
    pub name: String,
    /// The longest that a call may take, waiting for its quota included.
    pub timeout: Duration,
    /// Calls in a time; all of them are kept to. None: no quota.
    pub quota: Vec<Rate>,
    /// The longest that its own word can keep it from being asked.
    pub max_pause: Duration,
}

impl HttpUpstreamSettings {
    /// The default settings: ten seconds, no quota, pauses of a minute at most.
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
    /// An upstream that nobody has called yet. `store`: where all replicas keep its quota together; `None`: each has it to itself.
    pub fn new(settings: &HttpUpstreamSettings, store: Option<QuotaStore>) -> HttpUpstream {
        let (name, rates) = (&settings.name, settings.quota.clone());
        let calls = HttpSettings {
            max_pause: settings.max_pause,
            ..HttpSettings::new(name, settings.timeout)
        };
        HttpUpstream {
            http: HttpClient::new(calls),
            quota: Arc::new(Quota::new(name, rates, store)),
        }
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        self.http.upstream()
    }

    /// The longest that a call may take: what a load of it is to be limited to.
    pub fn timeout(&self) -> Duration {
        self.http.timeout()
    }
}

/// Every upstream that some HTTP source asks, each made when the first one does. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct HttpUpstreams {
    store: Option<QuotaStore>,
    made: Arc<Mutex<HashMap<String, (HttpUpstreamSettings, HttpUpstream)>>>,
}

impl HttpUpstreams {
    /// None so far. `store`: where all replicas keep their quotas together; `None`: each has them to itself.
    pub fn new(store: Option<QuotaStore>) -> HttpUpstreams {
        HttpUpstreams {
            store,
            made: Arc::default(),
        }
    }

    /// The one with these settings. What was booked on it so far counts on, unless it is set otherwise since.
    pub fn of(&self, settings: &HttpUpstreamSettings) -> HttpUpstream {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((same, upstream)) = made.get(&settings.name)
            && same == settings
        {
            return upstream.clone();
        }
        let upstream = HttpUpstream::new(settings, self.store.clone());
        made.insert(settings.name.clone(), (settings.clone(), upstream.clone()));
        upstream
    }
}
