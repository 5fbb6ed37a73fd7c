//! Who may ask, and how often.
//!
//! Promise: nothing here blocks. A route says whom it is for; the order of refusal is 401, 403, 429.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use super::header_texts::HeaderTexts;
use super::key_table::KeyTable;
use super::limiter::Decision;
use super::problem::Problem;

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
}

/// A request that may pass, and what to tell its caller of what is left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Admission(Option<Decision>);

/// A request that may not.
pub(crate) struct Refused {
    problem: Box<Problem>,
    admission: Admission,
}

impl Access {
    /// Lets the request through, or says why not.
    pub(crate) fn check(
        &self,
        request: &HttpRequest,
        audience: Audience,
    ) -> Result<Admission, Refused> {
        self.check_at(request, audience, Instant::now())
    }

    /// The same for who has looked at the clock already.
    pub(super) fn check_at(
        &self,
        request: &HttpRequest,
        audience: Audience,
        now: Instant,
    ) -> Result<Admission, Refused> {
        let refused = |problem| Refused {
            problem: Box::new(problem),
            admission: Admission::default(),
        };
        let open = audience == Audience::Anyone || (audience == Audience::Keys && !self.required);
        let Some(header) = request.headers().get(AUTHORIZATION) else {
            let none = "Send an API key: Authorization: Bearer KEY.";
            return if open {
                Ok(Admission::default())
            } else {
                Err(refused(Problem::NoKey(none)))
            };
        };
        if audience == Audience::Anyone {
            return Ok(Admission::default());
        }
        let decided = bearer(header).and_then(|key| {
            self.table.lookup(key, |record| {
                let admitted = audience != Audience::Admins || record.is_admin();
                admitted.then(|| record.check(now))
            })
        });
        match decided {
            None => Err(refused(Problem::NoKey(
                "The API key is not known: it may have been revoked.",
            ))),
            Some(None) => Err(refused(Problem::NotAdmin)),
            Some(Some(
                decision @ Some(Decision {
                    allowed: false,
                    retry_after,
                    ..
                }),
            )) => Err(Refused {
                problem: Box::new(Problem::TooOften { retry_after }),
                admission: Admission(decision),
            }),
            Some(Some(decision)) => Ok(Admission(decision)),
        }
    }

    /// The answer of `work`, for admins only. Nobody may store it, and it says what is left of the caller's rate.
    pub(crate) async fn admins(
        &self,
        request: &HttpRequest,
        work: impl Future<Output = Result<HttpResponse, Problem>>,
    ) -> HttpResponse {
        let admission = match self.check(request, Audience::Admins) {
            Ok(admission) => admission,
            Err(refused) => return refused.answer(),
        };
        let mut answer = work.await.unwrap_or_else(|problem| problem.answer());
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
