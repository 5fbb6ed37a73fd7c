//! How long an answer may be kept, by what it says itself (RFC 9111).
//!
//! larder is a shared cache: `s-maxage` goes before `max-age`, and what is `private` is not kept. What says nothing of its time is
//! not fresh: no time is guessed (section 4.2.2 allows that, and it is what surprises people). What cannot be read is not fresh
//! either. `stale-while-revalidate` and `stale-if-error` of an upstream are not looked at: the resource says what stale use it
//! bears, and `must-revalidate`, `proxy-revalidate`, `no-cache` and `s-maxage` forbid it.
//!
//! Section 3.5, of answers to a request with `Authorization`, is not followed: the key is the operator's own, who has declared that
//! all of larder's readers see one answer.

use std::time::Duration;

use jiff::Timestamp;
use ureq::http::HeaderMap;

use crate::cache::Life;

/// The longest time that is believed (RFC 9111, section 1.2.2).
const LONGEST: u64 = 1 << 31;

/// The life that an answer's headers give it which took so long to come. `cache_control`: what stands for that header, where it
/// is not to be taken from `headers`; `now`: when it came, for an answer without a date.
pub(super) fn of(
    headers: &HeaderMap,
    cache_control: Option<&str>,
    took: Duration,
    now: Timestamp,
) -> Life {
    let said = match cache_control {
        Some(said) => said.to_owned(),
        None => list(headers, "cache-control"),
    };
    let said = Directives::read(&said);
    let varies = list(headers, "vary");
    if said.kept == Kept::No || varies.split(',').any(|name| name.trim() == "*") {
        return Life::NotKept;
    }
    let fresh_for = match said.shared_age.or(said.age) {
        _ if said.kept == Kept::Unproven => Duration::ZERO,
        Some(age) => age.unwrap_or_default(),
        None => expires(headers, now),
    };
    // What it spent on its way is over.
    let left = fresh_for.saturating_sub(age(headers)).saturating_sub(took);
    if said.strict || said.shared_age.is_some() {
        Life::Strictly(left)
    } else {
        Life::Exactly(left)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    /// To be confirmed before each use.
    Unproven,
    No,
}

/// What Cache-Control says that matters here.
struct Directives {
    kept: Kept,
    strict: bool,
    /// `max-age`: `Some(None)` where it cannot be read.
    age: Option<Option<Duration>>,
    /// `s-maxage`, likewise.
    shared_age: Option<Option<Duration>>,
}

impl Directives {
    fn read(text: &str) -> Directives {
        let mut said = Directives {
            kept: Kept::Yes,
            strict: false,
            age: None,
            shared_age: None,
        };
        for (name, value) in split(text) {
            match name.to_ascii_lowercase().as_str() {
                // Also where they name single fields: none is taken out here.
                "no-store" | "private" => said.kept = Kept::No,
                "no-cache" => {
                    said.strict = true;
                    if said.kept == Kept::Yes {
                        said.kept = Kept::Unproven;
                    }
                }
                "must-revalidate" | "proxy-revalidate" => said.strict = true,
                "max-age" => said.age = Some(once(said.age, seconds(&value))),
                "s-maxage" => said.shared_age = Some(once(said.shared_age, seconds(&value))),
                _ => {}
            }
        }
        said
    }
}

/// A directive that is there twice counts if it says the same twice.
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

/// The directives of a list with their values, quotes and escapes taken off; an empty value where there is none.
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
            // A quote that never ends takes all the rest, as any reader of it would.
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

/// All lines of a header as one list.
fn list(headers: &HeaderMap, name: &str) -> String {
    let lines = headers.get_all(name).iter();
    let lines = lines.map(|value| String::from_utf8_lossy(value.as_bytes()));
    lines.collect::<Vec<_>>().join(",")
}

/// How long it was in other caches already; none where that cannot be read (section 5.1).
fn age(headers: &HeaderMap) -> Duration {
    let said = list(headers, "age");
    seconds(said.split(',').next().unwrap_or_default().trim()).unwrap_or_default()
}

/// How long after its own date it expires: its clock is compared with itself, not with this machine's.
fn expires(headers: &HeaderMap, now: Timestamp) -> Duration {
    let date = |name: &str| {
        let mut lines = headers.get_all(name).iter();
        let one = lines.next().filter(|_| lines.next().is_none())?;
        let parsed = jiff::fmt::rfc2822::parse(one.to_str().ok()?.trim()).ok()?;
        Some(parsed.timestamp())
    };
    let Some(expires) = date("expires") else {
        return Duration::ZERO;
    };
    let since = date("date").unwrap_or(now);
    let left = Duration::try_from(expires.duration_since(since)).unwrap_or_default();
    left.min(Duration::from_secs(LONGEST))
}
