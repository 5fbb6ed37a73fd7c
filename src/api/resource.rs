//! The handler of the declared resources: the read line, from a request's path to its answer.
//!
//! A memory hit runs from top to bottom on the actix worker: it blocks nowhere and allocates for
//! the answer only.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::resource::{Arguments, BadParameter, Body, Resource, View, Wrong};
use larder_cache::{Answer, KeyText, LookupEnd, Micros};

use super::access::Audience;
use super::edge::Exchange;
use super::header_texts::HeaderTexts;
use super::presence::Presence;
use super::problem::Problem;
use super::state::AppState;
use super::traffic::PendingRead;
use super::{bridge, caller, headers, pages, path, request_id, slices, write};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const LARDER_AFTER: HeaderName = HeaderName::from_static("larder-after");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// So many digits are a clock, whatever they are: any such number fits 64 bits.
pub(super) const CLOCK_DIGITS: usize = 19;

/// Serves what the operator declared; everything else is not found.
pub(crate) async fn serve(
    request: HttpRequest,
    mut payload: web::Payload,
    state: Rc<AppState>,
) -> HttpResponse {
    let Some(exchange) = Exchange::begin(&request) else {
        return std::future::pending().await;
    };
    let mut texts = HeaderTexts::new();
    let id = request_id::of(&request, &mut texts);
    let mut answer = match look_up(&request, &mut payload, &state, &id, &mut texts).await {
        Ok(answer) => answer,
        Err(refused) => refused,
    };
    if log::log_enabled!(target: "access", log::Level::Debug) {
        // Without the query: it is the caller's, and may hold a secret.
        let (method, path, status) = (
            request.method(),
            request.uri().path(),
            answer.status().as_u16(),
        );
        let how = answer
            .headers()
            .get(CACHE_STATUS)
            .and_then(|how| how.to_str().ok());
        let context = request_id::context(&request, &id);
        let (request_id, trace_id) = (context.request_id.as_deref(), context.trace_id());
        log::debug!(
            target: "access",
            method = method.as_str(), path, status, cache_status = how, request_id, trace_id;
            "{method} {path} {status} {}", how.unwrap_or("-")
        );
    }
    request_id::set_header(id, answer.headers_mut());
    exchange.end(&mut answer, state.lifecycle.is_closing());
    state.traffic.count_response(answer.status());
    answer
}

async fn look_up(
    request: &HttpRequest,
    payload: &mut web::Payload,
    state: &AppState,
    id: &HeaderValue,
    texts: &mut HeaderTexts,
) -> Result<HttpResponse, HttpResponse> {
    // A memory hit reads the clock here, and once more when its answer is finished.
    let began = Instant::now();
    let now = state.cache.clock().at(began);
    let resources = state.resources.load();
    let path = path::normalized(request.uri().path());
    let Some(found) = resources.find(&path) else {
        return Err(match &*path {
            "/" => pages::front(request),
            _ => Problem::NotFound("Nothing is served at this path.").answer(),
        });
    };
    let resource = found.resource;
    let arguments = Arguments {
        path: &found.path_arguments,
        query: request.query_string(),
    };
    if !(resource.is_read() && matches!(*request.method(), Method::GET | Method::HEAD)) {
        let Some(write) = resource.write(request.method().as_str()) else {
            let allow = resource.allow().into();
            return Err(Problem::MethodNotAllowed { allow }.answer());
        };
        // Boxed: a write's future is larger than a read's, and every request would reserve its
        // size.
        let (access, cache) = (&state.access, &state.cache);
        let write = write::run(request, payload, access, cache, resource, write, arguments);
        return Ok(Box::pin(write).await);
    }
    let audience = if resource.settings().public {
        Audience::Anyone
    } else {
        Audience::Keys
    };
    let admission = state
        .access
        .check_at(request.head(), audience, began)
        .map_err(|refused| refused.answer())?;
    let with_rate_headers = |problem: Problem| admission.with_rate_headers(problem.answer());

    let after = known_clock(request).map_err(with_rate_headers)?;
    thread_local!(static KEY: RefCell<KeyText> = RefCell::default());
    let (view, memory) = KEY
        .with_borrow_mut(|key| {
            let view = resource.key(arguments, key)?;
            let key = key.as_str();
            Ok((view, state.cache.get_at(key, resource.policy(), after, now)))
        })
        .map_err(|bad| with_rate_headers(Problem::BadParameter(bad)))?;
    let (answer, now, memory_took) = match memory {
        Some(answer) => {
            resource.tally().count_hit(&answer);
            (answer, now, None)
        }
        None => {
            let took = began.elapsed();
            let wanted = resource
                .request(arguments, &request_id::context(request, id))
                .map_err(|bad| with_rate_headers(Problem::BadParameter(bad)))?
                .ok_or_else(|| {
                    with_rate_headers(Problem::NotFound("Nothing is served at this path."))
                })?;
            let failed = |problem| {
                let mut answer = with_rate_headers(problem);
                let missed = HeaderValue::from_static("larder-memory; fwd=miss");
                answer.headers_mut().insert(CACHE_STATUS, missed);
                answer
            };
            let reader = bridge::Reader {
                caller: caller::of(request, &state.access.table),
                presence: request.conn_data::<Presence>().cloned(),
                after,
            };
            // Counts the read also if there is no answer, or if its client leaves.
            let waiting = PendingRead::new(resource.tally(), &state.traffic, began);
            // Boxed, as a write is.
            let waited = Box::pin(bridge::wait(&state.cache, wanted, reader, resource.limit()));
            let result = waited.await.map_err(failed)?;
            waiting.end(&result);
            let answer = result.map_err(|error| failed(error.into()))?;
            (answer, state.cache.clock().now(), Some(took))
        }
    };
    let mut response = if answer.entry.value.is_absent() {
        let mut absent = Problem::NotFound("Not found.").answer();
        write_headers(absent.headers_mut(), &answer, now, memory_took, texts);
        absent
    } else {
        respond(request, resource, &view, &answer, now, memory_took, texts)
    };
    admission.write_headers(texts, response.headers_mut());
    let end = LookupEnd::from(answer.outcome);
    state.traffic.note_read(end, began.elapsed());
    Ok(response)
}

/// The clock of the last change that the caller knows of, from `Larder-After`, if it knows of one.
fn known_clock(request: &HttpRequest) -> Result<Option<u64>, Problem> {
    let Some(header) = request.headers().get(LARDER_AFTER) else {
        return Ok(None);
    };
    if request.headers().get_all(LARDER_AFTER).nth(1).is_some() {
        return Err(Problem::RepeatedHeader("Larder-After"));
    }
    let text = header.to_str().unwrap_or_default().trim();
    let is_clock = text.bytes().all(|byte| byte.is_ascii_digit());
    let clock = text.parse().ok().filter(|_| is_clock);
    // No change has the clock 0, so it names none.
    let named = clock.map(|clock| (clock > 0).then_some(clock));
    named.ok_or_else(|| {
        Problem::BadParameter(BadParameter {
            name: "Larder-After".to_owned(),
            wrong: Wrong::NotValid,
            valid: "the number of a Larder-Clock header".to_owned(),
        })
    })
}

fn respond(
    request: &HttpRequest,
    resource: &Resource,
    view: &View<'_>,
    answer: &Answer,
    now: Micros,
    memory_took: Option<Duration>,
    texts: &mut HeaderTexts,
) -> HttpResponse {
    let entry = &answer.entry;
    headers::entity_tag(view, entry.hash, texts);
    let tag = texts.value();
    let mut response = if headers::is_unchanged(request.headers(), &tag) {
        HttpResponse::new(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = match view.body(entry.value.bytes(), !answer.outcome.waited()) {
            Body::Stored(bytes) => slices::answer(bytes),
            Body::Made(bytes) => slices::answer(bytes.into()),
        };
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        response
    };
    let map = response.headers_mut();
    let age = write_headers(map, answer, now, memory_took, texts);
    let client_ttl = resource.settings().client_ttl;
    let cache_control = headers::cache_control(answer, client_ttl, age, now, texts);
    map.insert(header::CACHE_CONTROL, cache_control);
    map.insert(header::ETAG, tag);
    response
}

/// Writes the headers that say where an answer comes from. Returns its age in seconds.
fn write_headers(
    map: &mut HeaderMap,
    answer: &Answer,
    now: Micros,
    memory_took: Option<Duration>,
    texts: &mut HeaderTexts,
) -> u64 {
    let age = now.saturating_sub(answer.entry.loaded_at) / 1_000_000;
    headers::cache_status(answer, now, texts);
    map.insert(CACHE_STATUS, texts.value());
    map.insert(header::AGE, texts.number(age).value());
    if let Some(memory) = memory_took {
        headers::server_timing(answer, memory, texts);
        map.insert(SERVER_TIMING, texts.value());
    }
    age
}
