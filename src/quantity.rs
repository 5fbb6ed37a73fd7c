//! Quantities as people write them: durations (`250ms`, `30s`, `5m`, `1h`, `1d`), sizes (`64KiB`,
//! `256MiB`), rates (`600/1m`).
//!
//! Promise: the text that `format_*` or `Display` writes parses to the same quantity. A unit is
//! never guessed: a number without a unit is an error, even zero.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The format that `parse_duration` accepts, for error messages.
pub const DURATION_FORM: &str = "a duration such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"1d\"";
/// The format that `parse_size` accepts, for error messages.
pub const SIZE_FORM: &str = "a size such as \"64KiB\", \"256MiB\" or \"1GiB\"";
/// The format that `Rate::from_str` accepts, for error messages.
pub const RATE_FORM: &str = "a rate such as \"600/1m\": a count, a slash and a duration";

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
/// A hundred years. A longer duration is a typing error, and sums of such durations could overflow.
const LONGEST_MS: u64 = 100 * 365 * 86_400_000;

/// Parses a whole number of a unit from milliseconds to days. `None` if the text is not in this
/// format, or longer than a hundred years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let ms = parse_units(text, &DURATION_UNITS)?;
    (ms <= LONGEST_MS).then(|| Duration::from_millis(ms))
}

/// Parses a size in binary units and returns bytes. `None` if the text is not in this format.
pub fn parse_size(text: &str) -> Option<u64> {
    parse_units(text, &SIZE_UNITS)
}

fn parse_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Writes a duration in the largest unit that divides it: `90s`, `2m`, `1d`. Fractions of a
/// millisecond are cut off.
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let (unit, factor) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| ms % factor == 0)
        .unwrap_or(&DURATION_UNITS[0]);
    format!("{}{unit}", ms / factor)
}

/// Writes a size in the largest unit that divides it: `64KiB`, `1000B`.
pub fn format_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{unit}", bytes / factor)
}

/// A count per duration: a rate limit or a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// Greater than zero.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = ();

    fn from_str(text: &str) -> Result<Rate, ()> {
        let (count, per) = text.split_once('/').ok_or(())?;
        let rate = Rate {
            count: count.parse().map_err(|_| ())?,
            per: parse_duration(per).ok_or(())?,
        };
        if rate.count == 0 || rate.per.is_zero() {
            Err(())
        } else {
            Ok(rate)
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, format_duration(self.per))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_go_both_ways() {
        for text in ["250ms", "30s", "5m", "1h", "1d", "90s", "0s", "1500ms"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for wrong in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "1.5s",
            "5S",
            "1w",
            "99999999999999999999s",
            "99999999d",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_go_both_ways() {
        for text in ["64KiB", "256MiB", "1GiB", "1000B", "0B"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        for wrong in ["", "64", "64KB", "64kib", "-1B", "99999999999GiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_go_both_ways() {
        for text in ["600/1m", "100/1d", "1/1s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for wrong in ["", "600", "0/1m", "5/0s", "-1/1s", "5/1", "/1s", "5/"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
