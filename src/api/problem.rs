//! Problems: every error response, as `application/problem+json` (RFC 9457).
//!
//! Promise: a problem says what is wrong and what would be valid. It tells nothing of the server's
//! inside: no SQL, no stack trace, no key.

use std::borrow::Cow;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use serde_json::json;

use crate::database::DatabaseError;
use crate::quantity::format_duration;
use crate::resource::{BadParameter, WriteError, Wrong};
use larder_cache::LoadError;

/// Why a request is refused or failed.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// 404: nothing is served at this path, or there is no value.
    NotFound(&'static str),
    /// 405: the path does not take this method.
    MethodNotAllowed { allow: Cow<'static, str> },
    /// 401: no API key, or an unknown one.
    NoKey(&'static str),
    /// 429: an unknown API key, after too many of them from the same address.
    WrongKeys { retry_after: Duration },
    /// 400: a header that may occur once is repeated.
    RepeatedHeader(&'static str),
    /// 417: `Expect` announces a body, and this path takes none.
    NoBodyTaken,
    /// 403: a valid API key that is not an admin's.
    NotAdmin,
    /// 429: the rate of the API key is used up.
    TooOften { retry_after: Duration },
    /// 408: the body did not arrive in time.
    BodyTooSlow { limit: Duration },
    /// 413: the body has more than `limit` bytes.
    TooLarge { limit: usize },
    /// 415: the body is not declared as JSON.
    NotJson,
    /// 400: the body is declared as JSON and is malformed.
    BadJson(String),
    /// 400: an invalid parameter.
    BadParameter(BadParameter),
    /// 422: an invalid field of the body.
    BadField { field: String, valid: String },
    /// 409: the change violates a constraint of the database.
    Conflict { field: Option<String>, why: String },
    /// 412: the precondition is not met.
    Changed,
    /// 412: the precondition cannot be evaluated.
    Undecidable,
    /// 502, 503 or 504: the value could not be loaded.
    Load(LoadError),
    /// 503: the database did not answer, or cannot be used.
    Database,
    /// 500: a bug of larder's. The log says where.
    Bug,
}

/// The longest name of a field that an answer repeats, in characters.
const LONGEST_FIELD: usize = 200;

impl Problem {
    /// An invalid `field` of a body, and what would be `valid`.
    pub(crate) fn bad_field(field: &str, valid: &str) -> Problem {
        // A name that a caller made up can be as long as the body.
        let field = match field.char_indices().nth(LONGEST_FIELD) {
            Some((end, _)) => format!("{}…", &field[..end]),
            None => field.to_owned(),
        };
        Problem::BadField {
            field,
            valid: valid.to_owned(),
        }
    }

    /// An invalid parameter that is a member of the body.
    pub(crate) fn bad_member(bad: BadParameter) -> Problem {
        let valid = match bad.wrong {
            Wrong::Repeated => "a member that occurs once".to_owned(),
            Wrong::Missing => format!("{}; it is required", bad.valid),
            _ => bad.valid,
        };
        Problem::bad_field(&bad.name, &valid)
    }

    /// A bug of larder's, which is logged here.
    pub(crate) fn bug(what: &str) -> Problem {
        log::error!("internal error, a bug: {what}");
        Problem::Bug
    }

    /// Status, type and title.
    pub(crate) fn kind(&self) -> (u16, &'static str, &'static str) {
        match self {
            Problem::NotFound(_) => (404, "not-found", "Not found"),
            Problem::MethodNotAllowed { .. } => (405, "method-not-allowed", "Method not allowed"),
            Problem::NoKey(_) => (401, "no-key", "Unauthorized"),
            Problem::NotAdmin => (403, "not-admin", "Forbidden"),
            Problem::TooOften { .. } => (429, "too-many-requests", "Too many requests"),
            Problem::WrongKeys { .. } => (429, "unknown-keys", "Too many unknown API keys"),
            Problem::RepeatedHeader(_) => (400, "repeated-header", "Repeated header"),
            Problem::NoBodyTaken => (417, "no-body-taken", "No body expected"),
            Problem::BodyTooSlow { .. } => (408, "body-too-slow", "Request timeout"),
            Problem::TooLarge { .. } => (413, "body-too-large", "Content too large"),
            Problem::NotJson => (415, "not-json", "Unsupported media type"),
            Problem::BadJson(_) => (400, "bad-json", "Malformed JSON"),
            Problem::BadParameter(_) => (400, "bad-parameter", "Invalid parameter"),
            Problem::BadField { .. } => (422, "bad-field", "Invalid field"),
            Problem::Conflict { .. } => (409, "conflict", "Conflict"),
            Problem::Changed => (412, "changed", "Precondition failed"),
            Problem::Undecidable => (412, "undecidable", "Precondition cannot be evaluated"),
            Problem::Load(LoadError::TooSlow(_) | LoadError::BackingOff { slow: true, .. }) => {
                (504, "source-too-slow", "Gateway timeout")
            }
            Problem::Load(LoadError::Overloaded) => (503, "overloaded", "Overloaded"),
            Problem::Load(LoadError::Spent { .. }) => (503, "quota-spent", "Quota spent"),
            Problem::Load(_) => (502, "source-failed", "Bad gateway"),
            Problem::Database => (503, "database-down", "Database unavailable"),
            Problem::Bug => (500, "internal-error", "Internal server error"),
        }
    }

    /// The status of its response.
    pub(crate) fn status(&self) -> u16 {
        self.kind().0
    }

    /// The URI of its type (RFC 9457, section 3.1.1).
    pub(crate) fn uri(&self) -> String {
        format!("urn:larder:problem:{}", self.kind().1)
    }

    /// Its title, which all problems of a type share.
    pub(crate) fn title(&self) -> &'static str {
        self.kind().2
    }

    fn detail(&self) -> Cow<'_, str> {
        match self {
            Problem::NotFound(detail) | Problem::NoKey(detail) => (*detail).into(),
            Problem::BadJson(detail) | Problem::Conflict { why: detail, .. } => detail.into(),
            Problem::MethodNotAllowed { allow } => format!("This path takes {allow}.").into(),
            Problem::NotAdmin => {
                "This takes an admin's API key. The key is valid, but not an admin's.".into()
            }
            Problem::TooOften { retry_after } => {
                let wait = seconds(*retry_after);
                format!("The rate of this API key is used up; ask again in {wait} s.").into()
            }
            Problem::WrongKeys { retry_after } => format!(
                "The API key is not known: it may have been revoked. Too many unknown keys came \
                 from your address; ask again in {} s.",
                seconds(*retry_after)
            )
            .into(),
            Problem::RepeatedHeader(name) => {
                format!("The request has more than one {name} header; send one.").into()
            }
            Problem::NoBodyTaken => {
                "This path takes no body with this method; send the request without Expect.".into()
            }
            Problem::BodyTooSlow { limit } => format!(
                "The body did not arrive within {}.",
                format_duration(*limit)
            )
            .into(),
            Problem::TooLarge { limit } => {
                format!("The body may have at most {limit} bytes.").into()
            }
            Problem::NotJson => {
                "The body must be JSON, with Content-Type: application/json.".into()
            }
            Problem::BadParameter(bad) => bad.to_string().into(),
            Problem::BadField { field, valid } => {
                format!("`{field}` is invalid; valid: {valid}").into()
            }
            Problem::Changed => {
                "The resource was changed or deleted since it was read; read it again.".into()
            }
            Problem::Undecidable => "The value of this resource does not come from the database \
                alone, so a write cannot be compared with it."
                .into(),
            Problem::Load(LoadError::Overloaded) => {
                "Too many loads are waiting; ask again in a moment.".into()
            }
            Problem::Load(error) => error.to_string().into(),
            Problem::Database => "The database cannot be used now. The request may not have been \
                carried out; ask again in a moment."
                .into(),
            Problem::Bug => "This is a bug of the server; its log says more.".into(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Problem::TooOften { retry_after } | Problem::WrongKeys { retry_after } => {
                Some(*retry_after)
            }
            Problem::Load(error) => error.retry_after(),
            Problem::Database => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The problem as a response.
    pub(crate) fn answer(&self) -> HttpResponse {
        let (status, _, title) = self.kind();
        let mut body = json!({
            "type": self.uri(),
            "title": title,
            "status": status,
            "detail": self.detail(),
        });
        match self {
            Problem::BadParameter(bad) => {
                body["parameter"] = json!(bad.name);
                body["valid"] = json!(bad.valid);
            }
            Problem::BadField { field, valid } => {
                body["field"] = json!(field);
                body["valid"] = json!(valid);
            }
            Problem::Conflict {
                field: Some(field), ..
            } => body["field"] = json!(field),
            _ => {}
        }
        let status = StatusCode::from_u16(status);
        let mut answer = HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        answer.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(wait) = self.retry_after() {
            answer.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds(wait))));
        }
        match self {
            Problem::MethodNotAllowed { allow } => {
                answer.insert_header((header::ALLOW, allow.as_ref()));
            }
            Problem::NoKey(_) => {
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            // The rest of the body would be read as a request (RFC 9110, section 15.5.9). A client
            // that guesses keys needs a new connection for each further guess.
            Problem::BodyTooSlow { .. } | Problem::WrongKeys { .. } => {
                answer.force_close();
            }
            _ => {}
        }
        answer.body(body.to_string())
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Problem {
        match error {
            LoadError::Unfit { parameter, valid } => Problem::BadParameter(BadParameter {
                name: parameter,
                wrong: Wrong::NotValid,
                valid,
            }),
            LoadError::Bug(what) => Problem::bug(&what),
            other => Problem::Load(other),
        }
    }
}

impl From<BadParameter> for Problem {
    fn from(bad: BadParameter) -> Problem {
        Problem::BadParameter(bad)
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Problem {
        match error {
            WriteError::Parameter(bad) => Problem::BadParameter(bad),
            WriteError::Field { field, valid } => Problem::BadField { field, valid },
            WriteError::Conflict { field, why } => Problem::Conflict { field, why },
            WriteError::Absent => Problem::NotFound("Not found."),
            WriteError::Changed => Problem::Changed,
            WriteError::Undecidable => Problem::Undecidable,
            WriteError::Database(error) => error.into(),
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Problem {
        log::warn!("the database cannot be used: {error}");
        Problem::Database
    }
}

/// Whole seconds for `Retry-After`, rounded up and at least one.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::bridge;
    use super::*;

    #[test]
    fn waits_are_rounded_up() {
        for (ms, whole) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(seconds(Duration::from_millis(ms)), whole);
        }
    }

    #[test]
    fn a_bug_is_an_internal_error_and_not_a_busy_server() {
        let status = |error| Problem::from(error).answer().status().as_u16();
        assert_eq!(status(LoadError::Bug("taken twice".into())), 500);
        assert_eq!(status(LoadError::Overloaded), 503);
    }

    #[test]
    fn a_refusal_tells_what_would_be_right() {
        let answer = Problem::MethodNotAllowed {
            allow: "GET, HEAD".into(),
        }
        .answer();
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers().get("allow").unwrap(), "GET, HEAD");
        assert!(
            Problem::NoKey("")
                .answer()
                .headers()
                .contains_key("www-authenticate")
        );
        let spent = LoadError::Spent {
            what: "newsapi".into(),
            retry_after: Duration::from_secs(9),
        };
        let answer = Problem::from(spent).answer();
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers().get("retry-after").unwrap().as_bytes()
            ),
            (503, &b"9"[..])
        );
    }

    #[actix_web::test]
    async fn a_bug_is_not_told_as_a_busy_server() {
        let problem = Problem::from(LoadError::Bug("it cannot happen".into()));
        assert_eq!(problem.answer().status(), 500);
        let panicked = bridge::blocking("an invalidation", || -> u8 { panic!("on purpose") });
        assert!(matches!(panicked.await, Err(Problem::Bug)));
    }
}
