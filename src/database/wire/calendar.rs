//! Dates and times: Postgres counts from 2000, JSON has the text of RFC 3339 and ISO 8601.
//!
//! Promise: every date that Postgres has gets a text, and the same text is read back. A year before 0000 or after 9999, which
//! RFC 3339 does not have, is written with a sign and six digits, as ISO 8601 extends it: 1 BC is 0000, 2 BC is -000001. What has
//! no end is `infinity` or `-infinity`. Refuses a text that says less or more than the type holds: a day without its time for a
//! `timestamptz`, an offset for a `timestamp`, parts of a microsecond.

use super::Reader;

/// Days from 1970-01-01 to 2000-01-01, where Postgres begins to count.
const POSTGRES_DAY_ZERO: i64 = 10_957;
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The day with this number, counted from 1970, in the Gregorian calendar: year, month, day.
fn civil(day: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day ends a year: 400 years are 146097 days.
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

/// The number of that day; the inverse of `civil`.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

fn date_text(day: i64) -> String {
    let (year, month, day) = civil(day);
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

pub(super) fn date(raw: &mut Reader<'_>) -> Option<String> {
    Some(match raw.i32()? {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => date_text(POSTGRES_DAY_ZERO + i64::from(days)),
    })
}

/// With `end` behind it: nothing, or `Z`.
pub(super) fn timestamp(raw: &mut Reader<'_>, end: &str) -> Option<String> {
    Some(match raw.i64()? {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let date = date_text(POSTGRES_DAY_ZERO + micros.div_euclid(DAY));
            format!("{date}T{}{end}", clock_text(micros.rem_euclid(DAY)))
        }
    })
}

pub(super) fn time(raw: &mut Reader<'_>) -> Option<String> {
    let micros = raw.i64()?;
    (0..=DAY).contains(&micros).then(|| clock_text(micros))
}

pub(super) fn time_with_offset(raw: &mut Reader<'_>) -> Option<String> {
    let clock = time(raw)?;
    // Postgres counts to the west.
    let east = -i64::from(raw.i32()?);
    let sign = if east < 0 { '-' } else { '+' };
    let (hours, minutes, seconds) = (east.abs() / 3600, east.abs() % 3600 / 60, east.abs() % 60);
    let seconds = match seconds {
        0 => String::new(),
        seconds => format!(":{seconds:02}"),
    };
    Some(format!("{clock}{sign}{hours:02}:{minutes:02}{seconds}"))
}

/// Text that is read from its beginning.
pub(super) struct Text<'a>(pub(super) &'a str);

impl Text<'_> {
    pub(super) fn takes(&mut self, any: &[char]) -> bool {
        let rest = self.0.strip_prefix(any);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A number of that many digits, within limits.
    fn number(&mut self, length: usize, from: i64, to: i64) -> Option<i64> {
        let digits = self.0.get(..length)?;
        if !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        self.0 = &self.0[length..];
        digits.parse().ok().filter(|n| (from..=to).contains(n))
    }

    /// The digits behind a point, in microseconds; 0 if no point comes.
    pub(super) fn fraction(&mut self) -> Option<i64> {
        if !self.takes(&['.']) {
            return Some(0);
        }
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let kept = digits.trim_end_matches('0');
        (length > 0 && kept.len() <= 6).then(|| format!("{kept:0<6}").parse().ok())?
    }

    /// The number of the day.
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
        let month = self.takes(&['-']).then(|| self.number(2, 1, 12))??;
        let day = self.takes(&['-']).then(|| self.number(2, 1, 31))??;
        let number = day_number(year, month, day);
        // The 31st of a month that has none is another day.
        (civil(number) == (year, month, day)).then_some(number)
    }

    /// Microseconds of the day; a leap second counts as the next one's begin.
    fn clock(&mut self) -> Option<i64> {
        let hours = self.number(2, 0, 24)?;
        let minutes = self.takes(&[':']).then(|| self.number(2, 0, 59))??;
        let seconds = if self.takes(&[':']) {
            self.number(2, 0, 60)? * SECOND + self.fraction()?
        } else {
            0
        };
        let micros = hours * HOUR + minutes * MINUTE + seconds;
        (micros <= DAY).then_some(micros)
    }

    /// Seconds to the east.
    fn offset(&mut self) -> Option<i64> {
        if self.takes(&['Z', 'z']) {
            return Some(0);
        }
        let negative = self.0.starts_with('-');
        if !self.takes(&['+', '-']) {
            return None;
        }
        let hours = self.number(2, 0, 15)?;
        let minutes = self.takes(&[':']).then(|| self.number(2, 0, 59))??;
        let seconds = if self.takes(&[':']) {
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

pub(super) fn date_from(text: &str) -> Option<[u8; 4]> {
    let days = match text {
        "infinity" => i32::MAX,
        "-infinity" => i32::MIN,
        _ => {
            let mut text = Text(text);
            let day = text.date()?;
            text.end()?;
            i32::try_from(day - POSTGRES_DAY_ZERO).ok()?
        }
    };
    Some(days.to_be_bytes())
}

/// Whether a timestamp says how far it is from UTC.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Offset {
    Needed,
    Refused,
}

pub(super) fn timestamp_from(text: &str, offset: Offset) -> Option<[u8; 8]> {
    let micros = match text {
        "infinity" => i64::MAX,
        "-infinity" => i64::MIN,
        _ => {
            let mut text = Text(text);
            let day = text.date()? - POSTGRES_DAY_ZERO;
            let mut micros = 0;
            // A day alone is its midnight.
            if offset == Offset::Needed || text.end().is_none() {
                micros = text.takes(&['T', 't', ' ']).then(|| text.clock())??;
            }
            if offset == Offset::Needed {
                micros -= text.offset()? * SECOND;
            }
            text.end()?;
            day.checked_mul(DAY)?.checked_add(micros)?
        }
    };
    Some(micros.to_be_bytes())
}

pub(super) fn time_from(text: &str) -> Option<[u8; 8]> {
    let mut text = Text(text);
    let micros = text.clock()?;
    text.end()?;
    Some(micros.to_be_bytes())
}

pub(super) fn time_with_offset_from(text: &str) -> Option<([u8; 8], [u8; 4])> {
    let mut text = Text(text);
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
        for (day, wanted) in [
            (0, "1970-01-01"),
            (10_957, "2000-01-01"),
            (11_016, "2000-02-29"),
            (-719_528, "0000-01-01"),
            (-719_529, "-000001-12-31"),
            (2_932_897, "+010000-01-01"),
        ] {
            assert_eq!(date_text(day), wanted);
            assert_eq!(Text(wanted).date(), Some(day), "{wanted}");
        }
        for wrong in [
            "2001-02-29",
            "2001-13-01",
            "2001-1-1",
            "20010101",
            "+1-01-01",
            "é",
        ] {
            assert_eq!(Text(wrong).date(), None, "{wrong}");
        }
    }

    #[test]
    fn a_text_says_no_more_and_no_less_than_its_type() {
        use Offset::{Needed, Refused};
        for (text, offset, good) in [
            ("2026-03-01T00:00:01Z", Needed, true),
            ("2026-03-01 00:00+05:30", Needed, true),
            ("2026-03-01T00:00:01", Needed, false),
            ("2026-03-01", Needed, false),
            ("2026-03-01", Refused, true),
            ("2026-03-01T00:00:01.1234560", Refused, true),
            ("2026-03-01T00:00:01.1234567", Refused, false),
            ("2026-03-01T00:00:01Z", Refused, false),
            ("2026-03-01T25:00:00", Refused, false),
            ("2026-03-01T24:00:01", Refused, false),
            ("infinity", Needed, true),
        ] {
            assert_eq!(timestamp_from(text, offset).is_some(), good, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_moment_is_read_back(micros in -211_813_488_000_000_000_i64..9_223_371_331_200_000_000) {
            let raw = micros.to_be_bytes();
            let text = timestamp(&mut Reader(&raw), "Z").unwrap();
            proptest::prop_assert_eq!(timestamp_from(&text, Offset::Needed), Some(raw), "{}", text);
        }

        #[test]
        fn any_text_is_survived(text in "[-+TZ:.0-9é]{0,24}") {
            let _ = (time_with_offset_from(&text), time_from(&text));
            let _ = (timestamp_from(&text, Offset::Needed), date_from(&text));
        }

        #[test]
        fn any_bytes_are_survived(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..20)) {
            let _ = (date(&mut Reader(&raw)), timestamp(&mut Reader(&raw), ""));
            let _ = time_with_offset(&mut Reader(&raw));
        }
    }
}
