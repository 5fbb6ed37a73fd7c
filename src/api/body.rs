//! The JSON body of a request, read within bounds.

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, BytesMut};
use serde_json::{Map, Value};

use super::problem::Problem;

/// The largest body that is read, in bytes.
pub(crate) const LIMIT: usize = 64 << 10;

/// The body as a JSON object. Errors in the order of the statuses: 413, 415, 400, 422.
pub(crate) async fn object(
    request: &HttpRequest,
    payload: &mut web::Payload,
) -> Result<Map<String, Value>, Problem> {
    let declared = request
        .headers()
        .get("content-length")
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > LIMIT as u64) {
        return Err(Problem::TooLarge { limit: LIMIT });
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = std::future::poll_fn(|context| {
            let stream: std::pin::Pin<&mut web::Payload> = std::pin::Pin::new(&mut *payload);
            futures_core::Stream::poll_next(stream, context)
        });
        match chunk.await {
            None => break,
            Some(Ok(chunk)) if body.len() + chunk.len() <= LIMIT => body.extend_from_slice(&chunk),
            Some(Ok(_)) => return Err(Problem::TooLarge { limit: LIMIT }),
            Some(Err(_)) => {
                return Err(Problem::BadJson(
                    "The body ended before it was whole.".to_owned(),
                ));
            }
        }
    }
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            let essence = kind.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/json")
        });
    if !is_json {
        return Err(Problem::NotJson);
    }
    match serde_json::from_slice(&body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::BadField {
            field: "body".to_owned(),
            valid: "a JSON object".to_owned(),
        }),
        Err(error) => Err(Problem::BadJson(format!("The body is not JSON: {error}."))),
    }
}
