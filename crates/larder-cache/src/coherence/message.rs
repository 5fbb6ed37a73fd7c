//! What is told on the channel and written into the log: one message for each invalidation, and for each new history.

use serde::Deserialize;

use super::bus::Lost;
use super::era::HistoryId;
use super::name::{InvalidationTarget, Purge};

/// One message: epoch, clock, the clock before it, kind, names.
#[derive(Debug, Deserialize)]
struct Message {
    e: String,
    c: String,
    b: String,
    k: String,
    n: Vec<String>,
}

/// A message, read.
pub(super) struct Heard {
    pub(super) epoch: HistoryId,
    pub(super) clock: u64,
    pub(super) before: u64,
    /// `None`: a history began.
    pub(super) kind: Option<Purge>,
    pub(super) names: Vec<InvalidationTarget>,
}

/// Reads a message.
pub(super) fn parse(payload: &str) -> Result<Heard, Lost> {
    let strange = || Lost::Strange("a message that is none of larder's".into());
    let message: Message = serde_json::from_str(payload).map_err(|_| strange())?;
    Ok(Heard {
        epoch: HistoryId::parse(&message.e).ok_or_else(strange)?,
        clock: message.c.parse().map_err(|_| strange())?,
        before: message.b.parse().map_err(|_| strange())?,
        kind: match message.k.as_str() {
            "h" => Some(Purge::Hard),
            "s" => Some(Purge::Soft),
            "e" => None,
            // Of a larder that knows another kind: what it means has to be asked for.
            _ => return Err(strange()),
        },
        names: message
            .n
            .iter()
            .map(|name| InvalidationTarget::tag(name))
            .collect(),
    })
}
