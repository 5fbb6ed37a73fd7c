//! What the headers of an answer say of the cache.

use std::time::Duration;

use actix_web::http::header::HeaderValue;

use crate::resource::View;
use larder_cache::{Answer, Micros, Outcome, Staleness};

use super::header_texts::HeaderTexts;

/// `Cache-Status` (RFC 9211), the cache nearest to the source first. `now` is the replica's time.
/// `ttl` is what is left of the freshness in the tier that it stands with, in seconds; of a stale
/// copy, how long ago it ended, as a negative number (section 2.5).
pub(super) fn cache_status(answer: &Answer, now: Micros, out: &mut HeaderTexts) {
    let left = |until: Micros| (until.saturating_sub(now)).div_ceil(1_000_000);
    let ends = answer.entry.expiry;
    let asked_redis = answer.trace.redis.is_some();
    match answer.outcome {
        Outcome::MemoryHit => out
            .text("larder-memory; hit; ttl=")
            .number(left(ends.memory_until)),
        Outcome::RedisHit => out
            .text("larder-redis; hit; ttl=")
            .number(left(ends.fresh_until))
            .text(", larder-memory; fwd=miss"),
        Outcome::Loaded => {
            if asked_redis {
                out.text("larder-redis; fwd=miss")
                    .text(if answer.trace.stored {
                        "; stored, "
                    } else {
                        ", "
                    });
            }
            out.text("larder-memory; fwd=miss")
        }
        Outcome::Collapsed => {
            if asked_redis {
                out.text("larder-redis; fwd=miss, ");
            }
            out.text("larder-memory; fwd=miss; collapsed")
        }
        Outcome::Stale(why) => out
            .text("larder-memory; fwd=stale; detail=")
            .text(detail(why))
            // What was invalidated softly is stale before its time.
            .text(if now > ends.memory_until {
                "; ttl=-"
            } else {
                "; ttl="
            })
            .number(now.saturating_sub(ends.memory_until).div_ceil(1_000_000)),
    };
}

fn detail(why: Staleness) -> &'static str {
    match why {
        Staleness::WhileRevalidate => "stale-while-revalidate",
        Staleness::SoftTimeout => "soft-timeout",
        Staleness::IfError | Staleness::BackingOff => "stale-if-error",
        Staleness::Spent => "quota-spent",
    }
}

/// `Server-Timing` (W3C): where the time of an answer went that memory did not have; empty if nowhere.
pub(super) fn server_timing(answer: &Answer, memory: Duration, out: &mut HeaderTexts) {
    let tiers = [
        ("memory;dur=", Some(memory)),
        (", redis;dur=", answer.trace.redis),
        (", source;dur=", answer.trace.source),
    ];
    for (tier, took) in tiers {
        if let Some(took) = took {
            out.text(tier)
                .text(&format!("{:.3}", took.as_secs_f64() * 1000.0));
        }
    }
}

/// `Cache-Control`: clients ask again each time, unless the resource lets them keep what they have for a while.
pub(super) fn cache_control(
    answer: &Answer,
    client_ttl: Option<Duration>,
    age: u64,
    now: Micros,
    out: &mut HeaderTexts,
) -> HeaderValue {
    let left = answer.entry.expiry.memory_until.saturating_sub(now) / 1_000_000;
    match client_ttl.map(|ttl| ttl.as_secs().min(left)) {
        None | Some(0) => HeaderValue::from_static("private, no-cache"),
        // A client counts from the origin's time (RFC 9111, section 4.2.3), so the age that it is told of comes on top.
        Some(keep) => out.private_max_age(age + keep),
    }
}

/// `ETag` of a view with this hash (RFC 9110, section 8.8.3).
pub(super) fn entity_tag(view: &View<'_>, hash: u64, out: &mut HeaderTexts) {
    let (weak, told) = view.entity_tag(hash);
    out.text(if weak { "W/\"" } else { "\"" })
        .hexadecimal(told)
        .text("\"");
}

/// Whether `If-None-Match` names the entity tag `current` (RFC 9110, section 13.1.2: compared weakly).
pub(crate) fn none_match(header: &str, current: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).len();
    let plain = &current[current.len() - opaque(current)..];
    header.trim() == "*" || entity_tags(header).any(|tag| &tag[tag.len() - opaque(tag)..] == plain)
}

/// The entity tags of a list, each as it stands there, `W/` and quotes included (RFC 9110, section 8.8.3). Ends at what is none.
pub(crate) fn entity_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let weak = if rest.starts_with("W/") { 2 } else { 0 };
        let inside = rest[weak..].strip_prefix('"')?;
        let end = weak + 1 + inside.find('"')? + 1;
        let (tag, after) = rest.split_at(end);
        rest = after;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_cache::{Dependency, Entry, Expiry, Extras, HistoryId, Stamp, Trace, Value};

    const SECOND: Micros = 1_000_000;

    #[test]
    fn the_ttl_is_what_is_left_in_the_tier_that_is_named() {
        let now = 1000 * SECOND;
        let status = |outcome, memory_until, fresh_until| {
            let epoch = HistoryId(larder_cache::random());
            let stamp = Stamp {
                epoch,
                clock: 1,
                begun: 0,
            };
            let own = Dependency::unknown(stamp, [].into());
            let expiry = Expiry {
                memory_until,
                fresh_until,
            };
            let entry = Entry::new(Value::Absent, own, 0, 0, expiry, Extras::default());
            let answer = Answer {
                entry: entry.into(),
                outcome,
                trace: Trace::default(),
            };
            let mut out = HeaderTexts::new();
            cache_status(&answer, now, &mut out);
            out.value().to_str().unwrap().to_owned()
        };
        let stale = |why| Outcome::Stale(why);
        for (outcome, memory, fresh, expected) in [
            (
                Outcome::MemoryHit,
                now + 30 * SECOND,
                now + 300 * SECOND,
                "larder-memory; hit; ttl=30",
            ),
            (
                Outcome::RedisHit,
                now + 30 * SECOND,
                now + 300 * SECOND - 1,
                "larder-redis; hit; ttl=300, larder-memory; fwd=miss",
            ),
            (
                stale(Staleness::BackingOff),
                now - 5 * SECOND,
                now + 300 * SECOND,
                "larder-memory; fwd=stale; detail=stale-if-error; ttl=-5",
            ),
            (
                stale(Staleness::WhileRevalidate),
                now - 1,
                now - 1,
                "larder-memory; fwd=stale; detail=stale-while-revalidate; ttl=-1",
            ),
            // Invalidated softly before its time.
            (
                stale(Staleness::Spent),
                now + 30 * SECOND,
                now + 300 * SECOND,
                "larder-memory; fwd=stale; detail=quota-spent; ttl=0",
            ),
        ] {
            assert_eq!(status(outcome, memory, fresh), expected);
        }
    }

    #[test]
    fn entity_tags_are_compared_weakly() {
        for (header, same) in [
            ("*", true),
            ("W/\"a\"", true),
            ("\"a\"", true),
            ("\"x\", W/\"a\"", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(none_match(header, "W/\"a\""), same, "{header}");
        }
    }

    #[test]
    fn a_list_of_entity_tags_comes_apart() {
        let tags = |list| entity_tags(list).collect::<Vec<_>>();
        assert_eq!(
            tags(r#" "a,b" , W/"c",,"" "#),
            [r#""a,b""#, r#"W/"c""#, r#""""#]
        );
        assert_eq!(tags(r#""a", b, "c""#), [r#""a""#]);
        assert!(tags("W/").is_empty() && tags(r#""open"#).is_empty() && tags("").is_empty());
    }
}
