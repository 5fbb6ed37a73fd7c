//! FLOOR 5: HTTP. The only floor that knows status codes.
//!
//! Every route is on this page. A handler takes the parts that it uses, not the whole server.

mod access;
mod body;
mod bridge;
mod caller;
mod digits;
pub mod edge;
mod header_texts;
mod headers;
mod invalidation;
mod keys;
mod lifecycle;
mod own_routes;
mod path;
mod presence;
mod problem;
mod request_id;
mod resource;
mod slices;
mod status;
mod write;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::HttpServiceFactory;
use actix_web::middleware::from_fn;
use actix_web::{FromRequest, Handler, Resource, Responder, Route, guard, web};
use arc_swap::ArcSwap;

use crate::database::Database;
use crate::resource::Resources;
use larder_cache::Cache;

use self::access::Access;
use self::body::BodyTimeout;
use self::edge::Places;
use self::keys::KeyRoutes;
use self::problem::Problem;
use self::resource::AppState;
use self::status::Health;
use crate::auth::{KeyTable, WrongKeys};

pub use self::lifecycle::Lifecycle;

/// The server's parts as the routes take them. Cheap to clone: each worker has one.
#[derive(Clone)]
pub struct Api {
    front: web::Data<AppState>,
    health: web::Data<Health>,
    keys: web::Data<KeyRoutes>,
    body_timeout: web::Data<BodyTimeout>,
}

/// How the routes meet their clients.
pub struct ClientRules {
    /// Resources that are not public need a key.
    pub keys_required: bool,
    /// The server is not ready without Redis.
    pub redis_required: bool,
    /// How long the body of a request may take to come.
    pub body_timeout: Duration,
    /// The connections there may be.
    pub places: Places,
}

impl Api {
    /// The routes over these parts.
    pub fn new(
        cache: Cache,
        resources: Resources,
        database: Database,
        table: Arc<KeyTable>,
        rules: ClientRules,
    ) -> Api {
        let access = Access {
            table,
            required: rules.keys_required,
            wrong_keys: Arc::new(WrongKeys::default()),
        };
        Api {
            keys: web::Data::new(KeyRoutes {
                cache: cache.clone(),
                database: database.clone(),
                access: access.clone(),
            }),
            health: web::Data::new(Health {
                database: database.clone(),
                redis_required: rules.redis_required,
                places: Arc::new(rules.places),
            }),
            body_timeout: web::Data::new(BodyTimeout(rules.body_timeout)),
            front: web::Data::new(AppState {
                cache,
                resources: ArcSwap::from_pointee(resources),
                database,
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

    /// The connections there may be, and how many there are.
    fn places(&self) -> &Arc<Places> {
        &self.health.places
    }

    /// What serving a resource takes.
    fn front(&self) -> web::Data<AppState> {
        self.front.clone()
    }

    /// Where the server stands between its start and its end.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.front.lifecycle
    }

    /// All routes.
    pub fn routes(&self, config: &mut web::ServiceConfig) {
        // Each worker counts the holders of its own: those of the shared one would be one line of memory that all of them write to.
        let front = Rc::new(self.front.clone());
        let declared = move |request, payload| resource::serve(request, payload, front.clone());
        config
            .app_data(self.front.clone())
            .app_data(self.health.clone())
            .app_data(self.keys.clone())
            .app_data(self.body_timeout.clone())
            .service(own("/healthz", "GET, HEAD", [read(status::alive)]))
            .service(own("/readyz", "GET, HEAD", [read(status::ready)]))
            // Scopes, so that a resource's path is compared with four beginnings, and not with each route and its expressions.
            .service(
                web::scope("/cache")
                    .service(own("/stats", "GET, HEAD", [read(status::stats)]))
                    .service(own(
                        "/invalidate",
                        "POST",
                        [web::post().to(invalidation::invalidate)],
                    ))
                    .service(own("/entry", "GET, HEAD", [read(invalidation::entry)]))
                    .service(own(
                        "/replicas",
                        "GET, HEAD",
                        [read(invalidation::replicas)],
                    ))
                    .default_service(web::to(declared.clone())),
            )
            .service(
                web::scope("/keys")
                    .service(own(
                        "",
                        "GET, HEAD, POST",
                        [read(keys::list), web::post().to(keys::create)],
                    ))
                    .service(own("/{id}", "DELETE", [web::delete().to(keys::revoke)]))
                    .default_service(web::to(declared.clone())),
            )
            .default_service(web::to(declared));
    }
}

/// One of larder's own paths, where every other method is told which it takes.
fn own<const N: usize>(
    path: &str,
    allow: &'static str,
    routes: [Route; N],
) -> impl HttpServiceFactory + use<N> {
    let refuse = move || {
        let allow = allow.into();
        std::future::ready(Problem::MethodNotAllowed { allow }.answer())
    };
    routes
        .into_iter()
        .fold(web::resource(path), Resource::route)
        .default_service(web::to(refuse))
        .wrap(from_fn(own_routes::wrap))
}

/// Reads: `GET`, and `HEAD`, to which the server sends the head alone.
fn read<F, Args>(handler: F) -> Route
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let method = guard::Any(guard::Get()).or(guard::Head());
    web::route().guard(method).to(handler)
}
