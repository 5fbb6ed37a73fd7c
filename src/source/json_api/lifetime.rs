//! The freshness lifetime of an answer, by its headers (RFC 9111).
//!
//! larder is a shared cache: `s-maxage` goes before `max-age`, and a `private` answer is not
//! stored. An answer without a lifetime is not fresh: larder does not guess one, though section
//! 4.2.2 allows that. A lifetime that cannot be read counts as zero. `stale-while-revalidate` and
//! `stale-if-error` of an upstream are ignored: the resource declares when a stale value may be
//! served, and `must-revalidate`, `proxy-revalidate`, `no-cache` and `s-maxage` forbid it.
//!
//! Section 3.5, on requests with `Authorization`, is not followed: the key belongs to the operator,
//! who has declared that all readers get the same answer.

use std::time::Duration;

use jiff::Timestamp;
use ureq::http::HeaderMap;

use super::super::http::date;
use super::super::http::field::list;
use larder_cache::Lifetime;

/// The longest lifetime, in seconds (RFC 9111, section 1.2.2).
const LONGEST: u64 = 1 << 31;

/// The lifetime of an answer. `cache_control` is the header that holds, which a 304 need not
/// repeat; the others are in `headers`. `took` is the duration of the call. `now` stands for `Date`
/// if the answer has none.
pub(super) fn of(
    cache_control: &str,
    headers: &HeaderMap,
    took: Duration,
    now: Timestamp,
) -> Lifetime {
    let directives = Directives::read(cache_control);
    let varies = list(headers, "vary");
    if directives.stored == Stored::Never || varies.split(',').any(|name| name.trim() == "*") {
        return Lifetime::NoStore;
    }
    let fresh_for = match directives.shared_age.or(directives.age) {
        _ if directives.stored == Stored::Revalidated => Duration::ZERO,
        Some(age) => age.unwrap_or_default(),
        None => expires(headers, now),
    };
    // The time in other caches and on the way counts.
    let left = fresh_for.saturating_sub(age(headers)).saturating_sub(took);
    if directives.strict || directives.shared_age.is_some() {
        Lifetime::MustRevalidate(left)
    } else {
        Lifetime::MaxAge(left)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Yes,
    /// Only to be revalidated before each use.
    Revalidated,
    Never,
}

/// The directives of `Cache-Control` that larder follows.
struct Directives {
    stored: Stored,
    /// A stale value must not be served.
    strict: bool,
    /// `max-age`. `Some(None)`: it cannot be read.
    age: Option<Option<Duration>>,
    /// `s-maxage`, in the same way.
    shared_age: Option<Option<Duration>>,
}

impl Directives {
    fn read(text: &str) -> Directives {
        let mut found = Directives {
            stored: Stored::Yes,
            strict: false,
            age: None,
            shared_age: None,
        };
        for (name, value) in split(text) {
            match name.to_ascii_lowercase().as_str() {
                // Even if they name single fields: larder cannot remove a field.
                "no-store" | "private" => found.stored = Stored::Never,
                "no-cache" => {
                    found.strict = true;
                    if found.stored == Stored::Yes {
                        found.stored = Stored::Revalidated;
                    }
                }
                "must-revalidate" | "proxy-revalidate" => found.strict = true,
                "max-age" => found.age = Some(once(found.age, seconds(&value))),
                "s-maxage" => found.shared_age = Some(once(found.shared_age, seconds(&value))),
                _ => {}
            }
        }
        found
    }
}

/// A repeated directive counts if its values are equal.
fn once(before: Option<Option<Duration>>, now: Option<Duration>) -> Option<Duration> {
    match before {
        None => now,
        Some(before) => now.filter(|_| before == now),
    }
}

fn seconds(digits: &str) -> Option<Duration> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| Duration::from_secs(digits.parse().unwrap_or(LONGEST).min(LONGEST)))
}

/// The directives of a list with their values, without quotes and escapes. A directive without a
/// value has an empty one.
fn split(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let (mut name, mut value) = (String::new(), None::<String>);
    let (mut quoted, mut chars) = (false, text.chars());
    loop {
        let c = chars.next();
        match c {
            Some('"') if value.is_some() => quoted = !quoted,
            Some('\\') if quoted => value
                .iter_mut()
                .for_each(|value| value.extend(chars.next())),
            Some('=') if value.is_none() => value = Some(String::new()),
            // A quoted value without its end takes all the rest.
            Some(',') if !quoted => {}
            Some(c) => value.as_mut().unwrap_or(&mut name).push(c),
            None => {}
        }
        if c.is_none() || (c == Some(',') && !quoted) {
            let one = (name.trim().to_owned(), value.take().unwrap_or_default());
            name.clear();
            if !one.0.is_empty() {
                all.push((one.0, one.1.trim().to_owned()));
            }
        }
        if c.is_none() {
            return all;
        }
    }
}

/// How long it was in other caches (section 5.1). Zero if that cannot be read.
fn age(headers: &HeaderMap) -> Duration {
    let age = list(headers, "age");
    seconds(age.split(',').next().unwrap_or_default().trim()).unwrap_or_default()
}

/// How long after its own `Date` it expires. Both times are of the upstream's clock, so this
/// machine's does not matter.
fn expires(headers: &HeaderMap, now: Timestamp) -> Duration {
    let instant = |name: &str| {
        let mut lines = headers.get_all(name).iter();
        let one = lines.next().filter(|_| lines.next().is_none())?;
        date::parse(one.to_str().ok()?, now)
    };
    let Some(expires) = instant("expires") else {
        return Duration::ZERO;
    };
    let since = instant("date").unwrap_or(now);
    let left = Duration::try_from(expires.duration_since(since)).unwrap_or_default();
    left.min(Duration::from_secs(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::{HeaderName, HeaderValue};

    fn life(lines: &[&str]) -> Lifetime {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let control = list(&headers, "cache-control");
        of(&control, &headers, Duration::ZERO, now)
    }

    const fn exactly(seconds: u64) -> Lifetime {
        Lifetime::MaxAge(Duration::from_secs(seconds))
    }

    const fn strictly(seconds: u64) -> Lifetime {
        Lifetime::MustRevalidate(Duration::from_secs(seconds))
    }

    #[test]
    fn cache_control() {
        for (said, expected) in [
            ("max-age=60", exactly(60)),
            ("MAX-AGE=60 , public", exactly(60)),
            ("public,,, max-age=60,", exactly(60)),
            ("max-age=\"60\"", exactly(60)),
            ("max-age=0", exactly(0)),
            ("max-age=60, must-revalidate", strictly(60)),
            ("max-age=60, proxy-revalidate", strictly(60)),
            ("max-age=60, s-maxage=5", strictly(5)),
            ("s-maxage=0, max-age=60", strictly(0)),
            ("no-cache", strictly(0)),
            ("no-cache, max-age=60", strictly(0)),
            ("no-cache=\"set-cookie\", max-age=60", strictly(0)),
            ("no-store", Lifetime::NoStore),
            ("max-age=60, No-Store", Lifetime::NoStore),
            ("no-store, no-cache", Lifetime::NoStore),
            ("private, max-age=60", Lifetime::NoStore),
            ("private=\"x, y\", max-age=60", Lifetime::NoStore),
            // Quoted values are not directives.
            ("ext=\"no-store, private\", max-age=60", exactly(60)),
            ("ext=\"a\\\"b, no-store\", max-age=60", exactly(60)),
            ("ext=no-store, max-age=60", exactly(60)),
            // Repeated directives.
            ("max-age=60, max-age=60", exactly(60)),
            ("max-age=60, max-age=70", exactly(0)),
            ("max-age=60, max-age=70, max-age=60", exactly(0)),
            // Values that cannot be read.
            ("max-age", exactly(0)),
            ("max-age=", exactly(0)),
            ("max-age=-1", exactly(0)),
            ("max-age=1.5", exactly(0)),
            ("max-age=6 0", exactly(0)),
            ("max-age=soon", exactly(0)),
            ("max-age=\"60", exactly(60)),
            ("s-maxage=x, max-age=60", strictly(0)),
            ("max-age=99999999999999999999", exactly(LONGEST)),
            ("maxage=60", exactly(0)),
            ("=60, =", exactly(0)),
            ("\"max-age=60", exactly(0)),
            ("max-age=\u{fffd}", exactly(0)),
            ("immutable, stale-while-revalidate=60", exactly(0)),
            ("", exactly(0)),
        ] {
            assert_eq!(
                life(&[&format!("Cache-Control: {said}")]),
                expected,
                "{said}"
            );
        }
        assert_eq!(life(&[]), exactly(0));
        let lines = [
            "Cache-Control: max-age=60",
            "Cache-Control: must-revalidate",
        ];
        assert_eq!(life(&lines), strictly(60));
    }

    #[test]
    fn age_and_the_way_are_taken_off() {
        for (age, expected) in [
            ("10", 50),
            ("60", 0),
            ("61", 0),
            ("10, 20", 50),
            ("-5", 60),
            ("x", 60),
            ("99999999999999999999", 0),
        ] {
            let age = format!("Age: {age}");
            assert_eq!(
                life(&["Cache-Control: max-age=60", &age]),
                exactly(expected),
                "{age}"
            );
        }
        let took = Duration::from_millis(1500);
        let left = Lifetime::MaxAge(Duration::from_millis(58_500));
        let said = of("max-age=60", &HeaderMap::new(), took, Timestamp::now());
        assert_eq!(said, left);
    }

    #[test]
    fn expires() {
        const DATE: &str = "Date: Fri, 02 Jan 2026 10:00:00 GMT";
        let at = |time: &str| format!("Expires: Fri, 02 Jan 2026 {time} GMT");
        for (lines, expected) in [
            (vec![DATE, &at("10:01:00")], exactly(60)),
            (vec![DATE, &at("10:01:00"), "Age: 10"], exactly(50)),
            (vec![DATE, &at("09:59:00")], exactly(0)),
            (vec![DATE, "Expires: 0"], exactly(0)),
            (vec![DATE, "Expires: -1"], exactly(0)),
            (vec![DATE, &at("10:01:00"), &at("10:02:00")], exactly(0)),
            // Each form of a date.
            (
                vec![DATE, "Expires: Friday, 02-Jan-26 10:01:00 GMT"],
                exactly(60),
            ),
            (
                vec![
                    "Date: Fri Jan  2 10:00:00 2026",
                    "Expires: Fri Jan  2 10:01:00 2026",
                ],
                exactly(60),
            ),
            (
                vec![
                    "Date: Friday, 02-Jan-26 10:00:00 GMT",
                    "Expires: Thursday, 02-Jan-25 10:01:00 GMT",
                ],
                exactly(0),
            ),
            // Without a date: from now.
            (vec![&at("03:05:05")], exactly(60)),
            (vec!["Date: today", &at("03:05:05")], exactly(60)),
            // max-age goes before it, even if it cannot be read.
            (
                vec![DATE, &at("10:01:00"), "Cache-Control: max-age=5"],
                exactly(5),
            ),
            (
                vec![DATE, &at("10:01:00"), "Cache-Control: max-age=x"],
                exactly(0),
            ),
            (
                vec![DATE, &at("10:01:00"), "Cache-Control: no-store"],
                Lifetime::NoStore,
            ),
            (
                vec![DATE, &at("10:01:00"), "Cache-Control: must-revalidate"],
                strictly(60),
            ),
            (
                vec![DATE, "Expires: Sun, 02 Jan 2400 10:00:00 GMT"],
                exactly(LONGEST),
            ),
            (
                vec![DATE, "Expires: Fri, 31 Dec 9999 23:59:59 GMT"],
                exactly(LONGEST),
            ),
        ] {
            assert_eq!(life(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn vary() {
        for (vary, expected) in [
            ("*", Lifetime::NoStore),
            ("Accept, *", Lifetime::NoStore),
            ("Accept-Encoding", exactly(60)),
            ("X-*", exactly(60)),
        ] {
            let vary = format!("Vary: {vary}");
            assert_eq!(
                life(&["Cache-Control: max-age=60", &vary]),
                expected,
                "{vary}"
            );
        }
    }
}
