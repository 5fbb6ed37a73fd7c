//! What the headers of an answer say of the cache.

use std::fmt::Write;
use std::time::Duration;

use crate::cache::{Answer, Micros, Outcome, Staleness};

/// `Cache-Status` (RFC 9211), the cache nearest to the source first. `now` is the replica's time.
pub(crate) fn cache_status(answer: &Answer, now: Micros, out: &mut String) {
    let left = |until: Micros| (until.saturating_sub(now)).div_ceil(1_000_000);
    let ends = answer.entry.ends;
    let asked_redis = answer.trace.redis.is_some();
    // Writing to a String cannot fail.
    let _ = match answer.outcome {
        Outcome::MemoryHit => write!(out, "larder-memory; hit; ttl={}", left(ends.memory_until)),
        Outcome::RedisHit => {
            write!(
                out,
                "larder-redis; hit; ttl={}, larder-memory; fwd=miss",
                left(ends.fresh_until)
            )
        }
        Outcome::Loaded => {
            if asked_redis {
                out.push_str("larder-redis; fwd=miss");
                out.push_str(if answer.trace.stored {
                    "; stored, "
                } else {
                    ", "
                });
            }
            write!(out, "larder-memory; fwd=miss")
        }
        Outcome::Collapsed => {
            if asked_redis {
                out.push_str("larder-redis; fwd=miss, ");
            }
            write!(out, "larder-memory; fwd=miss; collapsed")
        }
        Outcome::Stale(why) => write!(out, "larder-memory; fwd=stale; detail={}", detail(why)),
    };
}

fn detail(why: Staleness) -> &'static str {
    match why {
        Staleness::WhileRevalidate => "stale-while-revalidate",
        Staleness::SoftTimeout => "soft-timeout",
        Staleness::IfError | Staleness::Held => "stale-if-error",
        Staleness::Spent => "quota-spent",
    }
}

/// `Server-Timing` (W3C): where the time of an answer went that memory did not have; empty if nowhere.
pub(crate) fn server_timing(answer: &Answer, memory: Duration, out: &mut String) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let _ = write!(out, "memory;dur={:.3}", ms(memory));
    if let Some(redis) = answer.trace.redis {
        let _ = write!(out, ", redis;dur={:.3}", ms(redis));
    }
    if let Some(source) = answer.trace.source {
        let _ = write!(out, ", source;dur={:.3}", ms(source));
    }
}

/// `Cache-Control`: clients ask again each time, unless the resource lets them keep what they have for a while.
pub(crate) fn cache_control(
    answer: &Answer,
    client_ttl: Option<Duration>,
    age: u64,
    now: Micros,
    out: &mut String,
) {
    let left = answer.entry.ends.memory_until.saturating_sub(now) / 1_000_000;
    match client_ttl.map(|ttl| ttl.as_secs().min(left)) {
        None | Some(0) => out.push_str("private, no-cache"),
        // A client counts from the origin's time (RFC 9111, section 4.2.3), so the age that it is told of comes on top.
        Some(keep) => {
            let _ = write!(out, "private, max-age={}", age + keep);
        }
    }
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
