//! Whose request leads to a load: for the log, and for the upstreams.

use std::sync::Arc;

use crate::source::TraceContext;
use larder_cache::Note;

/// See the module. Empty for what no request leads to. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// The id of the request.
    pub request_id: Option<Arc<str>>,
    /// The trace that the request is part of.
    pub trace: Option<Arc<TraceContext>>,
}

impl RequestContext {
    /// The id of the trace, if there is one.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace.as_deref().map(TraceContext::trace_id)
    }

    /// What the log line of a load of this resource says about the request.
    pub(super) fn note(&self, resource: &str) -> Note {
        Note {
            resource: Some(resource.into()),
            request_id: self.request_id.clone(),
            trace_id: self.trace_id().map(Arc::from),
        }
    }
}
