//! The messages on the channel and in the log: one for each invalidation and for each new history.

use serde::Deserialize;

use super::history_id::HistoryId;
use super::target::{InvalidationTarget, Purge};

/// What was invalidated, and which clock came before it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) history: HistoryId,
    pub(crate) clock: u64,
    pub(crate) before: u64,
    /// `None`: a history began.
    pub(crate) purge: Option<Purge>,
    pub(crate) targets: Vec<InvalidationTarget>,
    /// The replica that sent it.
    pub(crate) replica: String,
}

/// The answer to a ping, on the private channel of the replica that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    pub(crate) token: u64,
    pub(crate) history: HistoryId,
    pub(crate) clock: u64,
}

/// A message as `history.lua` encodes it. Clocks are texts: they are larger than what every JSON
/// reader keeps exactly.
#[derive(Deserialize)]
struct Encoded {
    /// The history.
    e: String,
    /// The clock.
    c: String,
    /// The clock before it.
    b: String,
    /// The purge, or `e` for a new history.
    k: String,
    /// The targets.
    n: Vec<String>,
    /// The replica that sent it. Nothing depends on it.
    #[serde(default)]
    o: String,
}

impl Message {
    /// `None` if larder did not write `payload`, or a larder that knows other purges.
    pub(crate) fn decode(payload: &str) -> Option<Message> {
        let encoded: Encoded = serde_json::from_str(payload).ok()?;
        let targets = encoded.n.iter();
        Some(Message {
            history: HistoryId::parse(&encoded.e)?,
            clock: encoded.c.parse().ok()?,
            before: encoded.b.parse().ok()?,
            purge: match encoded.k.as_str() {
                "e" => None,
                letter => Some(Purge::of_letter(letter)?),
            },
            targets: targets.map(|name| InvalidationTarget::tag(name)).collect(),
            replica: encoded.o,
        })
    }
}

impl Echo {
    /// `None` if `ping.lua` did not write `payload`.
    pub(crate) fn decode(payload: &str) -> Option<Echo> {
        let mut parts = payload.split(' ');
        Some(Echo {
            token: parts.next()?.parse().ok()?,
            history: HistoryId::parse(parts.next()?)?,
            clock: parts.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_decoded() {
        let text = r#"{"e":"00000000000000ff","c":"12","b":"10","k":"s","o":"x","n":["a","*"]}"#;
        let message = Message::decode(text).unwrap();
        assert_eq!(message.history, HistoryId(255));
        assert_eq!((message.before, message.clock), (10, 12));
        assert_eq!(message.purge, Some(Purge::Soft));
        let names = [
            InvalidationTarget::tag("a"),
            InvalidationTarget::everything(),
        ];
        assert_eq!(message.targets, names);
        assert_eq!(message.replica, "x");
        let begin = Message::decode(&text.replace(r#""k":"s""#, r#""k":"e""#)).unwrap();
        assert_eq!(begin.purge, None);
    }

    #[test]
    fn a_message_of_another_form_is_refused() {
        let text = r#"{"e":"ff","c":"12","b":"10","k":"h","n":[]}"#;
        assert!(Message::decode(text).is_some());
        for (part, other) in [
            ("\"ff\"", "\"history\""),
            ("\"12\"", "12"),
            ("\"12\"", "\"-1\""),
            ("\"10\"", "\"\""),
            ("\"h\"", "\"z\""),
            ("[]", "[1]"),
            ("}", ""),
        ] {
            let text = text.replace(part, other);
            assert!(Message::decode(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn an_echo_is_decoded() {
        let echo = Echo {
            token: 7,
            history: HistoryId(255),
            clock: 12,
        };
        assert_eq!(Echo::decode("7 00000000000000ff 12"), Some(echo));
        for text in ["", "7", "7 ff", "x ff 12", "7 x 12", "7 ff x"] {
            assert_eq!(Echo::decode(text), None, "{text}");
        }
    }
}
