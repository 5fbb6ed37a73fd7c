//! FLOOR 5: HTTP. The only floor that knows status codes.
//!
//! Every route is on this page. A handler takes the parts that it uses, not the whole server.

mod access;
mod asked;
mod body;
mod bridge;
mod caller;
pub mod edge;
mod entry;
mod header_texts;
mod headers;
mod invalidation;
mod keys;
mod lifecycle;
mod metrics;
pub mod openapi;
mod own_routes;
mod pages;
mod path;
mod presence;
mod problem;
mod request_id;
mod resource;
mod slices;
mod state;
mod status;
mod traffic;
mod write;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_server::Server;
use actix_web::dev::HttpServiceFactory;
use actix_web::middleware::from_fn;
use actix_web::{FromRequest, Handler, Resource, Responder, Route, guard, web};

use crate::auth::{KeyTable, WrongKeys};
use crate::config::ServerSettings;
use crate::config::is_own;
use crate::resource::{Resources, Sources};
use larder_cache::Cache;

use self::access::Access;
use self::body::BodyTimeout;
use self::edge::Places;
use self::metrics::{Metrics, PublicMetrics};
use self::openapi::{Document, LiveDocument};
use self::problem::Problem;
use self::state::{AppState, LiveResources};
use self::status::RedisRequired;

pub use self::lifecycle::Lifecycle;

/// The server's routes and the parts that their handlers take. Cheap to clone: each worker has one.
#[derive(Clone)]
pub struct Api {
    state: AppState,
    document: web::Data<LiveDocument>,
    sources: Sources,
    places: web::Data<Places>,
    open_metrics: PublicMetrics,
    redis_required: RedisRequired,
    body_timeout: BodyTimeout,
}

/// How the routes treat their clients.
pub struct ClientRules {
    /// Whether resources that are not public need a key.
    pub keys_required: bool,
    /// Whether anyone may read the metrics, without a key.
    pub open_metrics: bool,
    /// Whether the server is not ready without Redis.
    pub redis_required: bool,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// The connections that may be open.
    pub places: Places,
}

impl Api {
    /// The routes over these parts. `sources` are those of the resources.
    ///
    /// # Errors
    /// As [`Api::document`].
    pub fn new(
        cache: Cache,
        resources: Resources,
        sources: Sources,
        table: Arc<KeyTable>,
        rules: ClientRules,
    ) -> Result<Api, String> {
        let document = Document::of(&resources, rules.keys_required)?;
        Ok(Api {
            document: web::Data::new(LiveDocument::from_pointee(document)),
            state: AppState {
                cache,
                resources: web::Data::new(LiveResources::from_pointee(resources)),
                access: Access {
                    table,
                    required: rules.keys_required,
                    wrong_keys: Arc::new(WrongKeys::default()),
                },
                lifecycle: Lifecycle::default(),
                traffic: web::Data::default(),
            },
            sources,
            places: web::Data::new(rules.places),
            open_metrics: PublicMetrics(rules.open_metrics),
            redis_required: RedisRequired(rules.redis_required),
            body_timeout: BodyTimeout(rules.body_timeout),
        })
    }

    /// The OpenAPI document of other resources.
    ///
    /// # Errors
    /// If it cannot be written: those resources cannot be served.
    pub fn document(&self, resources: &Resources) -> Result<Document, String> {
        Document::of(resources, self.state.access.required)
    }

    /// Serves other resources and their document from now on; requests under way keep theirs.
    pub fn replace_resources(&self, resources: Resources, document: Document) {
        self.document.store(Arc::new(document));
        self.state.resources.store(Arc::new(resources));
    }

    /// The resources that are served now.
    pub fn resources(&self) -> Arc<Resources> {
        self.state.resources.load_full()
    }

    /// Where the server stands between its start and its end.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.state.lifecycle
    }

    /// A server of these routes that listens already, and its addresses. It answers once it is
    /// polled.
    ///
    /// # Errors
    /// If it can listen on none of the addresses.
    pub fn listen(&self, settings: &ServerSettings) -> io::Result<(Server, Vec<SocketAddr>)> {
        let (places, api) = (self.places.clone().into_inner(), self.clone());
        edge::bind(places, &self.state, settings, move |config| {
            api.routes(config);
        })
    }

    /// All routes.
    pub fn routes(&self, config: &mut web::ServiceConfig) {
        // Each worker clones an `Rc` of its own for each request. The counters of a shared `Arc`
        // would be one cache line that all workers write to.
        let state = Rc::new(self.state.clone());
        let declared = move |request, payload| resource::serve(request, payload, state.clone());
        self.state.register(config);
        let metrics = Metrics::new(&self.state, &self.places, &self.sources);
        config
            .app_data(self.document.clone())
            .app_data(web::Data::new(self.sources.database.clone()))
            .app_data(self.places.clone())
            .app_data(web::Data::new(metrics))
            .app_data(web::Data::new(self.open_metrics))
            .app_data(web::Data::new(self.redis_required))
            .app_data(web::Data::new(self.body_timeout))
            // The path of a resource is compared with the first segments of larder's own routes,
            // and not with each route.
            .service(
                web::scope("")
                    .guard(guard::fn_guard(|request| {
                        is_own(&path::normalized(request.head().uri.path()))
                    }))
                    .service(own("/healthz", "GET, HEAD", [read(status::alive)]))
                    .service(own("/readyz", "GET, HEAD", [read(status::ready)]))
                    .service(own("/metrics", "GET, HEAD", [read(metrics::scrape)]))
                    .service(own("/openapi.json", "GET, HEAD", [read(openapi::serve)]))
                    .service(
                        web::scope("/cache")
                            .service(own("/stats", "GET, HEAD", [read(status::stats)]))
                            .service(own(
                                "/invalidate",
                                "POST",
                                [web::post().to(invalidation::invalidate)],
                            ))
                            .service(own(
                                "/entry",
                                "GET, HEAD, POST, QUERY",
                                [
                                    read(entry::show),
                                    web::post().to(entry::show),
                                    query().to(entry::show),
                                ],
                            ))
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
                    .service(
                        web::scope("/docs")
                            .service(own("", "GET, HEAD", [read(pages::docs)]))
                            .service(own("/", "GET, HEAD", [read(pages::docs_folder)]))
                            .service(own("/{name}", "GET, HEAD", [read(pages::docs_file)]))
                            .default_service(web::to(declared.clone())),
                    )
                    .default_service(web::to(declared.clone())),
            )
            .default_service(web::to(declared));
    }
}

/// One of larder's own paths. Other methods get 405 and the list of those that it takes.
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

/// A route for `QUERY` (RFC 10008).
fn query() -> Route {
    let method = |context: &guard::GuardContext<'_>| context.head().method.as_str() == "QUERY";
    web::route().guard(guard::fn_guard(method))
}

/// A route for `GET`, and for `HEAD`, to which the server sends the head alone.
fn read<F, Args>(handler: F) -> Route
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let method = guard::Any(guard::Get()).or(guard::Head());
    web::route().guard(method).to(handler)
}
