//! A source for any HTTP API that answers with JSON.
//!
//! Promise: a load makes one call, booked on its upstream's quota. Its value is the JSON as it was
//! sent, byte for byte, or the picked part of it. 404, 410 and 204 mean that the value is absent.
//! Any other answer without usable JSON is an error. A parameter cannot leave its place: its
//! segment of the path, its value in the query, its header.
//!
//! No error, identity or printed form shows the value of an environment variable.

mod escaping;
mod lifetime;
mod pick;
mod target;
#[cfg(test)]
mod tests;
mod validator;

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;

use super::error::sanitized;
use super::http::{Get, HttpAnswer};
use super::json_text::{NoJson, json_text};
use super::trace::TraceContext;
use super::upstream::HttpUpstream;
use crate::template::Template;
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
    /// A JSON pointer (RFC 6901) to the value in the body.
    pub pick: Option<String>,
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
    /// The pointer.
    Pick,
}

impl JsonApiSettings {
    /// All parameters in its templates, with repetitions.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.templates().flat_map(Template::params)
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let named = self.headers.iter().chain(&self.query);
        std::iter::once(&self.url).chain(named.map(|(_, template)| template))
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
            pick,
            ttl: _,
        } = self;
        format!("http {url:?} headers {headers:?} query {query:?} pick {pick:?}")
    }

    /// Everything that is wrong with it.
    pub fn faults(&self) -> Vec<JsonApiFault> {
        self.read().err().unwrap_or_default()
    }

    /// The target of its calls, and the pointer into their answers.
    fn read(&self) -> Result<(Target, Option<Pointer>), Vec<JsonApiFault>> {
        let no_pointer = || JsonApiFault {
            place: Place::Pick,
            problem: "is not a valid JSON pointer".to_owned(),
            valid: "\"/data/items/0\": a slash before each name, ~1 for a slash and ~0 for a tilde in one",
        };
        let pick = self.pick.as_deref();
        let pick = pick.map(|pick| Pointer::parse(pick).ok_or_else(no_pointer));
        match (Target::build(self), pick.transpose()) {
            (Ok(target), Ok(pick)) => Ok((target, pick)),
            (target, pick) => {
                let faults = target.err().into_iter().flatten();
                Err(faults.chain(pick.err()).collect())
            }
        }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JsonApi {
    upstream: HttpUpstream,
    target: std::sync::Arc<Target>,
    pick: Option<Pointer>,
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
        let (target, pick) = settings.read()?;
        Ok(JsonApi {
            upstream,
            target: target.into(),
            pick,
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

    /// Loads the value for these parameters. If the upstream confirms the copy in `context`, that
    /// copy is the value. A parameter without a value is not in `params`. The call continues
    /// `trace`.
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
    pub fn load<N: AsRef<str>, V: AsRef<str>>(
        &self,
        params: &[(N, V)],
        context: LoadContext,
        trace: Option<&TraceContext>,
    ) -> Result<Loaded, LoadError> {
        let value = |name: &str| {
            let found = params.iter().find(|(known, _)| known.as_ref() == name);
            found.map(|(_, value)| value.as_ref())
        };
        let Some(call) = self.target.call(&value) else {
            // The declared TTLs hold: the upstream was not called.
            return Ok(Loaded::new(Value::Absent, Lifetime::Policy));
        };
        let (deadline, copy) = (context.deadline, context.revalidation);
        let known = copy.as_ref().map(|copy| Validator::parse(&copy.validator));
        let conditions = known.iter().flat_map(Validator::conditions);
        let own = call
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> = own.chain(conditions).collect();
        self.upstream.quota.around(deadline, || {
            let began = Instant::now();
            let answer = self.upstream.http.get(
                &Get {
                    url: &call.url,
                    query: &[],
                    headers: &headers,
                    secrets: self.target.secrets(),
                    trace,
                },
                deadline,
            )?;
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
        let lifetime = match self.ttl {
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
                self.value(body, &answer)?
            }
            (_, None) => return Err(self.refused(&answer)),
        };
        Ok(Loaded {
            validator: validator.to_text().filter(|_| !value.is_absent()),
            value,
            lifetime,
        })
    }

    /// The value in a body.
    fn value(&self, body: Vec<u8>, answer: &HttpAnswer) -> Result<Value, LoadError> {
        let json = json_text(&body).map_err(|why| self.no_json(why, answer))?;
        let part = match &self.pick {
            None => json,
            Some(pointer) => match pointer.find(json) {
                Ok(part) => part,
                Err(Nothing::PastTheEnd) => return Ok(Value::Absent),
                Err(Nothing::Missing) => {
                    let status = answer.status;
                    return Err(self.failed(format!("answered {status} with nothing at {pointer}")));
                }
            },
        };
        if part.len() == body.len() {
            return Ok(Value::present(body));
        }
        // A copy: a slice would keep the whole body in memory, and only the part is accounted for.
        Ok(Value::Present(Bytes::copy_from_slice(part.as_bytes())))
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
