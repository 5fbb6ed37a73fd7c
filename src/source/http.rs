//! An HTTP client for one upstream. Every call ends by its deadline, whatever the upstream does.
//!
//! Promise: the deadline covers the whole call, including the body, so an upstream that sends a
//! byte a second cannot block a thread. A body is complete or it is an error. It is never larger
//! than the limit, decompressed. No error shows the call's secrets.
//!
//! Of an answer other than 200 to 203 (RFC 9110, section 15) only the status and the head matter.
//! Its body is read only if that is cheap: it may be too long, in an unknown coding, or cut short.
//!
//! The client follows a redirect only within one origin, because the key in a header or a query is
//! for one host only. It never retries: a retry would be a second call on the quota, and the cache
//! loads again soon. There is one exception. Some upstreams send a body after a 204 or a 304. Then
//! the connection still holds that body, and the next answer on it is not HTTP. In that case the
//! client sends the request again on a new connection.
//!
//! A POST may cost money each time it arrives, so this exception is not for POST. Each POST goes on
//! a new connection, which holds nothing of an earlier answer. GET and QUERY are safe (RFC 9110,
//! section 9.2.1; RFC 10008).

mod coding;
pub(super) mod date;
pub(super) mod field;
mod redirect;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ureq::AsSendBody;
use ureq::http::{HeaderMap, HeaderValue, Request, Response, Uri};

use super::error::sanitized;
use super::trace::{TRACEPARENT, TraceContext};
use crate::quantity::format_size;
use larder_cache::{LoadError, Secret, escape_into};

/// The pause if an upstream asks for one without a valid `Retry-After`.
const DEFAULT_PAUSE: Duration = Duration::from_secs(60);
/// How much is read of a body that is not a value: it may have an error message, and the connection
/// can be reused only after its end.
const LONGEST_ERROR: u64 = 16 << 10;
/// Redirects within one origin that are followed, at most.
const REDIRECTS: usize = 3;

/// The limits of calls to one upstream.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Its name in errors.
    pub upstream: String,
    /// The longest time that a call may take, if its deadline is later.
    pub timeout: Duration,
    /// The largest valid body, decompressed, in bytes.
    pub max_body: usize,
    /// The longest pause that its own answer can cause.
    pub max_pause: Duration,
}

impl HttpSettings {
    /// The default of the longest pause: a minute.
    pub const MAX_PAUSE: Duration = Duration::from_secs(60);

    /// Settings with bodies of at most 4 MiB and pauses of at most [`HttpSettings::MAX_PAUSE`].
    pub fn new(upstream: impl Into<String>, timeout: Duration) -> HttpSettings {
        HttpSettings {
            upstream: upstream.into(),
            timeout,
            max_body: 4 << 20,
            max_pause: HttpSettings::MAX_PAUSE,
        }
    }
}

/// The method of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceMethod {
    /// GET. It has no body.
    #[default]
    Get,
    /// POST.
    Post,
    /// QUERY (RFC 10008): a safe request with a body.
    Query,
}

impl SourceMethod {
    /// All of them.
    pub const ALL: [SourceMethod; 3] = [SourceMethod::Get, SourceMethod::Post, SourceMethod::Query];

    /// The method in a request.
    pub fn name(self) -> &'static str {
        match self {
            SourceMethod::Get => "GET",
            SourceMethod::Post => "POST",
            SourceMethod::Query => "QUERY",
        }
    }

    /// Whether it changes nothing at the upstream, so that it may be sent again, and may be
    /// conditional (RFC 9110, sections 9.2 and 13.1.2).
    pub fn is_safe(self) -> bool {
        self != SourceMethod::Post
    }

    /// The redirects that keep the method and the body (RFC 9110, section 15.4; RFC 10008). A GET
    /// has nothing to keep, so it follows all of them.
    fn kept_by(self) -> &'static [u16] {
        match self {
            SourceMethod::Get => &[301, 302, 303, 307, 308],
            SourceMethod::Post => &[307, 308],
            SourceMethod::Query => &[301, 302, 307, 308],
        }
    }
}

/// A request.
#[derive(Clone, Copy, Default)]
pub struct HttpRequest<'a> {
    /// The method.
    pub method: SourceMethod,
    /// An `http` or `https` URL.
    pub url: &'a str,
    /// Parameters to add to it, not escaped.
    pub query: &'a [(&'a str, &'a str)],
    /// The headers to send.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body. A GET sends none.
    pub body: &'a [u8],
    /// The secrets in all of these. No error shows them.
    pub secrets: &'a [Secret],
    /// The trace that it continues, unless `headers` have a `traceparent`.
    pub trace: Option<&'a TraceContext>,
}

impl<'a> HttpRequest<'a> {
    /// A GET of `url`, without headers of its own.
    pub fn get(url: &'a str) -> HttpRequest<'a> {
        HttpRequest {
            url,
            ..HttpRequest::default()
        }
    }
}

/// An answer of any status.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed. Complete if the status is 200 to 203, else what could be read of its
    /// first 16 KiB.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// A header's value, if it is present and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the upstream says that it wants to be left alone for a while: 429, or 503 with a
    /// time (RFC 9110, section 15.6.4).
    pub fn asks_to_wait(&self) -> bool {
        self.status == 429 || (self.status == 503 && self.headers.contains_key("retry-after"))
    }
}

/// The time that `Retry-After` gives, in seconds or as a date (RFC 9110, section 10.2.3).
fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = date::parse(text, now)?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// The connection of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// An idle one, if there is one.
    Any,
    /// A new one.
    New,
}

/// A client for one upstream, with connections of its own. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    settings: HttpSettings,
    agent: ureq::Agent,
    /// Whether an answer had no body, and no answer since was invalid HTTP.
    bodiless: Arc<AtomicBool>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl HttpClient {
    /// A client without connections.
    pub fn new(settings: HttpSettings) -> HttpClient {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
            .accept_encoding(coding::ACCEPTED)
            // For QUERY.
            .allow_non_standard_methods(true)
            .build();
        HttpClient {
            settings,
            agent: ureq::Agent::new_with_config(config),
            bodiless: Arc::default(),
        }
    }

    /// The upstream's name in errors.
    pub fn upstream(&self) -> &str {
        &self.settings.upstream
    }

    /// The longest time that a call may take, if its deadline is later.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// How long to pause after this answer: the time in `Retry-After`, or a minute if that is not
    /// valid. At least a second, at most [`HttpSettings::max_pause`].
    pub fn pause(&self, answer: &HttpAnswer) -> Duration {
        let text = answer.header("retry-after").map(str::trim);
        let pause = text.and_then(|text| parse_retry_after(text, Timestamp::now()));
        let least = Duration::from_secs(1);
        pause
            .unwrap_or(DEFAULT_PAUSE)
            .clamp(least, self.settings.max_pause.max(least))
    }

    /// Makes one call and returns its answer, of any status but a redirect that is not followed.
    /// Blocks until `deadline` or the upstream's timeout at the latest.
    ///
    /// # Errors
    /// `TooSlow` if the head, or the body of a value, is not complete by then. `Failed` if the
    /// upstream could not be reached, lost the connection, sent a body that is too large or cannot
    /// be decompressed, redirects to another origin, or redirects a POST or a QUERY by a status
    /// that does not keep its body. Never `Paused`: a 429 is an answer.
    pub fn ask(
        &self,
        request: &HttpRequest<'_>,
        deadline: Instant,
    ) -> Result<HttpAnswer, LoadError> {
        let own = Instant::now().checked_add(self.settings.timeout);
        let deadline = own.map_or(deadline, |own| own.min(deadline));
        let mut uri: Uri = with_query(request.url, request.query)
            .parse()
            .map_err(|_| self.failed("has an invalid base URL"))?;
        for _ in 0..=REDIRECTS {
            let answer = self.call(&uri, request, deadline)?;
            let status = answer.status;
            let moved = SourceMethod::Get.kept_by().contains(&status);
            let Some(location) = answer.headers.get("location").filter(|_| moved) else {
                return Ok(answer);
            };
            if !request.method.kept_by().contains(&status) {
                let method = request.method.name();
                return Err(self.failed(&format!(
                    "redirects ({status}) a {method}, which is not followed: this status does not keep its body"
                )));
            }
            let location = String::from_utf8_lossy(location.as_bytes());
            uri = redirect::target(&uri, &location, request.secrets).map_err(|place| {
                self.failed(&format!(
                    "redirects ({status}) to {place}, which is not followed: the key is for its base URL alone"
                ))
            })?;
        }
        Err(self.failed("redirects in circles"))
    }

    fn call(
        &self,
        uri: &Uri,
        request: &HttpRequest<'_>,
        deadline: Instant,
    ) -> Result<HttpAnswer, LoadError> {
        let is_safe = request.method.is_safe();
        let first = if is_safe {
            Connection::Any
        } else {
            Connection::New
        };
        let mut outcome = self.send(uri, request, deadline, first)?;
        if let Err(ureq::Error::Protocol(_)) = outcome
            && is_safe
            && self.bodiless.swap(false, Ordering::Relaxed)
        {
            outcome = self.send(uri, request, deadline, Connection::New)?;
        }
        let (head, body) = outcome
            .map_err(|error| self.trouble(&error, request.secrets))?
            .into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        let body = match status {
            200..=203 => self.value(&headers, body, request.secrets, deadline)?,
            // No body, whatever the headers say: the headers of a 304 describe the 200 that it
            // stands for.
            204 | 304 => {
                self.bodiless.store(true, Ordering::Relaxed);
                Vec::new()
            }
            _ => error_body(&headers, body, deadline),
        };
        Ok(HttpAnswer {
            status,
            headers,
            body,
        })
    }

    /// The complete body of an answer that is a value.
    fn value(
        &self,
        headers: &HeaderMap,
        body: ureq::Body,
        secrets: &[Secret],
        deadline: Instant,
    ) -> Result<Vec<u8>, LoadError> {
        let codings =
            coding::of(headers).map_err(|what| self.failed(&sanitized(&what, secrets)))?;
        // One byte more than the limit shows that a body is too large.
        let limit = self.settings.max_body as u64 + 1;
        let mut bytes = Vec::new();
        coding::unpack(body.into_reader(), &codings, deadline)
            .and_then(|body| body.take(limit).read_to_end(&mut bytes))
            .map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => self.too_slow(),
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if !codings.is_empty() => {
                    self.failed("answered with a body that cannot be decompressed")
                }
                _ => self.trouble(&ureq::Error::from(error), secrets),
            })?;
        if bytes.len() > self.settings.max_body {
            let most = format_size(self.settings.max_body as u64);
            return Err(self.failed(&format!("answered with more than {most}")));
        }
        Ok(bytes)
    }

    /// Sends the request once. Returns the answer before its body is read, or the client's error.
    fn send(
        &self,
        uri: &Uri,
        request: &HttpRequest<'_>,
        deadline: Instant,
        connection: Connection,
    ) -> Result<Result<Response<ureq::Body>, ureq::Error>, LoadError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.too_slow());
        }
        let mut built = Request::builder()
            .method(request.method.name())
            .uri(uri.clone());
        for (name, value) in request.headers {
            // As bytes, because a value may have letters that are not ASCII. A control character is
            // an error all the same.
            let mut value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| self.failed("cannot be sent a header with a control character"))?;
            value.set_sensitive(true);
            built = built.header(*name, value);
        }
        let is_parent = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case(TRACEPARENT);
        if let Some(trace) = request.trace
            && !request.headers.iter().any(is_parent)
        {
            for (name, value) in trace.headers() {
                built = built.header(name, value);
            }
        }
        let (mut nothing, mut bytes) = ((), request.body);
        let body = match request.method {
            SourceMethod::Get => nothing.as_body(),
            SourceMethod::Post | SourceMethod::Query => bytes.as_body(),
        };
        let built = match built.body(body) {
            Ok(built) => built,
            Err(error) => return Ok(Err(error.into())),
        };
        let mut config = self
            .agent
            .configure_request(built)
            .timeout_global(Some(left));
        if is_this_machine(uri) {
            config = config.proxy(None);
        }
        if connection == Connection::New {
            config = config.max_idle_age(Duration::ZERO);
        }
        Ok(self.agent.run(config.build()))
    }

    fn too_slow(&self) -> LoadError {
        LoadError::TooSlow(format!("{} did not answer in time", self.settings.upstream))
    }

    pub(super) fn failed(&self, what: &str) -> LoadError {
        LoadError::Failed(format!("{} {what}", self.settings.upstream))
    }

    fn trouble(&self, error: &ureq::Error, secrets: &[Secret]) -> LoadError {
        match error {
            ureq::Error::Timeout(_) => self.too_slow(),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.failed("closed the connection before its answer was complete")
            }
            ureq::Error::HostNotFound => self.failed("was not found: its host name has no address"),
            // These errors show the URL, which may have a key in its query.
            ureq::Error::BadUri(_) => self.failed("has a base URL without a scheme or a host"),
            ureq::Error::RequireHttpsOnly(_) => self.failed("has a base URL that is not https"),
            error => self.failed(&format!(
                "could not be asked: {}",
                sanitized(&error.to_string(), secrets)
            )),
        }
    }
}

/// What can be read of a body that is not a value. If that is all of it, the connection can be
/// reused.
fn error_body(headers: &HeaderMap, body: ureq::Body, deadline: Instant) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(codings) = coding::of(headers)
        && let Ok(body) = coding::unpack(body.into_reader(), &codings, deadline)
    {
        // An error changes nothing: the status alone decides.
        let _ = body.take(LONGEST_ERROR).read_to_end(&mut bytes);
    }
    bytes
}

/// The URL with these parameters added and escaped.
fn with_query(url: &str, query: &[(&str, &str)]) -> String {
    let mut complete = url.to_owned();
    let mut mark = if url.contains('?') { '&' } else { '?' };
    for (name, value) in query {
        complete.push(mark);
        mark = '&';
        escape_into(&mut complete, name);
        complete.push('=');
        escape_into(&mut complete, value);
    }
    complete
}

/// Whether a URL leads to this machine, as the sandbox does. A proxy from the environment is for
/// other machines.
fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}
