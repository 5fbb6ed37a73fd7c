//! The handler of the declared resources: the read line, from a request's path to its answer.
//!
//! A memory hit runs from top to bottom on the actix worker: it blocks nowhere and allocates for
//! the answer only. A read by `POST` or `QUERY` takes its parameters from the body, and then goes
//! the same way.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use matchit::Params;

use crate::resource::{Arguments, BadParameter, Body, Given, ReadMethod, Resource, View, Wrong};
use larder_cache::{Answer, KeyText, LookupEnd, Micros};

use super::access::{Admission, Audience};
use super::edge::Exchange;
use super::header_texts::HeaderTexts;
use super::presence::Presence;
use super::problem::Problem;
use super::state::AppState;
use super::traffic::PendingRead;
use super::{body, bridge, caller, headers, pages, path, request_id, slices, write};

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
    let asked = Asked {
        request,
        state,
        resource,
        path: &found.path_arguments,
        id,
    };
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    if !(is_get && resource.is_read_by(ReadMethod::Get)) {
        // Boxed: its future is larger than that of a GET, and every request would reserve its size.
        return Box::pin(other_method(asked, payload, texts)).await;
    }
    let audience = Audience::of_readers(resource.settings().public);
    let admission = state
        .access
        .check_at(request.head(), audience, began)
        .map_err(|refused| refused.answer())?;
    let read = Read {
        asked,
        method: ReadMethod::Get,
        given: Given::Query(request.query_string()),
        admission,
        began,
    };
    let after = known_clock(request).map_err(|problem| read.refused(problem))?;
    let (view, found) = read.in_memory(after, now).map_err(|bad| read.unfit(bad))?;
    match found {
        Some(answer) => Ok(read.answered(&view, &answer, now, None, texts)),
        // Boxed, too.
        None => Box::pin(read.load(view, after, texts)).await,
    }
}

/// A request, and what its path leads to.
#[derive(Clone, Copy)]
struct Asked<'a> {
    request: &'a HttpRequest,
    state: &'a AppState,
    resource: &'a Arc<Resource>,
    path: &'a Params<'a, 'a>,
    /// The id of the request.
    id: &'a HeaderValue,
}

/// Serves every request that is no GET: a write, or a read whose parameters are in its body.
async fn other_method(
    asked: Asked<'_>,
    payload: &mut web::Payload,
    texts: &mut HeaderTexts,
) -> Result<HttpResponse, HttpResponse> {
    let Asked {
        request,
        state,
        resource,
        path,
        ..
    } = asked;
    let name = request.method().as_str();
    if let Some(write) = resource.write(name) {
        let (access, cache) = (&state.access, &state.cache);
        let given = Given::Query(request.query_string());
        let arguments = Arguments { path, given };
        return Ok(write::run(request, payload, access, cache, resource, write, arguments).await);
    }
    let Some(method) = resource.read_with_body(name) else {
        let allow = resource.allow().into();
        let mut refused = Problem::MethodNotAllowed { allow }.answer();
        headers::set_accept_query(resource, refused.headers_mut());
        return Err(refused);
    };
    let answered = question(asked, method, payload, texts).await;
    let mut answer = answered.unwrap_or_else(|refused| refused);
    headers::set_accept_query_beside(method, resource, &mut answer);
    Ok(answer)
}

/// A read whose parameters are in its body, which is read only once the caller is admitted.
async fn question(
    asked: Asked<'_>,
    method: ReadMethod,
    payload: &mut web::Payload,
    texts: &mut HeaderTexts,
) -> Result<HttpResponse, HttpResponse> {
    let (request, state, resource) = (asked.request, asked.state, asked.resource);
    // A request with `Expect: 100-continue` was admitted before its body was asked for.
    let before = request.extensions_mut().remove::<Admission>();
    let audience = Audience::of_readers(resource.settings().public);
    let check = || {
        let now = Instant::now();
        state.access.check_at(request.head(), audience, now)
    };
    let admission = before.map_or_else(check, Ok);
    let admission = admission.map_err(|refused| refused.answer())?;
    let refused = |problem: Problem| admission.with_rate_headers(problem.answer());
    let body = body::bytes(request, payload, body::LIMIT)
        .await
        .map_err(refused)?;
    let after = known_clock(request).map_err(refused)?;
    resource
        .check_query_beside_body(asked.path, request.query_string())
        .map_err(|bad| refused(bad.into()))?;
    let members = body::parameters(&body).map_err(refused)?;
    // The time that the client took to send the body is not larder's. The clock of the head would
    // be too old to tell what is fresh.
    let began = Instant::now();
    let now = state.cache.clock().at(began);
    let read = Read {
        asked,
        method,
        given: Given::Body(&members),
        admission,
        began,
    };
    let (view, found) = read.in_memory(after, now).map_err(|bad| read.unfit(bad))?;
    match found {
        Some(answer) => Ok(read.answered(&view, &answer, now, None, texts)),
        None => read.load(view, after, texts).await,
    }
}

/// A read whose caller is admitted.
struct Read<'a> {
    asked: Asked<'a>,
    method: ReadMethod,
    given: Given<'a>,
    admission: Admission,
    began: Instant,
}

impl<'a> Read<'a> {
    /// The view, and the answer if memory has it. `after`: the clock of the last change that the
    /// caller knows of. Blocks nowhere.
    fn in_memory(
        &self,
        after: Option<u64>,
        now: Micros,
    ) -> Result<(View<'a>, Option<Answer>), BadParameter> {
        thread_local!(static KEY: RefCell<KeyText> = RefCell::default());
        let resource = self.asked.resource;
        KEY.with_borrow_mut(|key| {
            let view = resource.key(self.arguments(), key)?;
            let cache = &self.asked.state.cache;
            let found = cache.get_at(key.as_str(), resource.policy(), after, now);
            Ok((
                view,
                found.inspect(|answer| resource.tally().count_hit(answer)),
            ))
        })
    }

    /// Asks Redis and the source.
    async fn load(
        self,
        view: View<'a>,
        after: Option<u64>,
        texts: &mut HeaderTexts,
    ) -> Result<HttpResponse, HttpResponse> {
        let memory_took = self.began.elapsed();
        let Asked {
            request,
            state,
            resource,
            id,
            ..
        } = self.asked;
        let wanted = resource
            .request(self.arguments(), &request_id::context(request, id))
            .map_err(|bad| self.unfit(bad))?
            .ok_or_else(|| self.refused(Problem::NotFound("Nothing is served at this path.")))?;
        let failed = |problem| {
            let mut answer = match problem {
                Problem::BadParameter(bad) => self.unfit(bad),
                other => self.refused(other),
            };
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
        let waiting = PendingRead::new(resource.tally(), &state.traffic, self.began);
        let waited = bridge::wait(&state.cache, wanted, reader, resource.limit());
        let result = waited.await.map_err(failed)?;
        waiting.end(&result);
        let answer = result.map_err(|error| failed(error.into()))?;
        let now = state.cache.clock().now();
        Ok(self.answered(&view, &answer, now, Some(memory_took), texts))
    }

    /// The response, which is counted. `memory_took`: how long the look into memory took, if it had
    /// nothing.
    #[inline]
    fn answered(
        &self,
        view: &View<'_>,
        answer: &Answer,
        now: Micros,
        memory_took: Option<Duration>,
        texts: &mut HeaderTexts,
    ) -> HttpResponse {
        let mut response = if answer.entry.value.is_absent() {
            let mut absent = Problem::NotFound("Not found.").answer();
            write_headers(absent.headers_mut(), answer, now, memory_took, texts);
            absent
        } else {
            self.respond(view, answer, now, memory_took, texts)
        };
        self.admission.write_headers(texts, response.headers_mut());
        let end = LookupEnd::from(answer.outcome);
        self.asked
            .state
            .traffic
            .note_read(end, self.began.elapsed());
        response
    }

    fn respond(
        &self,
        view: &View<'_>,
        answer: &Answer,
        now: Micros,
        memory_took: Option<Duration>,
        texts: &mut HeaderTexts,
    ) -> HttpResponse {
        let entry = &answer.entry;
        headers::entity_tag(view, entry.hash, texts);
        let tag = texts.value();
        // To a POST, a 304 has no meaning (RFC 9110, section 13.1.2).
        let is_post = self.method == ReadMethod::Post;
        let mut response = if !is_post && headers::is_unchanged(self.asked.request.headers(), &tag)
        {
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
        let client_ttl = self.asked.resource.settings().client_ttl;
        let cache_control = if is_post {
            HeaderValue::from_static("no-store")
        } else {
            headers::cache_control(answer, client_ttl, age, now, texts)
        };
        map.insert(header::CACHE_CONTROL, cache_control);
        map.insert(header::ETAG, tag);
        response
    }

    fn arguments(&self) -> Arguments<'a> {
        let (path, given) = (self.asked.path, self.given);
        Arguments { path, given }
    }

    /// Refuses an argument that is not valid: with 422 if it is in the body, with 400 elsewhere.
    #[cold]
    fn unfit(&self, bad: BadParameter) -> HttpResponse {
        // A member that the path has, too, is not known as a member.
        let of_path = bad.wrong != Wrong::Unknown && self.arguments().has_in_path(&bad.name);
        self.refused(match self.given {
            Given::Body(_) if !of_path => Problem::bad_member(bad),
            _ => Problem::BadParameter(bad),
        })
    }

    #[cold]
    fn refused(&self, problem: Problem) -> HttpResponse {
        self.admission.with_rate_headers(problem.answer())
    }
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
