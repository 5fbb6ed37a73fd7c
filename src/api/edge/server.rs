//! The HTTP server: its sockets, its workers, and what each connection goes through.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::{DispatchError, ParseError};
use actix_http::{HttpService, KeepAlive, Protocol};
use actix_server::Server;
use actix_service::{ServiceFactoryExt, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::http::StatusCode;
use actix_web::web::ServiceConfig;
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::net::TcpStream;

use super::connection::{ClientStream, Limits};
use super::expect;
use super::places::Places;
use super::watch::Watch;
use crate::api::state::AppState;
use crate::api::traffic::Traffic;
use crate::config::ServerSettings;

/// How long a connection is kept for another request.
const IDLE: Duration = Duration::from_secs(5);
/// How long the server reads and discards the rest of a body after it has answered without it.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that the kernel holds until the server accepts them.
const BACKLOG: i32 = 1024;
/// How much unsent data of an answer the kernel takes, in bytes.
const UNSENT: u32 = 128 << 10;
/// How much longer than the server the kernel waits for a client that reads nothing. So it is the
/// server that ends the connection and counts it. The kernel's own limit is for the time after the
/// server has written everything.
const LATER: Duration = Duration::from_secs(2);
/// Connections beyond the bound that are admitted at once: each displaces one that is about to end.
const MARGIN: usize = 32;

/// See [`crate::api::Api::listen`]. `routes` registers the routes of each worker.
pub(in crate::api) fn bind(
    places: Arc<Places>,
    state: &AppState,
    settings: &ServerSettings,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> io::Result<(Server, Vec<SocketAddr>)> {
    let limits = Limits {
        idle: IDLE,
        head: settings.head_timeout,
        progress: settings.progress_timeout,
    };
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    };
    let mut builder = Server::build()
        .workers(workers)
        // The bound is kept by `Watch`. Beyond it and its margin the kernel's queue keeps what
        // comes.
        .max_concurrent_connections(most_of_worker(&places, workers))
        .disable_signals()
        // This is in whole seconds and for the workers only. Whoever stops the server keeps the
        // exact time.
        .shutdown_timeout(settings.shutdown_grace.as_secs().saturating_add(1));
    let stopping = builder.graceful_shutdown_signal();
    let mut addresses = Vec::new();
    for listener in listeners(settings)? {
        let address = listener.local_addr()?;
        addresses.push(address);
        let (state, routes) = (state.clone(), routes.clone());
        let (places, stopping) = (places.clone(), stopping.clone());
        // Called once by each worker.
        let service = move || {
            let watch = Watch::new(places.clone(), state.traffic.clone().into_inner(), limits);
            let accept = fn_service(move |stream: TcpStream| {
                let let_in = watch.admit(stream);
                std::future::ready(match let_in {
                    Ok((stream, peer)) => Ok((stream, Protocol::Http1, Some(peer))),
                    Err(error) => Err(DispatchError::Io(error)),
                })
            });
            let traffic = state.traffic.clone();
            let (state, stopping) = (Rc::new(state.clone()), stopping.clone());
            let app = App::new().configure(routes.clone());
            let counted = traffic.clone();
            let app = actix_service::IntoServiceFactory::into_factory(app).map_err(
                move |error: actix_web::Error| {
                    let answer = error.error_response();
                    counted.count_response(answer.status());
                    answer
                },
            );
            accept
                .and_then(
                    HttpService::build()
                        .graceful_shutdown_signal(move || {
                            let stopping = stopping.clone();
                            async move { stopping.notified().await }
                        })
                        // `Watch` enforces both limits, for every request.
                        .keep_alive(KeepAlive::Os)
                        .client_request_timeout(Duration::ZERO)
                        .client_disconnect_timeout(LINGER)
                        .local_addr(address)
                        .on_connect_ext(|stream: &ClientStream, data| {
                            data.insert(stream.connection().clone());
                            data.insert(stream.connection().presence.clone());
                        })
                        .expect(fn_service(move |request| {
                            let state = state.clone();
                            async move { expect::admit(request, &state).await }
                        }))
                        .finish(map_config(app, |()| AppConfig::default())),
                )
                .map_err(move |error| {
                    count_refusal(&traffic, &error);
                    error
                })
        };
        builder = builder.listen(format!("larder-{address}"), listener, service)?;
    }
    Ok((builder.run(), addresses))
}

/// Counts the answer to a head that is not valid HTTP. actix writes it by itself, and ends the
/// connection with this error.
fn count_refusal(traffic: &Traffic, ended: &DispatchError) {
    match ended {
        DispatchError::Parse(ParseError::TooLarge) => {
            traffic.count_response(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        DispatchError::Parse(_) => traffic.count_response(StatusCode::BAD_REQUEST),
        _ => {}
    }
}

fn most_of_worker(places: &Arc<Places>, workers: usize) -> usize {
    (places.most() + MARGIN).div_ceil(workers.max(1))
}

/// A listener for each address of the name that can be listened on. Connections inherit the options
/// of their listener.
fn listeners(settings: &ServerSettings) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut failed = None;
    for address in settings.bind.to_socket_addrs()? {
        match listener(address, settings.progress_timeout) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        _ if !listeners.is_empty() => Ok(listeners),
        Some(error) => Err(error),
        None => Err(io::Error::other("the name has no address")),
    }
}

fn listener(address: SocketAddr, progress: Duration) -> io::Result<TcpListener> {
    let kind = Domain::for_address(address);
    let socket = Socket::new(kind, Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(UNSENT)?;
        // For data that the kernel has taken and the client has not acknowledged, also behind a
        // closed window (RFC 5482).
        socket.set_tcp_user_timeout(Some(progress + LATER))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
