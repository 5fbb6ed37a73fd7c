//! The texts of an answer's headers, written one behind the other into one buffer that they share.
//!
//! Promise: however many headers an answer has, they cost one buffer. What may not stand in a header becomes an empty value.

use actix_web::http::header::HeaderValue;
use actix_web::web::BytesMut;

use crate::cache::Digits;

/// What the headers of a memory hit take, and some room.
const ROOM: usize = 224;

/// See the module.
pub(super) struct HeaderTexts(BytesMut);

impl HeaderTexts {
    pub(super) fn new() -> HeaderTexts {
        HeaderTexts(BytesMut::with_capacity(ROOM))
    }

    pub(super) fn text(&mut self, text: &str) -> &mut HeaderTexts {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut HeaderTexts {
        self.0.extend_from_slice(Digits::decimal(number).as_bytes());
        self
    }

    /// Sixteen digits.
    pub(super) fn hexadecimal(&mut self, number: u64) -> &mut HeaderTexts {
        self.0
            .extend_from_slice(Digits::hexadecimal(number).as_bytes());
        self
    }

    /// What was written since the last value.
    pub(super) fn value(&mut self) -> HeaderValue {
        HeaderValue::from_maybe_shared(self.0.split().freeze())
            .unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_what_was_written_for_it() {
        let mut texts = HeaderTexts::new();
        let first = texts.text("a").number(7).value();
        let second = texts.hexadecimal(255).value();
        assert_eq!((first.as_bytes(), second.len()), (&b"a7"[..], 16));
        assert_eq!(texts.value(), "", "nothing was written");
        assert_eq!(texts.text("a\r\nb").value(), "", "two lines are no value");
        let long = "x".repeat(4 * ROOM);
        assert_eq!(texts.text(&long).value(), long.as_str());
        assert_eq!(first, "a7", "it keeps what is its own");
    }
}
