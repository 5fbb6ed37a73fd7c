//! What the requests of a server share.
//!
//! A handler of larder's own routes takes the parts that it uses, as `web::Data`. The handler of
//! the declared resources uses all of [`AppState`]. Nothing in this folder takes more than it uses.

use actix_web::web::{Data, ServiceConfig};
use arc_swap::ArcSwap;

use crate::resource::Resources;
use larder_cache::Cache;

use super::access::Access;
use super::lifecycle::Lifecycle;
use super::traffic::Traffic;

/// The resources that are served now. A reload replaces them; requests under way keep theirs.
pub(crate) type LiveResources = ArcSwap<Resources>;

/// What a request for a declared resource takes. Cheap to clone; clones share the parts.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) cache: Cache,
    pub(crate) resources: Data<LiveResources>,
    pub(crate) access: Access,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) traffic: Data<Traffic>,
}

impl AppState {
    /// Registers each part, for handlers that take it alone.
    pub(super) fn register(&self, config: &mut ServiceConfig) {
        config
            .app_data(Data::new(self.cache.clone()))
            .app_data(self.resources.clone())
            .app_data(Data::new(self.access.clone()))
            .app_data(Data::new(self.lifecycle.clone()))
            .app_data(self.traffic.clone());
    }
}
