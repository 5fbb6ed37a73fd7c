//! What a larder found when it audited its memory hits.

use std::ops::AddAssign;

use crate::larder::Larder;
use crate::{SOON, until};

/// Memory hits by what their audit found, as `larder_audits_total` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audits {
    pub same: u64,
    pub newer: u64,
    pub illegal: u64,
    pub unknown: u64,
    /// Not looked at: too many waited.
    pub skipped: u64,
}

impl Audits {
    /// What this replica has found, once it has looked at all hits so far.
    pub fn of(replica: &Larder) -> Audits {
        let mut text = String::new();
        until(SOON, "every hit is looked at", || {
            text = replica.get("/metrics").expect(200).text();
            number(&text, "larder_audits_waiting") == 0
        });
        let found = |result: &str| {
            let name = format!("larder_audits_total{{result=\"{result}\"}}");
            number(&text, &name)
        };
        Audits {
            same: found("same"),
            newer: found("newer"),
            illegal: found("illegal"),
            unknown: found("unknown"),
            skipped: number(&text, "larder_audits_skipped_total"),
        }
    }

    /// The hits that were looked at.
    pub fn found(&self) -> u64 {
        self.same + self.newer + self.illegal + self.unknown
    }
}

impl AddAssign for Audits {
    fn add_assign(&mut self, other: Audits) {
        self.same += other.same;
        self.newer += other.newer;
        self.illegal += other.illegal;
        self.unknown += other.unknown;
        self.skipped += other.skipped;
    }
}

/// The value of a metric in this exposition.
fn number(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in:\n{text}"))
}
