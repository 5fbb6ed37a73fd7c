//! The handler of the declared resources: the read line, from the path of a request to the bytes of its answer.
//!
//! A memory hit runs from top to bottom on the actix worker: it blocks nowhere and allocates for the answer only.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwap;

use crate::database::Database;
use crate::resource::{Arguments, BadParameter, Body, Resource, Resources, View, Wrong};
use larder_cache::{Answer, Cache, KeyText, Micros};

use super::access::{Access, Audience};
use super::edge::Exchange;
use super::header_texts::HeaderTexts;
use super::lifecycle::Lifecycle;
use super::presence::Presence;
use super::problem::Problem;
use super::{bridge, caller, headers, path, request_id, slices, write};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const LARDER_AFTER: HeaderName = HeaderName::from_static("larder-after");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What serving a resource takes.
pub(crate) struct AppState {
    pub(crate) cache: Cache,
    pub(crate) resources: ArcSwap<Resources>,
    pub(crate) database: Database,
    pub(crate) access: Access,
    pub(crate) lifecycle: Lifecycle,
}

/// Serves whatever the operator declared; everything else is not found.
pub(crate) async fn serve(
    request: HttpRequest,
    mut payload: web::Payload,
    front: Rc<web::Data<AppState>>,
) -> HttpResponse {
    let Some(exchange) = Exchange::begin(&request) else {
        return std::future::pending().await;
    };
    let mut texts = HeaderTexts::new();
    let id = request_id::of(&request, &mut texts);
    let mut answer = match look_up(&request, &mut payload, &front, &id, &mut texts).await {
        Ok(answer) => answer,
        Err(refused) => refused,
    };
    if log::log_enabled!(target: "access", log::Level::Debug) {
        // Without the query: it is the caller's, and may hold what does not belong into a log.
        let (method, path, status) = (
            request.method(),
            request.uri().path(),
            answer.status().as_u16(),
        );
        let how = answer
            .headers()
            .get(CACHE_STATUS)
            .and_then(|how| how.to_str().ok())
            .unwrap_or("-");
        log::debug!(target: "access", "{method} {path} {status} {how}{}", request_id::note(&id));
    }
    request_id::tell(id, answer.headers_mut());
    exchange.end(&mut answer, front.lifecycle.is_closing());
    answer
}

async fn look_up(
    request: &HttpRequest,
    payload: &mut web::Payload,
    front: &AppState,
    id: &HeaderValue,
    texts: &mut HeaderTexts,
) -> Result<HttpResponse, HttpResponse> {
    // The one look at the clock: beside the rest of a memory hit, in which no time passes, each is dear.
    let began = Instant::now();
    let now = front.cache.clock().at(began);
    let resources = front.resources.load();
    let path = path::plain(request.uri().path());
    let Some(found) = resources.find(&path) else {
        return Err(Problem::NotFound("Nothing is served at this path.").answer());
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
        // In a box: a write's state is larger than a read's, and every request would make room for it.
        let write = write::run(request, payload, front, resource, write, arguments);
        return Ok(Box::pin(write).await);
    }
    let audience = if resource.settings().public {
        Audience::Anyone
    } else {
        Audience::Keys
    };
    let admission = front
        .access
        .check_at(request.head(), audience, began)
        .map_err(|refused| refused.answer())?;
    let told = |problem: Problem| {
        let mut answer = problem.answer();
        admission.tell(answer.headers_mut());
        answer
    };

    let after = known_clock(request).map_err(told)?;
    thread_local!(static KEY: RefCell<KeyText> = RefCell::default());
    let (view, memory) = KEY
        .with_borrow_mut(|key| {
            let view = resource.key(arguments, key)?;
            Ok((
                view,
                front
                    .cache
                    .get_at(key.as_str(), resource.policy(), after, now),
            ))
        })
        .map_err(|bad| told(Problem::BadParameter(bad)))?;
    let (answer, now, memory_took) = match memory {
        Some(answer) => {
            resource.tally().count_hit(&answer);
            (answer, now, None)
        }
        None => {
            let took = began.elapsed();
            let wanted = resource
                .request(arguments, &request_id::note(id))
                .map_err(|bad| told(Problem::BadParameter(bad)))?
                .ok_or_else(|| told(Problem::NotFound("Nothing is served at this path.")))?;
            let failed = |problem| {
                let mut answer = told(problem);
                let missed = HeaderValue::from_static("larder-memory; fwd=miss");
                answer.headers_mut().insert(CACHE_STATUS, missed);
                answer
            };
            // In a box, as a write is.
            let reader = bridge::Waiting {
                caller: caller::of(request, &front.access.table),
                presence: request.conn_data::<Presence>().cloned(),
                after,
            };
            let waited = Box::pin(bridge::wait(&front.cache, wanted, reader, resource.limit()));
            let ending = waited.await.map_err(failed)?;
            resource.tally().count(&ending);
            let answer = ending.map_err(|error| failed(error.into()))?;
            (answer, front.cache.clock().now(), Some(took))
        }
    };
    let mut response = if answer.entry.value.is_absent() {
        let mut absent = Problem::NotFound("There is no such thing.").answer();
        tell_cache(absent.headers_mut(), &answer, now, memory_took, texts);
        absent
    } else {
        respond(request, resource, &view, &answer, now, memory_took, texts)
    };
    admission.tell_in(texts, response.headers_mut());
    Ok(response)
}

/// The clock of the last change that the caller knows of, from `Larder-After`; zero: it knows of none.
fn known_clock(request: &HttpRequest) -> Result<Option<u64>, Problem> {
    let Some(given) = request.headers().get(LARDER_AFTER) else {
        return Ok(None);
    };
    if request.headers().get_all(LARDER_AFTER).nth(1).is_some() {
        return Err(Problem::RepeatedHeader("Larder-After"));
    }
    let clock = given
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    // Every history is later than the clock 0.
    clock
        .map(|clock| (clock > 0).then_some(clock))
        .ok_or_else(|| {
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
    // A list may stand on several lines (RFC 9110, section 5.3).
    let mut given = request.headers().get_all(header::IF_NONE_MATCH);
    let unchanged = given.any(|line| {
        let tag = tag.to_str().unwrap_or_default();
        let listed = |given| headers::none_match(given, tag);
        line == tag || line.to_str().is_ok_and(listed)
    });
    let mut response = if unchanged {
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
    let age = tell_cache(map, answer, now, memory_took, texts);
    let client_ttl = resource.settings().client_ttl;
    let kept = headers::cache_control(answer, client_ttl, age, now, texts);
    map.insert(header::CACHE_CONTROL, kept);
    map.insert(header::ETAG, tag);
    response
}

/// Says where an answer comes from, and returns its age in seconds.
fn tell_cache(
    map: &mut HeaderMap,
    answer: &Answer,
    now: Micros,
    memory_took: Option<Duration>,
    texts: &mut HeaderTexts,
) -> u64 {
    let age = now.saturating_sub(answer.entry.loaded_at) / 1_000_000;
    headers::cache_status(answer, now, texts);
    map.insert(CACHE_STATUS, texts.value());
    map.insert(header::AGE, texts.number_alone(age));
    if let Some(memory) = memory_took {
        headers::server_timing(answer, memory, texts);
        map.insert(SERVER_TIMING, texts.value());
    }
    age
}
