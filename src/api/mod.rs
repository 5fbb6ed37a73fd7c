//! FLOOR 5: HTTP. The only floor that knows status codes.
//!
//! Every route is on this page. A handler takes the parts that it uses, not the whole server.

mod access;
mod body;
mod bridge;
mod header_texts;
mod headers;
mod invalidation;
pub mod key_table;
mod keys;
mod lifecycle;
pub mod limiter;
mod path;
mod problem;
mod request_id;
mod resource;
mod status;
mod write;

use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::web;
use arc_swap::ArcSwap;

use crate::cache::Cache;
use crate::database::Database;
use crate::resource::Resources;

use self::access::Access;
use self::key_table::KeyTable;
use self::keys::KeyRoutes;
use self::problem::Problem;
use self::resource::Front;
use self::status::Health;

pub use self::keys::KEYS_CHANGED;
pub use self::lifecycle::Lifecycle;

/// The server's parts as the routes take them. Cheap to clone: each worker has one.
#[derive(Clone)]
pub struct Api {
    front: web::Data<Front>,
    health: web::Data<Health>,
    keys: web::Data<KeyRoutes>,
}

impl Api {
    /// The routes over these parts. `keys_required`: resources that are not public need a key; `redis_required`: the server is
    /// not ready without Redis.
    pub fn new(
        cache: Cache,
        resources: Resources,
        database: Database,
        table: Arc<KeyTable>,
        keys_required: bool,
        redis_required: bool,
    ) -> Api {
        let access = Access {
            table,
            required: keys_required,
        };
        Api {
            keys: web::Data::new(KeyRoutes {
                cache: cache.clone(),
                database: database.clone(),
                access: access.clone(),
            }),
            health: web::Data::new(Health {
                database,
                redis_required,
            }),
            front: web::Data::new(Front {
                cache,
                resources: ArcSwap::from_pointee(resources),
                access,
                lifecycle: Lifecycle::default(),
            }),
        }
    }

    /// Serves other resources from now on; requests under way keep theirs.
    pub fn replace_resources(&self, resources: Resources) {
        self.front.resources.store(Arc::new(resources));
    }

    /// The resources that are served now.
    pub fn resources(&self) -> Arc<Resources> {
        self.front.resources.load_full()
    }

    /// Where the server stands between its start and its end.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.front.lifecycle
    }

    /// All routes.
    pub fn routes(&self, config: &mut web::ServiceConfig) {
        let only = |allow: &'static str| {
            web::to(move || {
                let allow = allow.into();
                std::future::ready(Problem::MethodNotAllowed { allow }.answer())
            })
        };
        config
            .app_data(self.front.clone())
            .app_data(self.health.clone())
            .app_data(self.keys.clone())
            .service(
                web::resource("/healthz")
                    .wrap(from_fn(request_id::add))
                    .route(web::get().to(status::alive))
                    .route(web::head().to(status::alive))
                    .default_service(only("GET, HEAD")),
            )
            .service(
                web::resource("/readyz")
                    .wrap(from_fn(request_id::add))
                    .route(web::get().to(status::ready))
                    .route(web::head().to(status::ready))
                    .default_service(only("GET, HEAD")),
            )
            // Scopes, so that a resource's path is compared with four beginnings, and not with each route and its expressions.
            .service(
                web::scope("/cache")
                    .service(
                        web::resource("/stats")
                            .wrap(from_fn(request_id::add))
                            .route(web::get().to(status::stats))
                            .route(web::head().to(status::stats))
                            .default_service(only("GET, HEAD")),
                    )
                    .service(
                        web::resource("/invalidate")
                            .wrap(from_fn(request_id::add))
                            .route(web::post().to(invalidation::invalidate))
                            .default_service(only("POST")),
                    )
                    .service(
                        web::resource("/entry")
                            .wrap(from_fn(request_id::add))
                            .route(web::get().to(invalidation::entry))
                            .default_service(only("GET")),
                    )
                    .service(
                        web::resource("/replicas")
                            .wrap(from_fn(request_id::add))
                            .route(web::get().to(invalidation::replicas))
                            .default_service(only("GET")),
                    )
                    .default_service(web::to(resource::serve)),
            )
            .service(
                web::scope("/keys")
                    .service(
                        web::resource("")
                            .wrap(from_fn(request_id::add))
                            .route(web::get().to(keys::list))
                            .route(web::head().to(keys::list))
                            .route(web::post().to(keys::create))
                            .default_service(only("GET, HEAD, POST")),
                    )
                    .service(
                        web::resource("/{id}")
                            .wrap(from_fn(request_id::add))
                            .route(web::delete().to(keys::revoke))
                            .default_service(only("DELETE")),
                    )
                    .default_service(web::to(resource::serve)),
            )
            .default_service(web::to(resource::serve));
    }
}
