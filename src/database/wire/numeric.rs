//! The binary format of `numeric`: digits to the base of 10000, and a scale, which is the number of
//! decimals that are printed.
//!
//! Promise: the text is a JSON number with every digit, trailing zeros of the scale included.
//! Numbers that Postgres would round or could not hold are refused: more than 131072 digits before
//! the point, or 16383 after it.

use super::reader::Reader;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;
/// The most digits before the point, and after it.
const MAX_INTEGER_DIGITS: i64 = 131_072;
const MAX_SCALE: i64 = 16_383;

/// Appends the number, or a string for NaN and the infinities. `None` if these are not the bytes of
/// a number.
pub(super) fn decode(raw: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    let count = raw.u16()?;
    let weight = i32::from(raw.i16()?);
    let sign = raw.u16()?;
    let scale = usize::from(raw.u16()?);
    let groups: Vec<u16> = (0..count).map(|_| raw.u16()).collect::<Option<_>>()?;
    if groups.iter().any(|group| *group > 9999) {
        return None;
    }
    let special = match sign {
        0 | NEGATIVE => None,
        NAN => Some("\"NaN\""),
        INFINITY => Some("\"Infinity\""),
        MINUS_INFINITY => Some("\"-Infinity\""),
        _ => return None,
    };
    if let Some(special) = special {
        out.extend_from_slice(special.as_bytes());
        return Some(());
    }
    if sign == NEGATIVE && groups.iter().any(|group| *group > 0) {
        out.push(b'-');
    }
    // The digit at 10000^power.
    let group = |power: i32| {
        let at = usize::try_from(weight - power).ok();
        at.and_then(|at| groups.get(at)).copied().unwrap_or(0)
    };
    let begun = out.len();
    for power in (0..=weight).rev() {
        push_group(group(power), out);
    }
    let zeros = out[begun..]
        .iter()
        .take_while(|digit| **digit == b'0')
        .count();
    out.drain(begun..begun + zeros);
    if out.len() == begun {
        out.push(b'0');
    }
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + scale;
        let mut power = -1;
        while out.len() < end {
            push_group(group(power), out);
            power -= 1;
        }
        out.truncate(end);
    }
    Some(())
}

fn push_group(group: u16, out: &mut Vec<u8>) {
    for unit in [1000, 100, 10, 1] {
        // At most 9: a group is at most 9999.
        out.push(b'0' + (group / unit % 10) as u8);
    }
}

/// A decimal number: `0.DIGITS` times ten to the power of `point`, printed with `scale` decimals.
pub(super) struct Decimal {
    negative: bool,
    /// ASCII, without zeros at either end. Empty for zero.
    digits: Vec<u8>,
    point: i64,
    scale: i64,
}

impl Decimal {
    /// Reads a number that is written as in JSON. `None` if it is not one, or if its exponent is
    /// beyond every database's.
    pub(super) fn parse(text: &str) -> Option<Decimal> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (whole, decimals) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        if whole.is_empty() || exponent.unsigned_abs() > 1 << 40 {
            return None;
        }
        let mut digits: Vec<u8> = whole.bytes().chain(decimals.bytes()).collect();
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let scale = i64::try_from(decimals.len()).ok()? - exponent;
        let mut point = i64::try_from(whole.len()).ok()? + exponent;
        let zeros = digits.iter().take_while(|c| **c == b'0').count();
        digits.drain(..zeros);
        point -= i64::try_from(zeros).ok()?;
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            point = 0;
        }
        Some(Decimal {
            negative,
            digits,
            point,
            scale: scale.max(0),
        })
    }

    /// Its value if that is a whole number that an i64 holds.
    pub(super) fn whole(&self) -> Option<i64> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let length = usize::try_from(self.point).ok()?;
        if length < self.digits.len() || length > 19 {
            return None;
        }
        let mut whole: i128 = 0;
        for at in 0..length {
            let digit = self.digits.get(at).map_or(0, |c| c - b'0');
            whole = whole * 10 + i128::from(digit);
        }
        i64::try_from(if self.negative { -whole } else { whole }).ok()
    }

    /// Its text without an exponent and without trailing zeros.
    pub(super) fn plain(&self) -> String {
        let digits = String::from_utf8_lossy(&self.digits);
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
        let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let number = match usize::try_from(self.point) {
            _ if digits.is_empty() => return "0".to_owned(),
            Ok(point @ 1..) if point < digits.len() => {
                format!("{}.{}", &digits[..point], &digits[point..])
            }
            Ok(1..) => format!("{digits}{}", zeros(self.point - length)),
            _ => format!("0.{}{digits}", zeros(-self.point)),
        };
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}{number}")
    }

    /// Appends its binary format. `None`, with nothing appended, if Postgres could not hold it.
    pub(super) fn encode(&self, out: &mut impl Extend<u8>) -> Option<()> {
        if self.point > MAX_INTEGER_DIGITS || self.scale > MAX_SCALE {
            return None;
        }
        let weight = (self.point + 3).div_euclid(4) - 1;
        let lead = usize::try_from((weight + 1) * 4 - self.point).ok()?;
        let mut digits = vec![0; lead];
        digits.extend(self.digits.iter().map(|c| u16::from(c - b'0')));
        let groups: Vec<u16> = digits
            .chunks(4)
            .map(|four| (0..4).fold(0, |sum, at| sum * 10 + four.get(at).copied().unwrap_or(0)))
            .collect();
        let groups = if self.digits.is_empty() {
            &[][..]
        } else {
            &groups
        };
        let sign = if self.negative && !self.digits.is_empty() {
            NEGATIVE
        } else {
            0
        };
        let head = [
            u16::try_from(groups.len()).ok()?,
            // Signed, in the same sixteen bits.
            i16::try_from(weight).ok()? as u16,
            sign,
            u16::try_from(self.scale).ok()?,
        ];
        for number in head.iter().chain(groups) {
            out.extend(number.to_be_bytes());
        }
        Some(())
    }
}

/// Appends the binary format of `NaN`, `Infinity` or `-Infinity`. `None` for any other text.
pub(super) fn encode_special(text: &str, out: &mut impl Extend<u8>) -> Option<()> {
    let sign = match text {
        "NaN" => NAN,
        "Infinity" => INFINITY,
        "-Infinity" => MINUS_INFINITY,
        _ => return None,
    };
    for number in [0, 0, sign, 0] {
        out.extend(u16::to_be_bytes(number));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways(text: &str) -> Option<String> {
        let mut raw = Vec::new();
        Decimal::parse(text)?.encode(&mut raw)?;
        let mut reader = Reader(&raw);
        let mut out = Vec::new();
        decode(&mut reader, &mut out).unwrap();
        assert!(reader.0.is_empty(), "{text}");
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_digit_is_kept() {
        let long = "9".repeat(131_072);
        let small = format!("0.{}1", "0".repeat(16_382));
        for text in [
            "0",
            "1",
            "-1",
            "10",
            "9999",
            "10000",
            "123456789.000100",
            "0.00",
            "0.5",
            "0.00001",
            "-0.1230",
            "100000000",
            "12345678901234567890.12345678901234567890",
            &long,
            &small,
        ] {
            assert_eq!(both_ways(text).as_deref(), Some(text));
        }
        for (text, expected) in [
            ("-0", "0"),
            ("-0.000", "0.000"),
            ("1e3", "1000"),
            ("1.50e1", "15.0"),
            ("1.5E-3", "0.0015"),
            ("12e-1", "1.2"),
            ("0e-5", "0.00000"),
            ("1e+2", "100"),
        ] {
            assert_eq!(both_ways(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(
            both_ways("1e-400").unwrap(),
            format!("0.{}1", "0".repeat(399))
        );
    }

    #[test]
    fn what_postgres_could_not_hold_is_refused_at_once() {
        for text in [
            "1e131072",
            "1e-16384",
            "1e999999999999999999999",
            "1e-999999999999",
            "9223372036854775807e9223372036854775807",
            "",
            "-",
            "1.",
            ".5",
            "1e",
            "0x1",
            "1 ",
            "+1",
            "--1",
            "é",
        ] {
            assert_eq!(both_ways(text), None, "{text}");
        }
    }

    #[test]
    fn a_whole_number_is_known_in_any_form() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("1.0", Some(1)),
            ("1e3", Some(1000)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("1e30", None),
            ("1.5", None),
            ("0.001", None),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().whole(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_number_or_refused(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let mut out = Vec::new();
            if decode(&mut Reader(&raw), &mut out).is_some() {
                proptest::prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&out).is_ok());
            }
        }

        #[test]
        fn any_text_is_survived(text in "[-+.eE0-9]{0,12}") {
            if let Some(written) = both_ways(&text) {
                proptest::prop_assert_eq!(both_ways(&written), Some(written.clone()));
            }
        }
    }
}
