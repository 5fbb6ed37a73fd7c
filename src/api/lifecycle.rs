//! Where a server stands between its start and its end: serving, draining or closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const CLOSING: u8 = 2;

/// See the module. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<AtomicU8>);

impl Lifecycle {
    /// From now on the server is not ready, so that load balancers use others. It still takes
    /// requests.
    pub fn drain(&self) {
        self.0.fetch_max(DRAINING, Ordering::AcqRel);
    }

    /// From now on each answer is the last of its connection.
    pub fn close(&self) {
        self.0.fetch_max(CLOSING, Ordering::AcqRel);
    }

    /// Whether the server is not ready.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) != SERVING
    }

    /// Whether connections are being closed.
    pub fn is_closing(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLOSING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifecycle_never_goes_back() {
        let lifecycle = Lifecycle::default();
        assert!(!lifecycle.is_draining());
        lifecycle.close();
        lifecycle.drain();
        assert!(lifecycle.is_draining() && lifecycle.is_closing());
    }
}
