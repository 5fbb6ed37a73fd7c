//! The texts of an answer's headers, written one after the other into one buffer that they share.
//!
//! Promise: however many headers an answer has, their texts cost one allocation. A text that may not
//! stand in a header becomes an empty value.

use actix_web::http::header::HeaderValue;
use actix_web::web::BytesMut;

/// What the headers of a memory hit take, and some room.
const ROOM: usize = 256;

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
        self.text(itoa::Buffer::new().format(number))
    }

    /// Sixteen digits in lower case.
    pub(super) fn hexadecimal(&mut self, number: u64) -> &mut HeaderTexts {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |at: usize| DIGITS[(number >> (60 - 4 * at)) as usize & 15];
        let digits: [u8; 16] = std::array::from_fn(digit);
        self.0.extend_from_slice(&digits);
        self
    }

    /// The value that was written since the last one.
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

    #[test]
    fn numbers_read_as_those_of_fmt() {
        let mut texts = HeaderTexts::new();
        let powers = (0..64).map(|bit| 1u64 << bit);
        for number in (0..1100).chain(powers).chain([u64::MAX]) {
            let decimal = texts.number(number).value();
            assert_eq!(decimal, number.to_string().as_str());
            let hexadecimal = texts.hexadecimal(number).value();
            assert_eq!(hexadecimal, format!("{number:016x}").as_str());
        }
    }
}
