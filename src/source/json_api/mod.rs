//! Any HTTP API that answers with JSON, as a source.
//!
//! Promise: a load makes one call, booked on its upstream's quota, and gives the JSON as it was
//! sent, byte for byte, or the part of it that is picked. 404, 410 and 204 are absence, and
//! anything else that is no JSON, or is nested too deep, is an error. A parameter cannot leave the
//! place that it stands in: not its segment of the path, not its value in the query, not its
//! header.
//!
//! No error, no identity and no printed form shows what the environment filled in.

mod lifetime;
mod pick;
mod target;
#[cfg(test)]
mod tests;
mod validator;

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;

use super::error::{SourceError, shown};
use super::http::{Get, HttpAnswer};
use super::json_text::{NoJson, json_text};
use super::upstream::HttpUpstream;
use crate::template::Template;
use larder_cache::Secret;
use larder_cache::{Lifetime, LoadContext, LoadError, Loaded, Value};
use pick::{Nothing, Pointer};
use target::Target;
use validator::Validator;

/// What an operator says of such an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonApiSettings {
    /// Where it is: an `http` or `https` URL. Its scheme, host and port have no parameter.
    pub url: Template,
    /// Headers to send.
    pub headers: Vec<(String, Template)>,
    /// What is added to the URL's query.
    pub query: Vec<(String, Template)>,
    /// A JSON pointer (RFC 6901) to the part of the body that is the value.
    pub pick: Option<String>,
    /// Who says how long a value is fresh.
    pub ttl: TtlFrom,
}

/// Who says how long a value is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlFrom {
    /// The resource's policy; what the upstream says of it is not looked at.
    Resource,
    /// The upstream (RFC 9111), within the resource's policy.
    Upstream,
}

/// What is wrong with [`JsonApiSettings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonApiFault {
    /// Where.
    pub place: Place,
    /// What: "has a parameter in its host".
    pub problem: String,
    /// What would be right.
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
    /// The parameters that stand anywhere in it, each time that they do.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.templates().flat_map(Template::params)
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let named = self.headers.iter().chain(&self.query);
        std::iter::once(&self.url).chain(named.map(|(_, template)| template))
    }

    /// What the environment filled in, in order: values depend on it, and
    /// [`JsonApiSettings::identity`] does not show it.
    pub(crate) fn filled(&self) -> impl Iterator<Item = &Secret> {
        self.templates().flat_map(Template::secrets)
    }

    /// What makes its values, for a fingerprint: all but `ttl`, and what the environment filled in.
    /// Variables stand in it by name.
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

    /// All that is wrong with it.
    pub fn faults(&self) -> Vec<JsonApiFault> {
        self.read().err().unwrap_or_default()
    }

    /// Where calls go, and what is picked of their answers.
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

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A value.
    New {
        /// Its JSON.
        body: Bytes,
        /// What the upstream knows it by, where it says so.
        validator: Option<Box<str>>,
        /// How long it is fresh by the upstream's word.
        life: Lifetime,
    },
    /// The value with the validator that was shown is still the one.
    NotModified {
        /// What the upstream knows it by from now on.
        validator: Box<str>,
        /// How long it is fresh by the upstream's word.
        life: Lifetime,
    },
    /// There is no such thing.
    Absent {
        /// How long that is so by the upstream's word.
        life: Lifetime,
    },
}

impl JsonApi {
    /// The API of these settings at `upstream`.
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

    /// The upstream that it asks.
    pub fn upstream(&self) -> &HttpUpstream {
        &self.upstream
    }

    /// What a load runs: the value for these parameters, or the one that `attempt` shows where the upstream confirms it. A
    /// parameter without a value is left out of `params`.
    ///
    /// # Errors
    /// As [`JsonApi::fetch`].
    pub fn load<N: AsRef<str>, V: AsRef<str>>(
        &self,
        params: &[(N, V)],
        attempt: LoadContext,
    ) -> Result<Loaded, LoadError> {
        let previous = attempt.revalidation;
        let shown = previous.as_ref().map(|previous| &*previous.validator);
        let (value, validator, life) = match self.fetch(params, shown, attempt.deadline)? {
            Fetched::New {
                body,
                validator,
                life,
            } => (Value::Present(body), validator, life),
            Fetched::NotModified { validator, life } => {
                let body = previous.map(|previous| previous.value).unwrap_or_default();
                (Value::Present(body), Some(validator), life)
            }
            Fetched::Absent { life } => (Value::Absent, None, life),
        };
        Ok(Loaded {
            value,
            lifetime: match self.ttl {
                TtlFrom::Resource => Lifetime::Policy,
                TtlFrom::Upstream => life,
            },
            validator,
        })
    }

    /// Asks for the value for these parameters, or whether the one with the validator `previous` is still it.
    ///
    /// Blocks until `deadline` at the latest, also for a place in the quota. A value that cannot be sent in its place (`..` as a
    /// segment of the path, a control character in a header) names nothing: absent, without a call.
    ///
    /// # Errors
    /// `Spent` if the quota comes back too late. `Paused` if the upstream says 429, or 503 with
    /// `Retry-After`: for all of the upstream where it has a quota, else for these parameters.
    /// `TooSlow` after `deadline`. `Failed` for any other status, for invalid JSON, and where there
    /// is nothing to pick.
    pub fn fetch<N: AsRef<str>, V: AsRef<str>>(
        &self,
        params: &[(N, V)],
        previous: Option<&str>,
        deadline: Instant,
    ) -> Result<Fetched, SourceError> {
        let value = |name: &str| {
            let given = params.iter().find(|(given, _)| given.as_ref() == name);
            given.map(|(_, value)| value.as_ref())
        };
        let Some(call) = self.target.call(&value) else {
            // Declared TTLs hold for it; the upstream said nothing.
            return Ok(Fetched::Absent {
                life: Lifetime::Policy,
            });
        };
        let previous = previous.map(Validator::parse);
        let conditions = previous.iter().flat_map(Validator::conditions);
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
                },
                deadline,
            )?;
            self.read(answer, previous.as_ref(), began.elapsed())
        })
    }

    fn read(
        &self,
        mut answer: HttpAnswer,
        previous: Option<&Validator>,
        took: Duration,
    ) -> Result<Fetched, SourceError> {
        let (status, now) = (answer.status, Timestamp::now());
        let said = Validator::of(&answer.headers);
        let validator = match previous {
            Some(previous) if status == 304 => said.or(previous),
            _ => said,
        };
        let life = lifetime::of(validator.cache_control(), &answer.headers, took, now);
        match status {
            304 if previous.is_some() => Ok(Fetched::NotModified {
                validator: validator.to_text().unwrap_or_default(),
                life,
            }),
            204 | 404 | 410 => Ok(Fetched::Absent { life }),
            200..=203 => {
                let body = std::mem::take(&mut answer.body);
                match self.value(body, &answer)? {
                    Some(body) => Ok(Fetched::New {
                        body,
                        validator: validator.to_text(),
                        life,
                    }),
                    None => Ok(Fetched::Absent { life }),
                }
            }
            _ => Err(self.refused(&answer)),
        }
    }

    /// The value in a body; `None`: it says that there is none.
    fn value(&self, body: Vec<u8>, answer: &HttpAnswer) -> Result<Option<Bytes>, SourceError> {
        let whole = json_text(&body).map_err(|why| self.no_json(why, answer))?;
        let part = match &self.pick {
            None => whole,
            Some(pointer) => match pointer.find(whole) {
                Ok(part) => part,
                Err(Nothing::PastTheEnd) => return Ok(None),
                Err(Nothing::Missing) => {
                    let status = answer.status;
                    return Err(self.failed(format!("answered {status} with nothing at {pointer}")));
                }
            },
        };
        if part.len() == body.len() {
            return Ok(Some(body.into_boxed_slice().into()));
        }
        // A copy, since a slice would keep all of the body alive for a part that is weighed by itself.
        Ok(Some(Bytes::copy_from_slice(part.as_bytes())))
    }

    fn no_json(&self, why: NoJson, answer: &HttpAnswer) -> SourceError {
        let kind = answer.header("content-type").unwrap_or("no content type");
        let kind = shown(kind, self.target.secrets());
        let status = answer.status;
        self.failed(format!("answered {status} with {why} ({kind})"))
    }

    fn refused(&self, answer: &HttpAnswer) -> SourceError {
        let status = answer.status;
        if answer.asks_to_wait() {
            SourceError::Paused {
                what: format!("{} answered {status}", self.upstream.name()),
                retry_after: self.upstream.http.pause(answer),
                whole_source: self.upstream.quota.is_limited(),
            }
        } else {
            self.failed(format!("answered {status}"))
        }
    }

    fn failed(&self, what: String) -> SourceError {
        self.upstream.http.failed(&what)
    }
}
