//! A value from an HTTP API, for the parameters of the resource.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::source::{HttpUpstreams, JsonApi, TraceContext};
use larder_cache::{Load, Producer};

use super::argument::{Argument, ParamValue};
use super::seals::Seals;
use super::settings::HttpSourceSettings;
use super::values::Values;

/// See the module.
pub(super) struct HttpSource {
    api: JsonApi,
    identity: String,
}

impl HttpSource {
    pub(super) fn new(
        settings: &HttpSourceSettings,
        upstreams: &HttpUpstreams,
        seals: &Seals,
    ) -> Result<HttpSource, String> {
        let upstream = upstreams.of(&settings.upstream);
        let api = JsonApi::new(&settings.api, upstream).map_err(|faults| {
            let faults = faults.into_iter().map(|fault| fault.problem);
            faults.collect::<Vec<_>>().join(", ")
        })?;
        let filled = settings.api.filled();
        let filled: Vec<u32> = filled.map(|secret| seals.of(secret.reveal())).collect();
        Ok(HttpSource {
            identity: format!("{} filled {filled:08x?}", api.identity()),
            api,
        })
    }

    /// The request's templates, and the seals of the secrets in them.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn limit(&self) -> Duration {
        self.api.upstream().timeout()
    }

    pub(super) fn label(&self) -> &str {
        self.api.upstream().name()
    }

    pub(super) fn producer(
        &self,
        values: &Values<'_>,
        trace: Option<Arc<TraceContext>>,
    ) -> Producer {
        let values = values.iter();
        let values: Vec<(String, Json)> = values
            .map(|(name, value)| ((*name).to_owned(), json(value)))
            .collect();
        let api = self.api.clone();
        Producer::Load(Load {
            limit: self.limit(),
            run: Box::new(move |context| api.load(&values, context, trace.as_deref())),
        })
    }
}

/// The value with its type.
fn json(value: &ParamValue) -> Json {
    match value {
        Argument::Text(text) => Json::from(&**text),
        Argument::Integer(number) => Json::from(*number),
        Argument::Boolean(yes) => Json::from(*yes),
    }
}
