//! A value from an HTTP API, for the parameters of the resource.

use std::time::Duration;

use crate::cache::{Load, Making};
use crate::source::{HttpUpstreams, JsonApi};

use super::origin::Values;
use super::settings::HttpSourceSettings;

/// See the module.
pub(super) struct Api(JsonApi);

impl Api {
    pub(super) fn new(
        settings: &HttpSourceSettings,
        upstreams: &HttpUpstreams,
    ) -> Result<Api, String> {
        let upstream = upstreams.of(&settings.upstream);
        let api = JsonApi::new(&settings.api, upstream).map_err(|faults| {
            let faults = faults.into_iter().map(|fault| fault.problem);
            faults.collect::<Vec<_>>().join(", ")
        })?;
        Ok(Api(api))
    }

    pub(super) fn identity(&self) -> String {
        self.0.identity().to_owned()
    }

    pub(super) fn limit(&self) -> Duration {
        self.0.upstream().timeout()
    }

    pub(super) fn label(&self) -> &str {
        self.0.upstream().name()
    }

    pub(super) fn making(&self, values: &Values<'_>) -> Making {
        let values = values.iter();
        let values: Vec<(String, String)> = values
            .map(|(name, value)| ((*name).to_owned(), value.to_string()))
            .collect();
        let api = self.0.clone();
        Making::Load(Load {
            limit: self.limit(),
            run: Box::new(move |attempt| api.load(&values, attempt)),
        })
    }
}
