//! Dates of HTTP, in their three forms (RFC 9110, section 5.6.7).

use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

const IMF_FIXDATE: &str = "%a, %d %b %Y %H:%M:%S GMT";
const ASCTIME: &str = "%a %b %e %H:%M:%S %Y";
const RFC_850: &str = "%A, %d-%b-%y %H:%M:%S GMT";
/// Some upstreams send the date of a mail, with a zone.
const MAIL: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new().relaxed_weekday(true);

/// The instant of a date. `None` if `text` is not a date of HTTP. `now` decides the century of a
/// year with two digits. The weekday is not checked.
pub(in crate::source) fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    let read = |form| {
        let mut date = BrokenDownTime::parse(form, text).ok()?;
        date.set_weekday(None);
        Some(date)
    };
    if let Some(date) = read(IMF_FIXDATE).or_else(|| read(ASCTIME)) {
        return Some(utc(date.to_datetime().ok()?));
    }
    if let Some(date) = read(RFC_850) {
        return Some(utc(with_century(date, utc_now(now))?));
    }
    MAIL.parse_timestamp(text).ok()
}

/// The date of a year with two digits. One that appears to be more than 50 years ahead is in the
/// most recent past year with the same digits.
fn with_century(mut date: BrokenDownTime, now: DateTime) -> Option<DateTime> {
    let latest = now.saturating_add(50.years());
    let ahead = now.year() / 100 * 100 + 100 + date.year()?.rem_euclid(100);
    (0..3).find_map(|centuries| {
        date.set_year(Some(ahead - 100 * centuries)).ok()?;
        let civil = date.to_datetime().ok()?;
        (civil <= latest).then_some(civil)
    })
}

fn utc_now(now: Timestamp) -> DateTime {
    now.to_zoned(TimeZone::UTC).datetime()
}

/// The last days of the year 9999, which some use for "never", are beyond the last [`Timestamp`].
/// They become the last one.
fn utc(civil: DateTime) -> Timestamp {
    civil
        .to_zoned(TimeZone::UTC)
        .map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Option<String> {
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        parse(text, now).map(|instant| instant.to_string())
    }

    #[test]
    fn the_three_forms_are_one_instant() {
        for same in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
            // Another zone, and a wrong weekday.
            "Sun, 6 Nov 1994 09:49:37 +0100",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Monday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(at(same).as_deref(), Some("1994-11-06T08:49:37Z"), "{same}");
        }
        for for_ever in ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri Dec 31 23:59:59 9999"] {
            assert_eq!(at(for_ever), Some(Timestamp::MAX.to_string()));
        }
        assert_eq!(
            at("Fri Nov 27 08:49:37 2026").as_deref(),
            Some("2026-11-27T08:49:37Z")
        );
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        for (year, date) in [
            ("26", "2026-11-27"),
            ("27", "2027-11-27"),
            ("69", "2069-11-27"),
            ("75", "2075-11-27"),
            ("77", "1977-11-27"),
            ("99", "1999-11-27"),
            ("00", "2000-11-27"),
        ] {
            let text = format!("Friday, 27-Nov-{year} 00:00:00 GMT");
            assert_eq!(at(&text), Some(format!("{date}T00:00:00Z")), "{year}");
        }
        // To the second, and in a century without this day.
        let leap = at("Tuesday, 29-Feb-00 00:00:00 GMT");
        assert_eq!(leap.as_deref(), Some("2000-02-29T00:00:00Z"));
        let (in_time, late) = ("12:00:00", "12:00:01");
        let year = |time| at(&format!("Friday, 27-Nov-76 {time} GMT")).unwrap()[..4].to_owned();
        assert_eq!((year(in_time), year(late)), ("2076".into(), "1976".into()));
    }

    proptest! {
        #[test]
        fn each_form_gives_back_what_was_written(second in 0_i64..100 * 365 * 86_400, text in ".*") {
            let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
            // From 1977 on, so that two digits are enough.
            let at = Timestamp::from_second(221_000_000 + second).unwrap();
            for form in [IMF_FIXDATE, ASCTIME, RFC_850] {
                let written = at.strftime(form).to_string();
                let expected = (form != RFC_850 || at < now + 438_000.hours()).then_some(at);
                let read = parse(&written, now);
                prop_assert!(expected.is_none() || read == expected, "{} {:?}", written, read);
            }
            let _ = parse(&text, now);
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "soon",
            "1994-11-06T08:49:37Z",
            "Sunday, 06-Nov-94 08:49:37",
            "Sunday, 31-Feb-94 08:49:37 GMT",
            "Sun Nov 31 08:49:37 1994",
            "Sun Nov  6 25:49:37 1994",
            "Sunday, 06-Nov-94 08:49:37 GMT and more",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
