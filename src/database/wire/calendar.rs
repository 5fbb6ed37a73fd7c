//! Dates and times: Postgres counts from 2000, JSON has the text of RFC 3339 and ISO 8601.
//!
//! Promise: every date of Postgres has a text, and that text reads back as the same date. RFC 3339
//! ends at the years 0000 and 9999. Beyond them a year is written with a sign and six digits, as
//! ISO 8601 extends it: 1 BC is 0000, 2 BC is -000001. The two infinite values are `infinity` and
//! `-infinity`. A text that says less or more than its type holds is refused: a date without its
//! time for a `timestamptz`, an offset for a `timestamp`, fractions of a microsecond.

use super::reader::Reader;

/// Days from 1970-01-01 to 2000-01-01, which is day zero for Postgres.
const POSTGRES_DAY_ZERO: i64 = 10_957;
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The year, month and day of a day that is counted from 1970-01-01, in the proleptic Gregorian
/// calendar. This is `civil_from_days` of Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", <https://howardhinnant.github.io/date_algorithms.html>.
fn civil_from_days(day: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that a leap day is the last day of its year. An era of 400 years
    // has 146097 days.
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_from_days`]: `days_from_civil` of the same source.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

fn date_text(day: i64) -> String {
    let (year, month, day) = civil_from_days(day);
    if (0..=9999).contains(&year) {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{year:+07}-{month:02}-{day:02}")
    }
}

pub(super) fn fraction(micros: i64) -> String {
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

/// A time of day, up to 24:00:00.
fn clock_text(micros: i64) -> String {
    let (hours, minutes) = (micros / HOUR, micros % HOUR / MINUTE);
    let seconds = micros % MINUTE / SECOND;
    let rest = fraction(micros % SECOND);
    format!("{hours:02}:{minutes:02}:{seconds:02}{rest}")
}

pub(super) fn decode_date(raw: &mut Reader<'_>) -> Option<String> {
    Some(match raw.i32()? {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => date_text(POSTGRES_DAY_ZERO + i64::from(days)),
    })
}

/// `zone` follows the text: nothing, or `Z`.
pub(super) fn decode_timestamp(raw: &mut Reader<'_>, zone: &str) -> Option<String> {
    Some(match raw.i64()? {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let date = date_text(POSTGRES_DAY_ZERO + micros.div_euclid(DAY));
            format!("{date}T{}{zone}", clock_text(micros.rem_euclid(DAY)))
        }
    })
}

pub(super) fn decode_time(raw: &mut Reader<'_>) -> Option<String> {
    let micros = raw.i64()?;
    (0..=DAY).contains(&micros).then(|| clock_text(micros))
}

pub(super) fn decode_time_with_offset(raw: &mut Reader<'_>) -> Option<String> {
    let clock = decode_time(raw)?;
    // Postgres counts the seconds west of UTC.
    let east = -i64::from(raw.i32()?);
    let sign = if east < 0 { '-' } else { '+' };
    let (hours, minutes, seconds) = (east.abs() / 3600, east.abs() % 3600 / 60, east.abs() % 60);
    let seconds = match seconds {
        0 => String::new(),
        seconds => format!(":{seconds:02}"),
    };
    Some(format!("{clock}{sign}{hours:02}:{minutes:02}{seconds}"))
}

/// The text that is left to read. Every method that returns an option returns `None` if the text
/// does not begin with what it reads.
pub(super) struct TextReader<'a>(pub(super) &'a str);

impl TextReader<'_> {
    /// Skips one of these characters. Returns whether it was there.
    pub(super) fn skips(&mut self, any: &[char]) -> bool {
        let rest = self.0.strip_prefix(any);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A number of exactly `length` digits, between `from` and `to`.
    fn number(&mut self, length: usize, from: i64, to: i64) -> Option<i64> {
        let digits = self.0.get(..length)?;
        if !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        self.0 = &self.0[length..];
        digits.parse().ok().filter(|n| (from..=to).contains(n))
    }

    /// The decimals of a second, in microseconds. 0 if the text does not begin with a point.
    pub(super) fn fraction(&mut self) -> Option<i64> {
        if !self.skips(&['.']) {
            return Some(0);
        }
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let kept = digits.trim_end_matches('0');
        (length > 0 && kept.len() <= 6).then(|| format!("{kept:0<6}").parse().ok())?
    }

    /// A date, as days since 1970-01-01.
    fn date(&mut self) -> Option<i64> {
        let signed = self.0.starts_with(['+', '-']);
        let negative = self.0.starts_with('-');
        let year = if signed {
            self.0 = &self.0[1..];
            let length = self.0.find('-')?;
            let year = self.number(length.clamp(6, 7), 0, 9_999_999)?;
            if negative { -year } else { year }
        } else {
            self.number(4, 0, 9999)?
        };
        let month = self.skips(&['-']).then(|| self.number(2, 1, 12))??;
        let day = self.skips(&['-']).then(|| self.number(2, 1, 31))??;
        let number = days_from_civil(year, month, day);
        // A date that does not exist, such as the 31st of April, comes back as another one.
        (civil_from_days(number) == (year, month, day)).then_some(number)
    }

    /// A time of day, in microseconds. A leap second is the first moment of the next minute.
    fn clock(&mut self) -> Option<i64> {
        let hours = self.number(2, 0, 24)?;
        let minutes = self.skips(&[':']).then(|| self.number(2, 0, 59))??;
        let seconds = if self.skips(&[':']) {
            self.number(2, 0, 60)? * SECOND + self.fraction()?
        } else {
            0
        };
        let micros = hours * HOUR + minutes * MINUTE + seconds;
        (micros <= DAY).then_some(micros)
    }

    /// An offset from UTC, in seconds east.
    fn offset(&mut self) -> Option<i64> {
        if self.skips(&['Z', 'z']) {
            return Some(0);
        }
        let negative = self.0.starts_with('-');
        if !self.skips(&['+', '-']) {
            return None;
        }
        let hours = self.number(2, 0, 15)?;
        let minutes = self.skips(&[':']).then(|| self.number(2, 0, 59))??;
        let seconds = if self.skips(&[':']) {
            self.number(2, 0, 59)?
        } else {
            0
        };
        let offset = hours * 3600 + minutes * 60 + seconds;
        Some(if negative { -offset } else { offset })
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

pub(super) fn encode_date(text: &str) -> Option<[u8; 4]> {
    let days = match text {
        "infinity" => i32::MAX,
        "-infinity" => i32::MIN,
        _ => {
            let mut text = TextReader(text);
            let day = text.date()?;
            text.end()?;
            i32::try_from(day - POSTGRES_DAY_ZERO).ok()?
        }
    };
    Some(days.to_be_bytes())
}

/// Whether the text of a timestamp has an offset from UTC.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Offset {
    Required,
    Refused,
}

pub(super) fn encode_timestamp(text: &str, offset: Offset) -> Option<[u8; 8]> {
    let micros = match text {
        "infinity" => i64::MAX,
        "-infinity" => i64::MIN,
        _ => {
            let mut text = TextReader(text);
            let day = text.date()? - POSTGRES_DAY_ZERO;
            let mut micros = 0;
            // A date alone means its midnight.
            if offset == Offset::Required || text.end().is_none() {
                micros = text.skips(&['T', 't', ' ']).then(|| text.clock())??;
            }
            if offset == Offset::Required {
                micros -= text.offset()? * SECOND;
            }
            text.end()?;
            day.checked_mul(DAY)?.checked_add(micros)?
        }
    };
    Some(micros.to_be_bytes())
}

pub(super) fn encode_time(text: &str) -> Option<[u8; 8]> {
    let mut text = TextReader(text);
    let micros = text.clock()?;
    text.end()?;
    Some(micros.to_be_bytes())
}

pub(super) fn encode_time_with_offset(text: &str) -> Option<([u8; 8], [u8; 4])> {
    let mut text = TextReader(text);
    let micros = text.clock()?;
    let west = i32::try_from(-text.offset()?).ok()?;
    text.end()?;
    Some((micros.to_be_bytes(), west.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        for (day, expected) in [
            (0, "1970-01-01"),
            (10_957, "2000-01-01"),
            (11_016, "2000-02-29"),
            (-719_528, "0000-01-01"),
            (-719_529, "-000001-12-31"),
            (2_932_897, "+010000-01-01"),
        ] {
            assert_eq!(date_text(day), expected);
            assert_eq!(TextReader(expected).date(), Some(day), "{expected}");
        }
        for wrong in [
            "2001-02-29",
            "2001-13-01",
            "2001-1-1",
            "20010101",
            "+1-01-01",
            "é",
        ] {
            assert_eq!(TextReader(wrong).date(), None, "{wrong}");
        }
    }

    #[test]
    fn a_text_says_no_more_and_no_less_than_its_type() {
        use Offset::{Refused, Required};
        for (text, offset, good) in [
            ("2026-03-01T00:00:01Z", Required, true),
            ("2026-03-01 00:00+05:30", Required, true),
            ("2026-03-01T00:00:01", Required, false),
            ("2026-03-01", Required, false),
            ("2026-03-01", Refused, true),
            ("2026-03-01T00:00:01.1234560", Refused, true),
            ("2026-03-01T00:00:01.1234567", Refused, false),
            ("2026-03-01T00:00:01Z", Refused, false),
            ("2026-03-01T25:00:00", Refused, false),
            ("2026-03-01T24:00:01", Refused, false),
            ("infinity", Required, true),
        ] {
            assert_eq!(encode_timestamp(text, offset).is_some(), good, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_moment_is_read_back(micros in -211_813_488_000_000_000_i64..9_223_371_331_200_000_000) {
            let raw = micros.to_be_bytes();
            let text = decode_timestamp(&mut Reader(&raw), "Z").unwrap();
            proptest::prop_assert_eq!(encode_timestamp(&text, Offset::Required), Some(raw), "{}", text);
        }

        #[test]
        fn any_text_is_survived(text in "[-+TZ:.0-9é]{0,24}") {
            let _ = (encode_time_with_offset(&text), encode_time(&text));
            let _ = (encode_timestamp(&text, Offset::Required), encode_date(&text));
        }

        #[test]
        fn any_bytes_are_survived(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..20)) {
            let _ = (decode_date(&mut Reader(&raw)), decode_timestamp(&mut Reader(&raw), ""));
            let _ = decode_time_with_offset(&mut Reader(&raw));
        }
    }
}
