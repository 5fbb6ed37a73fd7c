//! The texts of an answer's headers, written one behind the other into one buffer that they share.
//!
//! Promise: however many headers an answer has, they cost one buffer, and those with a small number not even that. What may not stand in
//! a header becomes an empty value.

use actix_web::http::header::HeaderValue;
use actix_web::web::BytesMut;

use super::digits::Digits;

/// What the headers of a memory hit take, and some room.
const ROOM: usize = 224;

/// What stands before the number where clients are told for how many seconds they may keep an answer.
const PRIVATE_MAX_AGE: &str = "private, max-age=";
/// Numbers below this are written down beforehand.
const SMALL: usize = 1000;
const WIDTH: usize = PRIVATE_MAX_AGE.len() + 3;
/// That text with each of them, from the left of its place.
static WRITTEN: &str = match std::str::from_utf8(&BYTES) {
    Ok(text) => text,
    Err(_) => "",
};
static BYTES: [u8; SMALL * WIDTH] = written();

const fn written() -> [u8; SMALL * WIDTH] {
    let mut all = [b' '; SMALL * WIDTH];
    let mut number = 0;
    while number < SMALL {
        let place = number * WIDTH;
        let mut at = 0;
        while at < PRIVATE_MAX_AGE.len() {
            all[place + at] = PRIVATE_MAX_AGE.as_bytes()[at];
            at += 1;
        }
        let mut unit = 100;
        while unit > 0 {
            if number >= unit || unit == 1 {
                all[place + at] = b'0' + (number / unit % 10) as u8;
                at += 1;
            }
            unit /= 10;
        }
        number += 1;
    }
    all
}

/// The text of a small number, from `from` on.
fn small(number: u64, from: usize) -> Option<HeaderValue> {
    let place = usize::try_from(number).ok().filter(|n| *n < SMALL)? * WIDTH;
    let digits = 1 + usize::from(number >= 10) + usize::from(number >= 100);
    let text = WRITTEN.get(place + from..place + PRIVATE_MAX_AGE.len() + digits);
    text.map(HeaderValue::from_static)
}

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

    /// A number that is all of a value.
    pub(super) fn number_alone(&mut self, number: u64) -> HeaderValue {
        small(number, PRIVATE_MAX_AGE.len()).unwrap_or_else(|| self.number(number).value())
    }

    /// `private, max-age=` and the number.
    pub(super) fn private_max_age(&mut self, seconds: u64) -> HeaderValue {
        small(seconds, 0).unwrap_or_else(|| self.text(PRIVATE_MAX_AGE).number(seconds).value())
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

    #[test]
    fn small_numbers_read_as_others_do() {
        let mut texts = HeaderTexts::new();
        for number in (0..1100).chain([u64::MAX]) {
            assert_eq!(texts.number_alone(number), number.to_string().as_str());
            let kept = format!("private, max-age={number}");
            assert_eq!(texts.private_max_age(number), kept.as_str());
        }
    }
}
