//! An HTTP client for one upstream: every call is over by its deadline, whatever the other side does.
//!
//! Promise: the deadline covers all of a call, the body too, so an upstream that sends a byte a second cannot hold a thread.
//! A body is whole or it is an error, and never larger than the limit, unpacked. No error text shows the call's secret.
//!
//! It refuses to follow a redirect to another origin: the key in a header or a query is for the one host it was given for.
//! It asks once: a retry would be a second call on the quota, and the cache asks again soon enough. But where the answer before
//! had no body, and nonsense comes in place of the next one, it asks again on a new connection: some upstreams send a body behind
//! a 204 or a 304 all the same, which the connection still holds.

#[cfg(test)]
mod tests;

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
