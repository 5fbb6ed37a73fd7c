//! The HTTP server of these routes, on connections that note when a client sends nothing more.

use std::future::ready;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;

use crate::api::{Api, ClientStream};

/// How long a connection is kept for another request.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A server that listens on `bind` already, by so many workers; zero: one for each core. It answers once it is polled.
///
/// # Errors
/// If none of the addresses can be listened on.
pub(super) fn listen(api: &Api, bind: &str, workers: usize, grace: Duration) -> io::Result<Server> {
    let mut builder = Server::build()
        .disable_signals()
        // It knows whole seconds only and looks once in a second: this is for its workers, the exact time is kept by whoever stops it.
        .shutdown_timeout(grace.as_secs().saturating_add(1));
    if workers > 0 {
        builder = builder.workers(workers);
    }
    let stopping = builder.graceful_shutdown_signal();
    let listeners: Vec<io::Result<TcpListener>> =
        bind.to_socket_addrs()?.map(TcpListener::bind).collect();
    let all_failed = listeners.iter().all(Result::is_err);
    for listener in listeners {
        let listener = match listener {
            Err(_) if !all_failed => continue,
            listener => listener?,
        };
        let address = listener.local_addr()?;
        log::info!("listening on http://{address}");
        let (api, stopping) = (api.clone(), stopping.clone());
        let service = move || {
            let accept = |stream: TcpStream| {
                let peer = stream.peer_addr().ok();
                let stream = ClientStream::new(stream);
                ready(Ok::<_, DispatchError>((stream, Protocol::Http1, peer)))
            };
            let (routes, stopping) = (api.clone(), stopping.clone());
            let app = App::new().configure(move |config| routes.routes(config));
            let app = app
                .into_factory()
                .map_err(|error: actix_web::Error| error.error_response());
            fn_service(accept).and_then(
                HttpService::build()
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .keep_alive(KEEP_ALIVE)
                    .client_request_timeout(Duration::from_secs(5))
                    .client_disconnect_timeout(Duration::from_secs(1))
                    .local_addr(address)
                    .on_connect_ext(|stream: &ClientStream, data| stream.describe(data))
                    .finish(map_config(app, |()| AppConfig::default())),
            )
        };
        builder = builder.listen(format!("larder-{address}"), listener, service)?;
    }
    Ok(builder.run())
}
