//! An upstream that HTTP sources ask: one client and one quota, shared by all that name it.

use std::sync::Arc;
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
}

impl HttpUpstreamSettings {
    /// The default settings: ten seconds, no quota.
    pub fn new(name: impl Into<String>) -> HttpUpstreamSettings {
        HttpUpstreamSettings {
            name: name.into(),
            timeout: Duration::from_secs(10),
            quota: Vec::new(),
        }
    }
}

/// See the module. Cheap to clone; clones share connections and quota.
#[derive(Clone, Debug)]
pub struct HttpUpstream {
    pub(super) http: HttpClient,
    pub(super) quota: Arc<Quota>,
    timeout: Duration,
}

impl HttpUpstream {
    /// An upstream that nobody has called yet. `store`: where all replicas keep its quota together; `None`: each has it to itself.
    pub fn new(settings: &HttpUpstreamSettings, store: Option<QuotaStore>) -> HttpUpstream {
        let (name, rates) = (&settings.name, settings.quota.clone());
        HttpUpstream {
            http: HttpClient::new(HttpSettings::new(name, settings.timeout)),
            quota: Arc::new(Quota::new(name, rates, store)),
            timeout: settings.timeout,
        }
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        self.http.upstream()
    }

    /// The longest that a call may take: what a load of it is to be limited to.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}
