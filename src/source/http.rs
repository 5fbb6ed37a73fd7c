//! An HTTP client for one upstream: every call is over by its deadline, whatever the other side does.
//!
//! Promise: the deadline covers all of a call, the body too, so an upstream that sends a byte a second cannot hold a thread.
//! A body is whole or it is an error, and never larger than the limit, unpacked. No error text shows the call's secret.
//!
//! It refuses to follow a redirect to another origin: the key in a header or a query is for the one host it was given for.
//! It asks once: a retry would be a second call on the quota, and the cache asks again soon enough. But where the answer before
//! had no body, and nonsense comes in place of the next one, it asks again on a new connection: some upstreams send a body behind
//! a 204 or a 304 all the same, which the connection still holds.

use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ureq::http::{HeaderMap, HeaderValue, Response, Uri};

use super::error::{SourceError, shown};
use crate::quantity::format_size;
use crate::secret::Secret;

/// How long an upstream is left alone that says its quota is spent but not until when.
const UNSAID_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest that an upstream's own word can silence calls to it: a slip of its clock should not do so for a year.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Redirects within one origin that are followed.
const REDIRECTS: usize = 3;

/// What one upstream's calls keep to.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// What errors call it.
    pub upstream: String,
    /// The longest that a call may take, where its deadline leaves more.
    pub timeout: Duration,
    /// The largest body taken, in bytes, unpacked.
    pub max_body: usize,
}

impl HttpSettings {
    /// Settings with a limit of 4 MiB for bodies.
    pub fn new(upstream: impl Into<String>, timeout: Duration) -> HttpSettings {
        HttpSettings {
            upstream: upstream.into(),
            timeout,
            max_body: 4 << 20,
        }
    }
}

/// One GET.
pub struct Get<'a> {
    /// An `http` or `https` URL.
    pub url: &'a str,
    /// Parameters to add to it; escaped on the way.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers to send.
    pub headers: &'a [(&'a str, &'a str)],
    /// The secrets among all these: no error shows them.
    pub secrets: &'a [Secret],
}

/// Its answer, whatever the status.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body, unpacked.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// A header's value, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long `Retry-After` (RFC 9110, section 10.2.3) asks to wait, between a second and a day; a minute if it says nothing.
    pub fn retry_after(&self) -> Duration {
        let said = self.header("retry-after").map(str::trim);
        said.and_then(|said| parse_retry_after(said, Timestamp::now()))
            .unwrap_or(UNSAID_RETRY_AFTER)
            .clamp(Duration::from_secs(1), LONGEST_RETRY_AFTER)
    }
}

fn parse_retry_after(said: &str, now: Timestamp) -> Option<Duration> {
    if !said.is_empty() && said.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(said.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(said).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// Which connection a request goes over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// One that is open already, if there is any.
    Any,
    New,
}

/// A client for one upstream, with connections of its own that it keeps. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    settings: HttpSettings,
    agent: ureq::Agent,
    /// Whether an answer had no body, and no nonsense has come since.
    bodiless: Arc<AtomicBool>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl HttpClient {
    /// A client that has called nobody yet.
    pub fn new(settings: HttpSettings) -> HttpClient {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
            .build();
        HttpClient {
            settings,
            agent: ureq::Agent::new_with_config(config),
            bodiless: Arc::default(),
        }
    }

    /// What errors call the upstream.
    pub fn upstream(&self) -> &str {
        &self.settings.upstream
    }

    /// The longest that a call may take, where its deadline leaves more.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Makes one call and returns its whole answer, of any status but a redirect.
    ///
    /// Blocks until `deadline` or the upstream's own timeout at the latest. `TooSlow` if it was not over by then, `Failed` if the
    /// upstream could not be reached, broke off, sent too much, or redirects to another origin. Never `Spent`: a 429 is an answer.
    pub fn get(&self, get: &Get<'_>, deadline: Instant) -> Result<HttpAnswer, SourceError> {
        let own = Instant::now().checked_add(self.settings.timeout);
        let deadline = own.map_or(deadline, |own| own.min(deadline));
        let mut uri: Uri =
            (get.url.parse()).map_err(|_| self.failed("has a base URL that is none"))?;
        let mut query = get.query;
        for _ in 0..=REDIRECTS {
            let answer = self.call(&uri, query, get, deadline)?;
            let moved = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = answer.header("location").filter(|_| moved) else {
                return Ok(answer);
            };
            match same_origin(&uri, location) {
                // The new place says its query itself.
                Some(next) => (uri, query) = (next, &[]),
                None => return Err(self.failed(&moved_away(answer.status, location, get.secrets))),
            }
        }
        Err(self.failed("redirects in circles"))
    }

    fn call(
        &self,
        uri: &Uri,
        query: &[(&str, &str)],
        get: &Get<'_>,
        deadline: Instant,
    ) -> Result<HttpAnswer, SourceError> {
        let mut outcome = self.send(uri, query, get, deadline, Connection::Any)?;
        if let Err(ureq::Error::Protocol(_)) = outcome
            && self.bodiless.swap(false, Ordering::Relaxed)
        {
            outcome = self.send(uri, query, get, deadline, Connection::New)?;
        }
        let (head, body) = outcome
            .map_err(|error| self.trouble(&error, get.secrets))?
            .into_parts();
        let mut bytes = Vec::new();
        let status = head.status.as_u16();
        if matches!(status, 204 | 304) {
            self.bodiless.store(true, Ordering::Relaxed);
            // No body, whatever the headers say: those of a 304 tell of the 200 that it stands for, packed or not.
            return Ok(HttpAnswer {
                status,
                headers: head.headers,
                body: bytes,
            });
        }
        // One byte past the limit tells a body that is too large from one that just fits. ureq's own limit counts packed bytes.
        let limit = self.settings.max_body as u64 + 1;
        let read = body.into_reader().take(limit).read_to_end(&mut bytes);
        read.map_err(|error| self.trouble(&ureq::Error::from(error), get.secrets))?;
        if bytes.len() > self.settings.max_body {
            let most = format_size(self.settings.max_body as u64);
            return Err(self.failed(&format!("answered with more than {most}")));
        }
        Ok(HttpAnswer {
            status,
            headers: head.headers,
            body: bytes,
        })
    }

    /// Sends the request and returns the answer whose body is not read yet, or what the client says of it.
    fn send(
        &self,
        uri: &Uri,
        query: &[(&str, &str)],
        get: &Get<'_>,
        deadline: Instant,
        connection: Connection,
    ) -> Result<Result<Response<ureq::Body>, ureq::Error>, SourceError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.too_slow());
        }
        let mut request = self.agent.get(uri);
        for (name, value) in query {
            request = request.query(name, value);
        }
        for (name, value) in get.headers {
            // Bytes, since a value may have letters that are not ASCII; what no header may have is an error all the same.
            let mut value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| self.failed("cannot be sent a header with a control character"))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        let mut config = request.config().timeout_global(Some(left));
        if is_this_machine(uri) {
            config = config.proxy(None);
        }
        if connection == Connection::New {
            config = config.max_idle_age(Duration::ZERO);
        }
        Ok(config.build().call())
    }

    fn too_slow(&self) -> SourceError {
        SourceError::TooSlow(format!("{} did not answer in time", self.settings.upstream))
    }

    pub(super) fn failed(&self, what: &str) -> SourceError {
        SourceError::Failed(format!("{} {what}", self.settings.upstream))
    }

    fn trouble(&self, error: &ureq::Error, secrets: &[Secret]) -> SourceError {
        match error {
            ureq::Error::Timeout(_) => self.too_slow(),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.failed("broke the connection off before its answer was whole")
            }
            ureq::Error::HostNotFound => {
                self.failed("cannot be found: no address for its host name")
            }
            // These carry the URL, and with it a key in the query.
            ureq::Error::BadUri(_) => self.failed("has a base URL without a scheme or a host"),
            ureq::Error::RequireHttpsOnly(_) => self.failed("has a base URL that is not https"),
            error => self.failed(&format!(
                "could not be asked: {}",
                shown(&error.to_string(), secrets)
            )),
        }
    }
}

/// Where a redirect leads, if that is the same scheme, host and port.
fn same_origin(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let location = location.split('#').next().unwrap_or_default();
    let next: Uri = if location.starts_with('/') && !location.starts_with("//") {
        format!("{scheme}://{authority}{location}").parse().ok()?
    } else {
        location.parse().ok()?
    };
    let same = next.scheme() == from.scheme() && next.authority() == Some(authority);
    same.then_some(next)
}

/// Shows of the new place no more than its origin: the rest may have been made of the query that was sent.
fn moved_away(status: u16, location: &str, secrets: &[Secret]) -> String {
    let place: Option<Uri> = location.parse().ok();
    let place = place.and_then(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.host()?)));
    let place = place.map_or_else(|| "elsewhere".to_owned(), |place| shown(&place, secrets));
    format!(
        "redirects ({status}) to {place}, which is not followed: the key is for its base URL alone"
    )
}

/// A proxy from the environment is for other machines; the sandbox is on this one.
fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tiny_server::{TinyServer, respond};
    use std::io::Write;

    const KEY: &str = "s3cr3t-k3y";

    fn client(timeout: Duration) -> HttpClient {
        let mut settings = HttpSettings::new("newsapi", timeout);
        settings.max_body = 1000;
        HttpClient::new(settings)
    }

    /// A call that carries the key both ways. Whatever comes of it must not show the key.
    fn get(server: &TinyServer, timeout: Duration) -> Result<HttpAnswer, SourceError> {
        let key = [Secret::new(KEY)];
        let outcome = client(timeout).get(
            &Get {
                url: &format!("{}/search", server.base_url()),
                query: &[("q", "a b&c|d"), ("api-key", KEY)],
                headers: &[("X-Api-Key", KEY)],
                secrets: &key,
            },
            Instant::now() + Duration::from_secs(10),
        );
        if let Err(error) = &outcome {
            assert!(!format!("{error} {error:?}").contains(KEY), "{error}");
        }
        outcome
    }

    const PATIENT: Duration = Duration::from_secs(10);

    #[test]
    fn sends_what_it_was_given_and_who_it_is() {
        let server = TinyServer::start(|mut stream, request| {
            respond(&mut stream, "200 OK", &[], request.as_bytes());
        });
        let answer = get(&server, PATIENT).unwrap();
        let seen = String::from_utf8(answer.body).unwrap().to_lowercase();
        assert!(
            seen.starts_with("get /search?q=a%20b%26c%7cd&api-key=s3cr3t-k3y http/1.1"),
            "{seen}"
        );
        let agent = format!("\r\nuser-agent: larder/{}\r\n", env!("CARGO_PKG_VERSION"));
        assert!(seen.contains(&agent), "{seen}");
        assert!(seen.contains("\r\nx-api-key: s3cr3t-k3y\r\n"), "{seen}");
    }

    #[test]
    fn any_status_is_an_answer() {
        for status in ["429 Too Many Requests", "500 Oops", "404 Not Found"] {
            let server = TinyServer::start(move |mut stream, _| {
                respond(&mut stream, status, &["Retry-After: 7"], b"body");
            });
            let answer = get(&server, PATIENT).unwrap();
            assert_eq!(answer.status.to_string(), status[..3]);
            assert_eq!(answer.body, b"body");
            assert_eq!(answer.retry_after(), Duration::from_secs(7));
        }
    }

    #[test]
    fn retry_after_in_both_forms_and_in_none() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let seconds = |said| parse_retry_after(said, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(seconds("Fri, 02 Jan 2026 03:05:05 GMT"), Some(60));
        assert_eq!(seconds("Fri, 02 Jan 2026 03:03:05 GMT"), Some(0));
        for wrong in ["", "-1", "soon", "1.5"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        let answer = |said: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", said.parse().unwrap());
            HttpAnswer {
                status: 429,
                headers,
                body: Vec::new(),
            }
        };
        assert_eq!(answer("never").retry_after(), UNSAID_RETRY_AFTER);
        assert_eq!(answer("0").retry_after(), Duration::from_secs(1));
        assert_eq!(answer("9999999999").retry_after(), LONGEST_RETRY_AFTER);
    }

    #[test]
    fn a_truncated_body_is_an_error() {
        let server = TinyServer::start(|mut stream, _| {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"half\":")
                .unwrap();
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert!(matches!(error, SourceError::Failed(_)), "{error:?}");
        let server = TinyServer::start(|mut stream, _| {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"half\":")
                .unwrap();
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert!(matches!(error, SourceError::Failed(_)), "{error:?}");
    }

    #[test]
    fn a_connection_closed_with_nothing_is_an_error() {
        let server = TinyServer::start(|_, _| {});
        let error = get(&server, PATIENT).unwrap_err();
        assert_eq!(
            error.to_string(),
            "newsapi broke the connection off before its answer was whole"
        );
    }

    #[test]
    fn nobody_there_and_what_is_no_http_are_errors() {
        let gone = TinyServer::start(|_, _| {}).stop();
        let error = get(&gone, PATIENT).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("newsapi could not be asked: "),
            "{error}"
        );
        let server = TinyServer::start(|mut stream, request| {
            // It even says the key back.
            stream.write_all(request.as_bytes()).unwrap();
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert!(matches!(error, SourceError::Failed(_)), "{error:?}");
    }

    /// The call ends at its deadline, neither before nor long after.
    fn ends_at_its_deadline(server: &TinyServer) {
        let timeout = Duration::from_millis(300);
        let start = Instant::now();
        let error = get(server, timeout).unwrap_err();
        let took = start.elapsed();
        assert_eq!(
            error,
            SourceError::TooSlow("newsapi did not answer in time".to_owned())
        );
        assert!(took >= timeout && took < PATIENT / 2, "{took:?}");
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        ends_at_its_deadline(&TinyServer::start(|mut stream, _| {
            // Until the client hangs up.
            let _ = stream.read(&mut [0]);
        }));
    }

    #[test]
    fn a_byte_at_a_time_ends_at_the_deadline() {
        // Within the head, and within the body.
        for at_once in [9, 40] {
            ends_at_its_deadline(&TinyServer::start(move |mut stream, _| {
                let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n".to_vec();
                answer.resize(900, b'x');
                let (start, drip) = answer.split_at(at_once);
                let mut open = stream.write_all(start).is_ok();
                for byte in drip {
                    if open {
                        std::thread::sleep(Duration::from_millis(50));
                        open = stream.write_all(&[*byte]).is_ok();
                    }
                }
            }));
        }
    }

    #[test]
    fn a_deadline_that_has_passed_calls_nobody() {
        let server = TinyServer::start(|mut stream, _| respond(&mut stream, "200 OK", &[], b""));
        let error = get(&server, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SourceError::TooSlow(_)));
        assert_eq!(server.requests(), 0);
    }

    #[test]
    fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
        let server = TinyServer::start(|mut stream, _| {
            respond(&mut stream, "200 OK", &[], &[b'x'; 1000]);
        });
        assert_eq!(get(&server, PATIENT).unwrap().body.len(), 1000);
        let server = TinyServer::start(|mut stream, _| {
            respond(&mut stream, "200 OK", &[], &[b'x'; 1001]);
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert_eq!(error.to_string(), "newsapi answered with more than 1000B");
        // Endless, and its length unsaid.
        let server = TinyServer::start(|mut stream, _| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 500]).is_ok() {}
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert_eq!(error.to_string(), "newsapi answered with more than 1000B");
    }

    /// `python3 -c 'import gzip,sys; sys.stdout.buffer.write(gzip.compress(b"hello, packed world", 9, mtime=0))'`
    const PACKED: &[u8] = &[
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 203, 72, 205, 201, 201, 215, 81, 40, 72, 76, 206, 78, 77,
        81, 40, 207, 47, 202, 73, 1, 0, 72, 239, 46, 204, 19, 0, 0, 0,
    ];
    /// A hundred thousand zeros, likewise.
    const BOMB: &[u8] = &[
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 237, 193, 49, 1, 0, 0, 0, 194, 160, 245, 79, 109, 13, 15,
        160, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 128, 87, 3, 125, 149, 17, 212, 160, 134, 1, 0,
    ];

    #[test]
    fn gzip_is_unpacked_and_the_limit_counts_what_it_unpacks_to() {
        let server = TinyServer::start(|mut stream, _| {
            respond(&mut stream, "200 OK", &["Content-Encoding: gzip"], PACKED);
        });
        assert_eq!(get(&server, PATIENT).unwrap().body, b"hello, packed world");
        let server = TinyServer::start(|mut stream, _| {
            respond(&mut stream, "200 OK", &["Content-Encoding: gzip"], BOMB);
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert_eq!(error.to_string(), "newsapi answered with more than 1000B");
        let server = TinyServer::start(|mut stream, _| {
            respond(
                &mut stream,
                "200 OK",
                &["Content-Encoding: gzip"],
                b"not gzip at all",
            );
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert!(matches!(error, SourceError::Failed(_)), "{error:?}");
    }

    #[test]
    fn a_redirect_to_another_host_is_not_followed() {
        let other =
            TinyServer::start(|mut stream, _| respond(&mut stream, "200 OK", &[], b"caught"));
        let elsewhere = format!("Location: {}/?api-key={KEY}", other.base_url());
        let server = TinyServer::start(move |mut stream, _| {
            respond(&mut stream, "302 Found", &[&elsewhere], b"");
        });
        let error = get(&server, PATIENT).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("newsapi redirects (302) to http://127.0.0.1,"),
            "{error}"
        );
        assert_eq!(other.requests(), 0);
        for location in [
            "//evil.example/",
            "https://127.0.0.1/",
            "nonsense",
            "\\\\evil",
        ] {
            let header = format!("Location: {location}");
            let server = TinyServer::start(move |mut stream, _| {
                respond(&mut stream, "301 Moved Permanently", &[&header], b"");
            });
            assert!(
                matches!(get(&server, PATIENT), Err(SourceError::Failed(_))),
                "{location}"
            );
        }
    }

    #[test]
    fn a_redirect_within_the_origin_is_followed() {
        let server = TinyServer::start(|mut stream, request| {
            if request.starts_with("GET /search?") {
                respond(
                    &mut stream,
                    "308 Permanent Redirect",
                    &["Location: /v2/search?page=1#x"],
                    b"",
                );
            } else {
                respond(&mut stream, "200 OK", &[], request.as_bytes());
            }
        });
        let body = String::from_utf8(get(&server, PATIENT).unwrap().body).unwrap();
        assert!(body.starts_with("GET /v2/search?page=1 HTTP/1.1"), "{body}");
        let circle = TinyServer::start(|mut stream, _| {
            respond(&mut stream, "302 Found", &["Location: /again"], b"");
        });
        assert_eq!(
            get(&circle, PATIENT).unwrap_err().to_string(),
            "newsapi redirects in circles"
        );
    }

    #[test]
    fn a_connection_is_used_again_after_an_answer_without_a_body() {
        for head in [
            "304 Not Modified\r\nContent-Length: 50\r\nContent-Encoding: gzip",
            "304 Not Modified",
            "204 No Content",
        ] {
            let server = TinyServer::start(move |mut stream, _| {
                // All that comes on this one connection, which counts as one request.
                let (mut seen, mut byte) = (b"\r\n\r\n".to_vec(), [0]);
                loop {
                    if seen.ends_with(b"\r\n\r\n") {
                        let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes());
                    }
                    match stream.read(&mut byte) {
                        Ok(1) => seen.push(byte[0]),
                        _ => return,
                    }
                }
            });
            let client = client(PATIENT);
            for _ in 0..3 {
                let url = server.base_url();
                let get = Get {
                    url: &url,
                    query: &[],
                    headers: &[],
                    secrets: &[],
                };
                let answer = client.get(&get, Instant::now() + PATIENT).unwrap();
                assert_eq!(answer.status.to_string(), head[..3]);
                assert!(answer.body.is_empty());
            }
            assert_eq!(server.requests(), 1, "{head}");
        }
    }

    #[test]
    fn a_body_where_none_may_be_does_not_reach_the_next_answer() {
        // It comes with the head, or so late that the next request was sent already.
        for late in [false, true] {
            let server = TinyServer::start(move |mut stream, _| {
                let head = "HTTP/1.1 204 No Content\r\nContent-Length: 11\r\n\r\n";
                let answer = if late {
                    head.to_owned()
                } else {
                    format!("{head}not a body!")
                };
                let _ = stream.write_all(answer.as_bytes());
                // Until the next request, or the client hangs up.
                if let Ok(1..) = stream.read(&mut [0; 1000]) {
                    let _ = stream.write_all(format!("not a body!{head}").as_bytes());
                }
            });
            let client = client(PATIENT);
            let get = Get {
                url: &server.base_url(),
                query: &[],
                headers: &[],
                secrets: &[],
            };
            for _ in 0..4 {
                let answer = client.get(&get, Instant::now() + PATIENT).unwrap();
                assert_eq!((answer.status, answer.body.len()), (204, 0));
            }
            assert_eq!(server.requests(), 4, "late: {late}");
        }
    }

    #[test]
    fn this_machine_is_known() {
        for here in [
            "http://127.0.0.1:9/",
            "http://localhost/",
            "http://[::1]:80/",
        ] {
            assert!(is_this_machine(&here.parse().unwrap()), "{here}");
        }
        for there in [
            "http://newsapi.org/",
            "http://10.0.0.1/",
            "http://localhost.example/",
        ] {
            assert!(!is_this_machine(&there.parse().unwrap()), "{there}");
        }
    }
}
