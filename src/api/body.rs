//! The JSON body of a request, read within bounds.

use std::collections::{BTreeMap, HashSet};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::rt::time::timeout;
use actix_web::web::{self, BytesMut};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::resource::{Members, OrderedMembers};

/// The largest body that is read, in bytes.
pub(crate) const LIMIT: usize = 64 << 10;
/// The same for a body that has within it what the body of a read has, and more.
pub(super) const LIMIT_AROUND_PARAMETERS: usize = 2 * LIMIT;
/// How long a body may take to arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyTimeout(pub(crate) Duration);

/// Refuses a body by the head of its request, before any of it has arrived.
/// `limit`: the most bytes that the body may have.
pub(super) fn check_head(headers: &HeaderMap, limit: usize) -> Result<(), Problem> {
    check_length(headers, limit)?;
    check_type(headers)
}

fn check_length(headers: &HeaderMap, limit: usize) -> Result<(), Problem> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > limit as u64 => Err(Problem::TooLarge { limit }),
        _ => Ok(()),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut kinds = headers.get_all(CONTENT_TYPE);
    let is_json = kinds
        .next()
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            let essence = kind.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/json")
        });
    if kinds.next().is_some() {
        Err(Problem::RepeatedHeader("Content-Type"))
    } else if is_json {
        Ok(())
    } else {
        Err(Problem::NotJson)
    }
}

/// Whether the head of a request announces a body (RFC 9112, section 6).
pub(crate) fn is_there(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let length = headers
        .get("content-length")
        .map(|length| length.as_bytes());
    headers.contains_key("transfer-encoding") || length.is_some_and(|length| length != b"0")
}

/// The body as a JSON object. Errors in this order: 413, 408, 415, 400, 422.
pub(crate) async fn object(
    request: &HttpRequest,
    payload: &mut web::Payload,
) -> Result<Map<String, Value>, Problem> {
    parse(&bytes(request, payload, LIMIT).await?)
}

/// The same with the raw text of each field, so that no digit of a number is lost. `limit`: the
/// most bytes that the body may have.
pub(crate) async fn fields(
    request: &HttpRequest,
    payload: &mut web::Payload,
    limit: usize,
) -> Result<BTreeMap<String, Box<RawValue>>, Problem> {
    let OrderedMembers(fields) = members(&bytes(request, payload, limit).await?)?;
    Ok(fields.into_iter().collect())
}

/// Takes the value of `field` out of the fields of a body, if it has one. `valid` says what it must
/// be.
///
/// # Errors
/// 422 if it is of another type.
pub(super) fn take<T: DeserializeOwned>(
    body: &mut BTreeMap<String, Box<RawValue>>,
    field: &str,
    valid: &str,
) -> Result<Option<T>, Problem> {
    let raw = body.remove(field);
    let value = raw.map(|raw| serde_json::from_str(raw.get()));
    value
        .transpose()
        .map_err(|_| Problem::bad_field(field, valid))
}

/// The parameters in a body. Errors in this order: 400, 422.
pub(super) fn parameters(body: &[u8]) -> Result<Members<'_>, Problem> {
    Members::parse(body).map_err(|error| malformed(body, error))
}

/// The body as it came, of at most `most` bytes. Errors in this order: 413, 408, 415.
pub(super) async fn bytes(
    request: &HttpRequest,
    payload: &mut web::Payload,
    most: usize,
) -> Result<BytesMut, Problem> {
    check_length(request.headers(), most)?;
    let mut reading = pin!(read(payload, most));
    // A body that is here already needs no timer.
    let body = match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(body) => body,
        Poll::Pending => {
            let limit = request.app_data::<web::Data<BodyTimeout>>();
            let limit = limit.map_or(Duration::MAX, |limit| limit.0);
            let read = timeout(limit, reading).await;
            read.unwrap_or(Err(Problem::BodyTooSlow { limit }))
        }
    }?;
    check_type(request.headers())?;
    Ok(body)
}

async fn read(payload: &mut web::Payload, limit: usize) -> Result<BytesMut, Problem> {
    let mut body = BytesMut::new();
    loop {
        let chunk =
            poll_fn(|context| futures_core::Stream::poll_next(Pin::new(&mut *payload), context));
        match chunk.await {
            None => return Ok(body),
            Some(Ok(chunk)) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
            Some(Ok(_)) => return Err(Problem::TooLarge { limit }),
            Some(Err(_)) => {
                return Err(Problem::BadJson(
                    "The body ended before it was complete.".to_owned(),
                ));
            }
        }
    }
}

fn parse(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(body) {
        // The map has the last of two fields with one name; which one is meant is unknown (RFC
        // 8259, section 4).
        Ok(Value::Object(object)) => members(body).map(|_| object),
        Ok(_) => Err(no_object()),
        Err(error) => Err(malformed(body, error)),
    }
}

/// The members of an object. Refuses a repeated field.
fn members(body: &[u8]) -> Result<OrderedMembers, Problem> {
    let members: OrderedMembers =
        serde_json::from_slice(body).map_err(|error| malformed(body, error))?;
    let mut seen = HashSet::new();
    match members.0.iter().find(|(name, _)| !seen.insert(name)) {
        Some((field, _)) => Err(Problem::bad_field(field, "a field that occurs once")),
        None => Ok(members),
    }
}

fn no_object() -> Problem {
    Problem::bad_field("body", "a JSON object")
}

/// Why this body is not read: it is not JSON, or not an object.
fn malformed(body: &[u8], error: serde_json::Error) -> Problem {
    let error = if error.is_data() {
        // It begins as another value than an object. The rest was not looked at.
        match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => return no_object(),
            Err(error) => error,
        }
    } else {
        error
    };
    Problem::BadJson(format!("The body is not JSON: {error}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_field_of_a_body_is_named() {
        let field = |body: &str| match parse(body.as_bytes()) {
            Err(Problem::BadField { field, .. }) => Some(field),
            _ => None,
        };
        assert_eq!(
            field(r#"{"a":1,"b":2,"b":3,"a":4}"#).as_deref(),
            Some("b"),
            "the first that is repeated"
        );
        // However it is escaped.
        assert_eq!(
            field(r#"{"name":"x","n\u0061me":"y"}"#).as_deref(),
            Some("name")
        );
        assert_eq!(
            parse(br#"{"a":{"x":1},"b":{"x":1}}"#).unwrap().len(),
            2,
            "each object has its own"
        );
        assert_eq!(field("[1,1]").as_deref(), Some("body"));
        assert!(matches!(parse(b"{\"a\":"), Err(Problem::BadJson(_))));
    }
}
