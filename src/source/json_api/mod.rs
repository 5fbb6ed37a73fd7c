//! A source for any HTTP API that answers with JSON.
//!
//! Promise: a load makes one call, booked on its upstream's quota. Its value is the JSON as it was
//! sent, byte for byte, or the picked part of it. 404, 410 and 204 mean that the value is absent.
//! Any other answer without usable JSON is an error. A parameter cannot leave its place: its
//! segment of the path, its value in the query, its header, its value in the body.
//!
//! No error, identity or printed form shows the value of an environment variable.

mod body;
mod condition;
mod escaping;
mod lifetime;
mod pick;
mod target;
#[cfg(test)]
mod tests;
mod validator;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::error::sanitized;
use super::http::{HttpAnswer, HttpRequest, SourceMethod};
use super::json_text::{NoJson, json_text};
use super::trace::TraceContext;
use super::upstream::HttpUpstream;
use crate::template::Template;
pub use body::JsonTemplate;
use condition::Condition;
use larder_cache::{Lifetime, LoadContext, LoadError, Loaded, Revalidation, Secret, Value};
use pick::{Nothing, Pointer};
use target::Target;
use validator::Validator;

/// The settings of such an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonApiSettings {
    /// Its `http` or `https` URL. Scheme, host and port have no parameter.
    pub url: Template,
    /// Headers to send.
    pub headers: Vec<(String, Template)>,
    /// Parameters to add to the URL's query.
    pub query: Vec<(String, Template)>,
    /// The method.
    pub method: SourceMethod,
    /// The body of a POST or a QUERY: an array or an object.
    pub json: Option<JsonTemplate>,
    /// A JSON pointer (RFC 6901) to the value in the body.
    pub pick: Option<String>,
    /// JSON pointers into the whole body, each with the values of which it has to lead to one. If
    /// one of them does not, no tier keeps the answer.
    pub store_if: Vec<(String, Vec<Json>)>,
    /// Who decides how long a value is fresh.
    pub ttl: TtlFrom,
}

/// Who decides how long a value is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlFrom {
    /// The resource's policy. The upstream's headers are ignored.
    Resource,
    /// The upstream's headers (RFC 9111), within the resource's policy.
    Upstream,
}

/// What is wrong with [`JsonApiSettings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonApiFault {
    /// Where.
    pub place: Place,
    /// What is wrong: "has a parameter in its host".
    pub problem: String,
    /// What would be valid.
    pub valid: &'static str,
}

/// A place in [`JsonApiSettings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The URL.
    Url,
    /// The header of this name.
    Header(String),
    /// The entry of the query of this name.
    Query(String),
    /// The method.
    Method,
    /// The body.
    Json,
    /// The pointer to the value.
    Pick,
    /// The pointer of this text in `store_if`.
    StoreIf(String),
}

const POINTER_FORM: &str =
    "\"/data/items/0\": a slash before each name, ~1 for a slash and ~0 for a tilde in one";

impl JsonApiSettings {
    /// All parameters in its templates, with repetitions.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.templates().flat_map(Template::params)
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let named = self.headers.iter().chain(&self.query);
        let named = named.map(|(_, template)| template);
        let json = self.json.iter().flat_map(JsonTemplate::templates);
        std::iter::once(&self.url).chain(named).chain(json)
    }

    /// The values of its environment variables, in order. [`JsonApiSettings::identity`] does not
    /// show them, but the API's values depend on them.
    pub(crate) fn filled(&self) -> impl Iterator<Item = &Secret> {
        self.templates().flat_map(Template::secrets)
    }

    /// What its values depend on, for a fingerprint: everything but `ttl` and the values of
    /// environment variables, which it shows by name.
    pub fn identity(&self) -> String {
        let JsonApiSettings {
            url,
            headers,
            query,
            method,
            json,
            pick,
            store_if,
            ttl: _,
        } = self;
        let mut identity =
            format!("http {url:?} headers {headers:?} query {query:?} pick {pick:?}");
        // Only where they are set, so that the values of other resources stay known.
        if *method != SourceMethod::Get {
            identity.push_str(&format!(" method {method:?} json {json:?}"));
        }
        if !store_if.is_empty() {
            identity.push_str(&format!(" store_if {store_if:?}"));
        }
        identity
    }

    /// Everything that is wrong with it.
    pub fn faults(&self) -> Vec<JsonApiFault> {
        self.read().err().unwrap_or_default()
    }

    /// The target of its calls, the pointer into their answers, and which of them are kept.
    fn read(&self) -> Result<(Target, Option<Pointer>, Vec<Condition>), Vec<JsonApiFault>> {
        let (target, mut faults) = match Target::build(self) {
            Ok(target) => (Some(target), Vec::new()),
            Err(faults) => (None, faults),
        };
        faults.extend(self.fault_of_body());
        let mut pointer = |text: &str, place: Place| {
            let pointer = Pointer::parse(text);
            if pointer.is_none() {
                faults.push(JsonApiFault {
                    place,
                    problem: "is not a valid JSON pointer".to_owned(),
                    valid: POINTER_FORM,
                });
            }
            pointer
        };
        let pick = self.pick.as_deref();
        let pick = pick.and_then(|text| pointer(text, Place::Pick));
        let mut conditions = Vec::new();
        for (text, values) in &self.store_if {
            conditions.extend(pointer(text, Place::StoreIf(text.clone())).map(|pointer| {
                Condition {
                    pointer,
                    values: values.clone(),
                }
            }));
        }
        match target {
            Some(target) if faults.is_empty() => Ok((target, pick, conditions)),
            _ => Err(faults),
        }
    }

    /// What is wrong with the method and the body together.
    fn fault_of_body(&self) -> Option<JsonApiFault> {
        let (place, problem, valid) = match (self.method, &self.json) {
            (SourceMethod::Get, Some(_)) => (
                Place::Json,
                "is a body, which a GET does not send",
                "method = \"POST\" or method = \"QUERY\" beside it",
            ),
            (SourceMethod::Query, None) => (
                Place::Method,
                "is QUERY, which needs a body",
                "json = { q = \"{q}\" } beside it",
            ),
            _ => return None,
        };
        Some(JsonApiFault {
            place,
            problem: problem.to_owned(),
            valid,
        })
    }
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JsonApi {
    upstream: HttpUpstream,
    target: Arc<Target>,
    method: SourceMethod,
    json: Option<Arc<JsonTemplate>>,
    pick: Option<Pointer>,
    store_if: Arc<[Condition]>,
    ttl: TtlFrom,
}

impl JsonApi {
    /// An API with these settings at `upstream`.
    ///
    /// # Errors
    /// The [`JsonApiSettings::faults`], if there are any.
    pub fn new(
        settings: &JsonApiSettings,
        upstream: HttpUpstream,
    ) -> Result<JsonApi, Vec<JsonApiFault>> {
        let (target, pick, store_if) = settings.read()?;
        Ok(JsonApi {
            upstream,
            target: target.into(),
            method: settings.method,
            json: settings.json.clone().map(Arc::new),
            pick,
            store_if: store_if.into(),
            ttl: settings.ttl,
        })
    }

    /// The [`JsonApiSettings::identity`] of its settings.
    pub fn identity(&self) -> &str {
        self.target.identity()
    }

    /// Its upstream.
    pub fn upstream(&self) -> &HttpUpstream {
        &self.upstream
    }

    /// Loads the value for these parameters: texts, whole numbers and booleans. If the upstream
    /// confirms the copy in `context`, that copy is the value. A POST asks for no confirmation. A
    /// parameter without a value is not in `params`. The call continues `trace`.
    ///
    /// Blocks until the deadline at the latest, including the wait for the quota. If a parameter
    /// cannot be sent in its place (`..` as a segment of the path, a control character in a
    /// header), the value is absent, without a call.
    ///
    /// # Errors
    /// `Spent` if no place in the quota is free in time. `Paused` after a 429, or a 503 with
    /// `Retry-After`: for the whole upstream if it has a quota, else for these parameters.
    /// `TooSlow` after the deadline. `Failed` for any other status, for invalid JSON, and if the
    /// pointer leads to nothing.
    pub fn load<N: AsRef<str>>(
        &self,
        params: &[(N, Json)],
        context: LoadContext,
        trace: Option<&TraceContext>,
    ) -> Result<Loaded, LoadError> {
        let value = |name: &str| {
            let found = params.iter().find(|(known, _)| known.as_ref() == name);
            found.map(|(_, value)| value)
        };
        let texts = params
            .iter()
            .map(|(name, value)| (name.as_ref(), body::text(value)));
        let texts: Vec<(&str, Cow<'_, str>)> = texts.collect();
        let text = |name: &str| {
            let found = texts.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| &**text)
        };
        let Some(call) = self.target.call(&text) else {
            // The declared TTLs hold: the upstream was not called.
            return Ok(Loaded::new(Value::Absent, Lifetime::Policy));
        };
        let body = match &self.json {
            Some(json) => json
                .fill(&value)
                .map_err(|error| LoadError::Bug(format!("a body without a JSON form: {error}")))?,
            None => Vec::new(),
        };
        let (deadline, copy) = (context.deadline, context.revalidation);
        let copy = copy.filter(|_| self.method.is_safe());
        let known = copy.as_ref().map(|copy| Validator::parse(&copy.validator));
        let conditions = known.iter().flat_map(Validator::conditions);
        let own = call
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> = own.chain(conditions).collect();
        self.upstream.quota.around(deadline, || {
            let began = Instant::now();
            let request = HttpRequest {
                method: self.method,
                url: &call.url,
                query: &[],
                headers: &headers,
                body: &body,
                secrets: self.target.secrets(),
                trace,
            };
            let answer = self.upstream.http.ask(&request, deadline)?;
            let previous = known.as_ref().zip(copy);
            self.read(answer, previous, began.elapsed())
        })
    }

    /// The result of a call that took this long. `previous`: the copy that the upstream was asked
    /// to confirm.
    fn read(
        &self,
        mut answer: HttpAnswer,
        previous: Option<(&Validator, Revalidation)>,
        took: Duration,
    ) -> Result<Loaded, LoadError> {
        let (status, now) = (answer.status, Timestamp::now());
        let own = Validator::of(&answer.headers);
        let (validator, confirmed) = match previous {
            Some((known, copy)) if status == 304 => (own.or(known), Some(copy.value)),
            _ => (own, None),
        };
        let mut lifetime = match self.ttl {
            TtlFrom::Resource => Lifetime::Policy,
            TtlFrom::Upstream => {
                lifetime::of(validator.cache_control(), &answer.headers, took, now)
            }
        };
        let value = match (status, confirmed) {
            (_, Some(copy)) => Value::Present(copy),
            (204 | 404 | 410, None) => Value::Absent,
            (200..=203, None) => {
                let body = std::mem::take(&mut answer.body);
                let (value, is_kept) = self.value(body, &answer)?;
                if !is_kept {
                    lifetime = Lifetime::NoStore;
                }
                value
            }
            (_, None) => return Err(self.refused(&answer)),
        };
        let is_confirmable = self.method.is_safe() && !value.is_absent();
        Ok(Loaded {
            validator: validator.to_text().filter(|_| is_confirmable),
            value,
            lifetime,
        })
    }

    /// The value in a body, and whether it may be kept.
    fn value(&self, body: Vec<u8>, answer: &HttpAnswer) -> Result<(Value, bool), LoadError> {
        let json = json_text(&body).map_err(|why| self.no_json(why, answer))?;
        let is_kept = self.store_if.iter().all(|condition| condition.holds(json));
        let part = match &self.pick {
            None => json,
            Some(pointer) => match pointer.find(json) {
                Ok(part) => part,
                Err(Nothing::PastTheEnd) => return Ok((Value::Absent, is_kept)),
                Err(Nothing::Missing) => {
                    let status = answer.status;
                    return Err(self.failed(format!("answered {status} with nothing at {pointer}")));
                }
            },
        };
        if part.len() == body.len() {
            return Ok((Value::present(body), is_kept));
        }
        // A copy: a slice would keep the whole body in memory, and only the part is accounted for.
        let part = Bytes::copy_from_slice(part.as_bytes());
        Ok((Value::Present(part), is_kept))
    }

    fn no_json(&self, why: NoJson, answer: &HttpAnswer) -> LoadError {
        let kind = answer.header("content-type").unwrap_or("no content type");
        let kind = sanitized(kind, self.target.secrets());
        let status = answer.status;
        self.failed(format!("answered {status} with {why} ({kind})"))
    }

    fn refused(&self, answer: &HttpAnswer) -> LoadError {
        let status = answer.status;
        if answer.asks_to_wait() {
            LoadError::Paused {
                what: format!("{} answered {status}", self.upstream.name()),
                retry_after: self.upstream.http.pause(answer),
                whole_source: self.upstream.quota.is_limited(),
            }
        } else {
            self.failed(format!("answered {status}"))
        }
    }

    fn failed(&self, what: String) -> LoadError {
        self.upstream.http.failed(&what)
    }
}
