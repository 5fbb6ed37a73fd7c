//! Who may ask, and how often.
//!
//! Promise: nothing here blocks. A route says whom it is for; the order of refusal is 400 for a
//! header that is there twice, 401, 403, 429.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::RequestHead;
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};

use super::header_texts::HeaderTexts;
use super::problem::Problem;
use super::request_id;
use crate::auth::{ClientNetwork, Decision, KeyRecord, KeyTable, WrongKeys};

/// Limits of the caller's quota (draft-ietf-httpapi-ratelimit-headers-10).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The policy behind them.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Whom a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Anyone; a key that is given is not looked at.
    Anyone,
    /// Anyone with a key.
    Keys,
    /// Admins.
    Admins,
}

/// The gate. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) table: Arc<KeyTable>,
    /// Whether resources need a key at all.
    pub(crate) required: bool,
    pub(crate) wrong_keys: Arc<WrongKeys>,
}

/// A request that may pass, and what to tell its caller of what is left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Admission(Option<Decision>);

/// A request that may not.
pub(crate) struct Refused {
    problem: Box<Problem>,
    admission: Admission,
}

/// An admin's request that may pass.
pub(crate) struct Admitted {
    pub(super) admission: Admission,
    actor: Actor,
}

/// An admin who asks for something, as the log speaks of them: the key's id and name, never the
/// key.
pub(crate) struct Actor {
    id: String,
    name: String,
    note: String,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by the key {} {:?}{}", self.id, self.name, self.note)
    }
}

impl Access {
    /// Lets the request through, or says why not.
    pub(super) fn check_at(
        &self,
        head: &RequestHead,
        audience: Audience,
        now: Instant,
    ) -> Result<Admission, Refused> {
        let admitted = self.admit(head, audience, now, |_| ());
        admitted.map(|(admission, _)| admission)
    }

    /// The same, and what `then` makes of whose key it is, if one was looked at.
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
                let source = head.peer_addr.map(|peer| ClientNetwork::of(peer.ip()));
                Err(refused(match self.wrong_keys.note(source, now) {
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

    /// Lets the request of an admin through, or says why not.
    pub(super) fn admit_admin(&self, head: &RequestHead) -> Result<Admitted, Refused> {
        let who = |record: &KeyRecord| (record.id().to_owned(), record.name().to_owned());
        let (admission, who) = self.admit(head, Audience::Admins, Instant::now(), who)?;
        let (id, name) = who.unwrap_or_default();
        let note = String::new();
        let actor = Actor { id, name, note };
        Ok(Admitted { admission, actor })
    }

    /// Admits only admins, and answers with the result of `work`, which is told who asks. The
    /// answer is not to be stored, and says what is left of the caller's rate.
    pub(crate) async fn admins<W>(
        &self,
        request: &HttpRequest,
        work: impl FnOnce(Actor) -> W,
    ) -> HttpResponse
    where
        W: Future<Output = Result<HttpResponse, Problem>>,
    {
        // Who asked whether a body is wanted (`Expect: 100-continue`) was admitted then.
        let before = request.extensions_mut().remove::<Admitted>();
        let Admitted {
            admission,
            mut actor,
        } = match before.map_or_else(|| self.admit_admin(request.head()), Ok) {
            Ok(admitted) => admitted,
            Err(refused) => return refused.answer(),
        };
        actor.note = request_id::note_of(request);
        let mut answer = work(actor).await.unwrap_or_else(|problem| problem.answer());
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        admission.tell(headers);
        answer
    }
}

impl Refused {
    /// The answer that says so.
    pub(crate) fn answer(&self) -> HttpResponse {
        let mut answer = self.problem.answer();
        self.admission.tell(answer.headers_mut());
        answer
    }
}

impl Admission {
    /// Adds what is left of the caller's rate.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        if self.0.is_some() {
            self.tell_in(&mut HeaderTexts::new(), headers);
        }
    }

    /// The same with texts that the other headers of the answer share.
    pub(super) fn tell_in(&self, texts: &mut HeaderTexts, headers: &mut HeaderMap) {
        let Some(decision) = self.0 else { return };
        let whole = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let left = texts
            .text("\"default\";r=")
            .number(decision.remaining.into())
            .text(";t=")
            .number(whole(decision.reset))
            .value();
        headers.insert(RATE_LIMIT, left);
        headers.insert(
            RATE_LIMIT_POLICY,
            policy(decision.limit, whole(decision.window)),
        );
    }
}

thread_local! {
    /// The last policy that was told here, and the numbers that it tells.
    static TOLD: RefCell<((u32, u64), HeaderValue)> =
        const { RefCell::new(((0, 0), HeaderValue::from_static("\"default\";q=0;w=0"))) };
}

/// What is allowed in how many seconds. Most keys have one rate, so each worker keeps the text that it told last. Made by itself: it shares no
/// buffer with an answer, and its holders are not counted where other workers count.
fn policy(limit: u32, window: u64) -> HeaderValue {
    TOLD.with_borrow_mut(|(numbers, told)| {
        if *numbers != (limit, window) {
            let text = format!("\"default\";q={limit};w={window}");
            *told = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
            *numbers = (limit, window);
        }
        told.clone()
    })
}

const SCHEME: &[u8] = b"Bearer ";

/// The key in `Authorization: Bearer KEY` (RFC 6750, section 2.1); the scheme in any case.
pub(super) fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, key) = header.as_bytes().split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    std::str::from_utf8(key)
        .ok()
        .filter(|_| is_bearer)
        .map(str::trim)
}
