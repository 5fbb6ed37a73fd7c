//! Intervals: months, days and microseconds in Postgres, an ISO 8601 duration in JSON.

use super::calendar::{HOUR, MINUTE, SECOND, TextReader, fraction};
use super::reader::Reader;

/// An ISO 8601 duration in which each part has its own sign, as Postgres's style `iso_8601` has it.
pub(super) fn decode(raw: &mut Reader<'_>) -> Option<String> {
    let (micros, days, months) = (raw.i64()?, raw.i32()?, raw.i32()?);
    match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => return Some("infinity".to_owned()),
        (i64::MIN, i32::MIN, i32::MIN) => return Some("-infinity".to_owned()),
        (0, 0, 0) => return Some("PT0S".to_owned()),
        _ => {}
    }
    let mut text = "P".to_owned();
    let part = |text: &mut String, number: i64, unit: char| {
        if number != 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    };
    part(&mut text, (months / 12).into(), 'Y');
    part(&mut text, (months % 12).into(), 'M');
    part(&mut text, days.into(), 'D');
    if micros != 0 {
        text.push('T');
        part(&mut text, micros / HOUR, 'H');
        part(&mut text, micros % HOUR / MINUTE, 'M');
        let rest = micros % MINUTE;
        if rest != 0 {
            let sign = if rest < 0 { "-" } else { "" };
            let seconds = rest.abs() / SECOND;
            text.push_str(&format!(
                "{sign}{seconds}{}S",
                fraction(rest.abs() % SECOND)
            ));
        }
    }
    Some(text)
}

/// Reads an ISO 8601 duration. Each part may have a sign, only the seconds may have decimals.
pub(super) fn encode(text: &str) -> Option<[u8; 16]> {
    let (dates, times) = match text.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text.strip_prefix('P')?, ""),
    };
    if dates.is_empty() && times.is_empty() {
        return None;
    }
    let (mut months, mut days, mut micros) = (0_i64, 0_i64, 0_i64);
    for (part, units) in [(dates, "YMWD"), (times, "HMS")] {
        let mut rest = TextReader(part);
        let mut last = None;
        while !rest.0.is_empty() {
            let negative = rest.skips(&['-']);
            let length = rest.0.bytes().take_while(u8::is_ascii_digit).count();
            let mut number: i64 = rest.0[..length].parse().ok()?;
            rest.0 = &rest.0[length..];
            let mut decimals = rest.fraction()?;
            if negative {
                (number, decimals) = (-number, -decimals);
            }
            let unit = rest.0.chars().next()?;
            let at = units.find(unit)?;
            // Each unit stands once, and in order.
            if last >= Some(at) || (decimals != 0 && unit != 'S') {
                return None;
            }
            last = Some(at);
            rest.0 = &rest.0[1..];
            let (sum, each) = match (units, unit) {
                ("YMWD", 'Y') => (&mut months, 12),
                ("YMWD", 'M') => (&mut months, 1),
                (_, 'W') => (&mut days, 7),
                (_, 'D') => (&mut days, 1),
                (_, 'H') => (&mut micros, HOUR),
                (_, 'M') => (&mut micros, MINUTE),
                _ => (&mut micros, SECOND),
            };
            *sum = sum.checked_add(number.checked_mul(each)?.checked_add(decimals)?)?;
        }
    }
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&micros.to_be_bytes());
    raw[8..12].copy_from_slice(&i32::try_from(days).ok()?.to_be_bytes());
    raw[12..].copy_from_slice(&i32::try_from(months).ok()?.to_be_bytes());
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_each_part_once_and_in_order() {
        for wrong in [
            "", "P", "PT", "P1", "1D", "P1H", "PT1D", "P1.5D", "P1D1Y", "P1D1D", "PT1.S",
        ] {
            assert_eq!(encode(wrong), None, "{wrong}");
        }
        for text in [
            "P1Y2M3DT4H5M6.7S",
            "PT0S",
            "P-1Y",
            "PT-0.000001S",
            "PT-1H-1M",
        ] {
            let raw = encode(text).unwrap();
            assert_eq!(decode(&mut Reader(&raw)).as_deref(), Some(text));
        }
        assert_eq!(encode("P1W"), encode("P7D"));
    }

    proptest::proptest! {
        #[test]
        fn every_interval_is_read_back(raw in proptest::array::uniform16(proptest::num::u8::ANY)) {
            let text = decode(&mut Reader(&raw)).unwrap();
            proptest::prop_assert_eq!(encode(&text), Some(raw), "{}", text);
        }

        #[test]
        fn any_text_is_survived(text in "P?[-TYMWDHS.0-9é]{0,16}") {
            if let Some(raw) = encode(&text) {
                let decoded = decode(&mut Reader(&raw)).unwrap();
                proptest::prop_assert_eq!(encode(&decoded), Some(raw));
            }
        }
    }
}
