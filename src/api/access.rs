//! Who may ask, and how often: the checks of `auth/` in HTTP's words.
//!
//! Promise: nothing here blocks. A route says which callers it admits. Refusals come in this order:
//! 400 for a repeated `Authorization` header, 401, 403, 429.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::RequestHead;
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};

use crate::auth::{ClientNetwork, Decision, KeyRecord, KeyTable, WrongKeys};
use crate::resource::RequestContext;

use super::header_texts::HeaderTexts;
use super::problem::Problem;
use super::request_id;

/// What is left of the caller's rate (draft-ietf-httpapi-ratelimit-headers-10).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The rate itself.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The callers that a route admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Anyone. A key is not looked at.
    Anyone,
    /// Anyone with a key.
    Keys,
    /// Admins.
    Admins,
}

impl Audience {
    /// The callers that may read a resource, which is `public` or not.
    pub(super) fn of_readers(public: bool) -> Audience {
        if public {
            Audience::Anyone
        } else {
            Audience::Keys
        }
    }
}

/// The gate. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) table: Arc<KeyTable>,
    /// Whether resources need a key at all.
    pub(crate) required: bool,
    pub(crate) wrong_keys: Arc<WrongKeys>,
}

/// An admitted request: what is left of its caller's rate, if the caller has one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Admission(Option<Decision>);

/// A refused request.
pub(crate) struct Refused {
    problem: Box<Problem>,
    admission: Admission,
}

/// An admin's admitted request.
pub(crate) struct Admitted {
    pub(super) admission: Admission,
    actor: Actor,
}

/// An admin, as the log names them: the id and the name of the key, never the key.
pub(crate) struct Actor {
    id: String,
    name: String,
    /// The request, for the log.
    context: RequestContext,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by the key {} {:?}", self.id, self.name)
    }
}

impl Actor {
    /// The id of the key.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The id of the request.
    pub(super) fn request_id(&self) -> Option<&str> {
        self.context.request_id.as_deref()
    }

    /// The id of the trace that the request is part of.
    pub(super) fn trace_id(&self) -> Option<&str> {
        self.context.trace_id()
    }
}

impl Access {
    /// Admits the request, or says why not.
    pub(super) fn check_at(
        &self,
        head: &RequestHead,
        audience: Audience,
        now: Instant,
    ) -> Result<Admission, Refused> {
        let admitted = self.admit(head, audience, now, |_| ());
        admitted.map(|(admission, _)| admission)
    }

    /// Admits the request, or says why not. If a key was looked at, returns what `then` makes of
    /// its record.
    fn admit<T>(
        &self,
        head: &RequestHead,
        audience: Audience,
        now: Instant,
        then: impl FnOnce(&KeyRecord) -> T,
    ) -> Result<(Admission, Option<T>), Refused> {
        let refused = |problem| Refused {
            problem: Box::new(problem),
            admission: Admission::default(),
        };
        if audience == Audience::Anyone {
            return Ok((Admission::default(), None));
        }
        let mut headers = head.headers().get_all(AUTHORIZATION);
        let none = "Send an API key: Authorization: Bearer KEY.";
        let Some(header) = headers.next() else {
            return if audience == Audience::Keys && !self.required {
                Ok((Admission::default(), None))
            } else {
                Err(refused(Problem::NoKey(none)))
            };
        };
        if headers.next().is_some() {
            return Err(refused(Problem::RepeatedHeader("Authorization")));
        }
        let decided = bearer(header).and_then(|key| {
            self.table.lookup(key, |record| {
                let admitted = audience != Audience::Admins || record.is_admin();
                admitted.then(|| (record.check(now), then(record)))
            })
        });
        match decided {
            None => {
                let client = head.peer_addr.map(|peer| ClientNetwork::of(peer.ip()));
                Err(refused(match self.wrong_keys.count(client, now) {
                    None if bearer(header).is_none() => Problem::NoKey(none),
                    None => Problem::NoKey("The API key is not known: it may have been revoked."),
                    Some(retry_after) => Problem::WrongKeys { retry_after },
                }))
            }
            Some(None) => Err(refused(Problem::NotAdmin)),
            Some(Some((
                decision @ Some(Decision {
                    allowed: false,
                    retry_after,
                    ..
                }),
                _,
            ))) => Err(Refused {
                problem: Box::new(Problem::TooOften { retry_after }),
                admission: Admission(decision),
            }),
            Some(Some((decision, made))) => Ok((Admission(decision), Some(made))),
        }
    }

    /// Admits the request of an admin, or says why not.
    pub(super) fn admit_admin(&self, head: &RequestHead) -> Result<Admitted, Refused> {
        let who = |record: &KeyRecord| (record.id().to_owned(), record.name().to_owned());
        let (admission, who) = self.admit(head, Audience::Admins, Instant::now(), who)?;
        let (id, name) = who.unwrap_or_default();
        let context = RequestContext::default();
        let actor = Actor { id, name, context };
        Ok(Admitted { admission, actor })
    }

    /// Admits admins only, and answers with the result of `work`, which gets the admin. The answer
    /// must not be stored, and has the headers of the caller's rate.
    pub(crate) async fn admins<W>(
        &self,
        request: &HttpRequest,
        work: impl FnOnce(Actor) -> W,
    ) -> HttpResponse
    where
        W: Future<Output = Result<HttpResponse, Problem>>,
    {
        // A request with `Expect: 100-continue` was admitted before its body was asked for.
        let before = request.extensions_mut().remove::<Admitted>();
        let Admitted {
            admission,
            mut actor,
        } = match before.map_or_else(|| self.admit_admin(request.head()), Ok) {
            Ok(admitted) => admitted,
            Err(refused) => return refused.answer(),
        };
        actor.context = request_id::context_of(request);
        let mut answer = work(actor).await.unwrap_or_else(|problem| problem.answer());
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        admission.set_headers(headers);
        answer
    }
}

impl Refused {
    /// The refusal as a response.
    pub(crate) fn answer(&self) -> HttpResponse {
        self.admission.with_rate_headers(self.problem.answer())
    }
}

impl Admission {
    /// The response, with the headers that say what is left of the caller's rate.
    pub(crate) fn with_rate_headers(&self, mut answer: HttpResponse) -> HttpResponse {
        self.set_headers(answer.headers_mut());
        answer
    }

    fn set_headers(&self, headers: &mut HeaderMap) {
        if self.0.is_some() {
            self.write_headers(&mut HeaderTexts::new(), headers);
        }
    }

    /// The same on the hot path: the texts share the buffer of the answer's other headers.
    pub(super) fn write_headers(&self, texts: &mut HeaderTexts, headers: &mut HeaderMap) {
        let Some(decision) = self.0 else { return };
        let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let left = texts
            .text("\"default\";r=")
            .number(decision.remaining.into())
            .text(";t=")
            .number(seconds(decision.reset))
            .value();
        headers.insert(RATE_LIMIT, left);
        headers.insert(
            RATE_LIMIT_POLICY,
            policy(decision.limit, seconds(decision.window)),
        );
    }
}

/// A rate, as requests and seconds, and the header that says it.
type PolicyHeader = ((u32, u64), HeaderValue);

thread_local! {
    /// The policy header that this worker sent last. Most keys have one rate.
    static LAST_POLICY: RefCell<PolicyHeader> =
        const { RefCell::new(((0, 0), HeaderValue::from_static("\"default\";q=0;w=0"))) };
}

/// The header for `limit` requests in `window` seconds. Each worker has a text of its own, so that
/// workers do not write to one reference count.
fn policy(limit: u32, window: u64) -> HeaderValue {
    LAST_POLICY.with_borrow_mut(|(rate, header)| {
        if *rate != (limit, window) {
            let text = format!("\"default\";q={limit};w={window}");
            *header = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
            *rate = (limit, window);
        }
        header.clone()
    })
}

const SCHEME: &[u8] = b"Bearer ";

/// The key in `Authorization: Bearer KEY` (RFC 6750, section 2.1). The scheme may be in any case.
pub(super) fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, key) = header.as_bytes().split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    std::str::from_utf8(key)
        .ok()
        .filter(|_| is_bearer)
        .map(str::trim)
}
