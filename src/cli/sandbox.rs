//! `larder sandbox`: serves invented news in the formats of NewsAPI and The Guardian, and invented
//! chat completions.
//!
//! Promise: every answer has `Larder-Sandbox: true`, so that nobody takes it for real. Failures are
//! spread evenly, not at random: the same requests in the same order fail again.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::{App, HttpRequest, HttpResponse, HttpResponseBuilder, HttpServer, web};
use jiff::Timestamp;

use crate::quantity::{DURATION_FORM, parse_duration};
use crate::source::chat_sandbox::{self, CHAT_PATH, LARGEST_CHAT};
use crate::source::news::sandbox::{SandboxAnswer, answer, fails, failure};
use crate::source::news::{NewsFormat, SANDBOX_HEADER};
use crate::worker::spawn_thread;

/// The arguments of `larder sandbox`.
#[derive(Debug, clap::Args)]
pub struct SandboxArguments {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9100")]
    pub bind: SocketAddr,
    /// How long every answer takes
    #[arg(long, value_name = "DURATION", default_value = "700ms", value_parser = latency)]
    pub latency: Duration,
    /// The share of requests that fail, from 0.0 to 1.0
    #[arg(long, value_name = "SHARE", default_value = "0.0", value_parser = share)]
    pub error_rate: f64,
}

fn latency(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("not {DURATION_FORM}"))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok();
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "not a share from 0.0 to 1.0".to_owned())
}

/// Serves until SIGINT or SIGTERM. Prints its addresses, for `config.toml`.
///
/// # Errors
/// If it cannot listen on `bind`.
pub fn run(bind: SocketAddr, latency: Duration, error_rate: f64) -> io::Result<()> {
    actix_web::rt::System::new().block_on(async {
        let (server, address) = serve(bind, latency, error_rate, true)?;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "The sandbox listens on http://{address}. To use it, in config.toml:"
        )?;
        for format in NewsFormat::ALL {
            let (name, base_url) = (format.name(), base_url(address, format));
            writeln!(out, "\n[upstream.{name}]\nbase_url = \"{base_url}\"")?;
        }
        writeln!(
            out,
            "\nChat completions, by POST with any API key: http://{address}{CHAT_PATH}"
        )?;
        out.flush()?;
        drop(out);
        server.await
    })
}

/// The base URL of `format` at the sandbox that listens on `address`.
pub(super) fn base_url(address: SocketAddr, format: NewsFormat) -> String {
    match format {
        NewsFormat::NewsApi => format!("http://{address}/v2"),
        NewsFormat::Guardian => format!("http://{address}"),
    }
}

/// Serves on a thread of its own until the process ends. Returns the address, on which it listens
/// already.
///
/// # Errors
/// If it cannot listen on `bind`, or no thread can be started.
pub fn spawn(bind: SocketAddr, latency: Duration, error_rate: f64) -> io::Result<SocketAddr> {
    let (sender, receiver) = mpsc::sync_channel(1);
    spawn_thread("sandbox", move || {
        actix_web::rt::System::new().block_on(async {
            match serve(bind, latency, error_rate, false) {
                Ok((server, address)) => {
                    let _ = sender.send(Ok(address));
                    if let Err(error) = server.await {
                        log::error!("the sandbox stopped: {error}");
                    }
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            }
        });
    })?;
    receiver.recv().unwrap_or_else(|_| {
        Err(io::Error::other(
            "the sandbox's thread ended before it listened",
        ))
    })
}

struct Sandbox {
    latency: Duration,
    error_rate: f64,
    requests: AtomicU64,
    failures: AtomicU64,
}

fn serve(
    bind: SocketAddr,
    latency: Duration,
    error_rate: f64,
    signals: bool,
) -> io::Result<(Server, SocketAddr)> {
    let sandbox = web::Data::new(Sandbox {
        latency,
        error_rate,
        requests: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    });
    let app = move || {
        App::new()
            .app_data(sandbox.clone())
            .default_service(web::to(respond))
    };
    let mut server = HttpServer::new(app).workers(1).shutdown_timeout(1);
    if !signals {
        server = server.disable_signals();
    }
    let server = server.bind(bind)?;
    let address = server.addrs().first().copied().unwrap_or(bind);
    Ok((server.run(), address))
}

async fn respond(
    request: HttpRequest,
    body: web::Payload,
    sandbox: web::Data<Sandbox>,
) -> HttpResponse {
    let is_chat = request.path() == CHAT_PATH;
    let allowed: &[&str] = if is_chat { &["POST"] } else { &["GET", "HEAD"] };
    if !allowed.contains(&request.method().as_str()) {
        let mut response = HttpResponse::MethodNotAllowed();
        response
            .insert_header((ALLOW, allowed.join(", ")))
            .insert_header((SANDBOX_HEADER, "true"));
        return match is_chat {
            true => with_json(response, chat_sandbox::wrong_method().body),
            false => response.finish(),
        };
    }
    let answered = if is_chat {
        chat(&request, body).await
    } else {
        answer(request.path(), request.query_string(), Timestamp::now())
    };
    let number = sandbox.requests.fetch_add(1, Ordering::Relaxed);
    let SandboxAnswer {
        status,
        retry_after,
        body,
    } = if !fails(number, sandbox.error_rate) {
        answered
    } else {
        let number = sandbox.failures.fetch_add(1, Ordering::Relaxed);
        match is_chat {
            true => chat_sandbox::failure(number),
            false => failure(request.path(), number),
        }
    };
    if !sandbox.latency.is_zero() {
        actix_web::rt::time::sleep(sandbox.latency).await;
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    response.insert_header((SANDBOX_HEADER, "true"));
    if let Some(seconds) = retry_after {
        response.insert_header((RETRY_AFTER, seconds.to_string()));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.insert_header((WWW_AUTHENTICATE, "Bearer"));
    }
    with_json(response, body)
}

fn with_json(mut response: HttpResponseBuilder, body: String) -> HttpResponse {
    response
        .content_type("application/json; charset=utf-8")
        .body(body)
}

async fn chat(request: &HttpRequest, body: web::Payload) -> SandboxAnswer {
    let header = |name: HeaderName| request.headers().get(name)?.to_str().ok();
    match body.to_bytes_limited(LARGEST_CHAT).await {
        Ok(Ok(body)) => chat_sandbox::answer(header(AUTHORIZATION), header(CONTENT_TYPE), &body),
        Ok(Err(_)) => chat_sandbox::unreadable(false),
        Err(_) => chat_sandbox::unreadable(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::http::{HttpClient, HttpRequest, HttpSettings};
    use crate::source::news::{Listing, NewsUpstream};
    use larder_cache::LoadError;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(20);

    fn sandbox(latency: Duration, error_rate: f64) -> SocketAddr {
        spawn("127.0.0.1:0".parse().unwrap(), latency, error_rate).unwrap()
    }

    fn upstreams(address: SocketAddr) -> [NewsUpstream; 2] {
        NewsFormat::ALL.map(|format| NewsUpstream {
            format,
            base_url: base_url(address, format),
            key: None,
            http: HttpClient::new(HttpSettings::new(format.name(), LONG)),
            quota: None,
        })
    }

    #[test]
    fn both_adapters_load_from_it_and_say_that_it_was_the_sandbox() {
        let address = sandbox(Duration::ZERO, 0.0);
        for upstream in upstreams(address) {
            for category in ["general", "sports"] {
                let bytes = upstream
                    .fetch(category, Instant::now() + LONG, None)
                    .unwrap();
                let listing = Listing::read(&bytes).unwrap();
                assert!(listing.len() >= 50);
                assert!(listing.flags().sandbox);
            }
        }
    }

    #[test]
    fn a_story_told_by_both_is_merged_into_one() {
        let [wire, paper] = upstreams(sandbox(Duration::ZERO, 0.0)).map(|upstream| {
            upstream
                .fetch("science", Instant::now() + LONG, None)
                .unwrap()
        });
        let parts = [&wire, &paper].map(|bytes| Listing::read(bytes).unwrap());
        let merged = Listing::merge(&parts, parts[0].flags());
        let merged = Listing::read(&merged).unwrap().len();
        assert!(merged < parts[0].len() + parts[1].len(), "{merged}");
    }

    #[test]
    fn answers_take_their_latency() {
        let latency = Duration::from_millis(80);
        let [upstream, _] = upstreams(sandbox(latency, 0.0));
        let start = Instant::now();
        upstream.fetch("general", start + LONG, None).unwrap();
        assert!(start.elapsed() >= latency);
        let slow = upstream.fetch("general", Instant::now() + latency / 4, None);
        assert!(matches!(slow, Err(LoadError::TooSlow(_))), "{slow:?}");
    }

    #[test]
    fn it_fails_at_its_rate_in_each_apis_shape() {
        let [wire, paper] = upstreams(sandbox(Duration::ZERO, 0.5));
        let outcomes: Vec<Result<(), LoadError>> = (0..8)
            .map(|number| if number < 4 { &wire } else { &paper })
            .map(|upstream| {
                upstream
                    .fetch("general", Instant::now() + LONG, None)
                    .map(|_| ())
            })
            .collect();
        let failed = |says: &str| Err(LoadError::Failed(says.to_owned()));
        let spent = |says: &str| {
            Err(LoadError::Paused {
                what: says.to_owned(),
                retry_after: Duration::from_secs(1),
                whole_source: false,
            })
        };
        assert_eq!(
            outcomes,
            [
                Ok(()),
                failed("newsapi answered 500: unexpectedError: The sandbox was told to fail."),
                Ok(()),
                spent("newsapi answered 429: rateLimited: The sandbox was told to be spent."),
                Ok(()),
                failed("guardian answered 500: The sandbox was told to fail."),
                Ok(()),
                spent("guardian answered 429: API rate limit exceeded"),
            ]
        );
    }

    #[test]
    fn unknown_paths_are_not_found_and_a_taken_address_is_an_error() {
        let address = sandbox(Duration::ZERO, 0.0);
        let client = HttpClient::new(HttpSettings::new("sandbox", LONG));
        let url = format!("http://{address}/v2/sources");
        let get = HttpRequest::get(&url);
        let answer = client.ask(&get, Instant::now() + LONG).unwrap();
        assert_eq!(
            (answer.status, answer.header(SANDBOX_HEADER)),
            (404, Some("true"))
        );
        assert!(spawn(address, Duration::ZERO, 0.0).is_err());
    }

    #[test]
    fn arguments_have_the_documented_defaults_and_limits() {
        #[derive(clap::Parser)]
        struct Sandbox {
            #[command(flatten)]
            arguments: SandboxArguments,
        }
        let parse = |arguments: &[&str]| {
            <Sandbox as clap::Parser>::try_parse_from([&["sandbox"], arguments].concat())
        };
        let defaults = parse(&[]).ok().unwrap().arguments;
        assert_eq!(
            (defaults.latency, defaults.error_rate),
            (Duration::from_millis(700), 0.0)
        );
        assert!(parse(&["--latency", "1s", "--error-rate", "1", "--bind", "[::1]:80"]).is_ok());
        for wrong in [
            ["--latency", "5"],
            ["--error-rate", "1.1"],
            ["--error-rate", "NaN"],
            ["--bind", "here"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
