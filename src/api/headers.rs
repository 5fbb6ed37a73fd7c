//! The headers by which an answer describes its copy and what was invalidated.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};

use crate::resource::{ReadMethod, Resource, View};
use larder_cache::{Answer, InvalidationReceipt, Micros, Outcome, Staleness};

use super::header_texts::HeaderTexts;

/// The clock of an invalidation. A later read can ask for a value that is not older.
const LARDER_CLOCK: HeaderName = HeaderName::from_static("larder-clock");
/// The invalidation holds on this replica only, until Redis can be reached.
const LARDER_PENDING: HeaderName = HeaderName::from_static("larder-pending");

/// The media types that a `QUERY` may have (RFC 10008).
const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");

/// Says what a `QUERY` of `resource` may have as its body, if it takes any.
pub(super) fn set_accept_query(resource: &Resource, map: &mut HeaderMap) {
    if resource.is_read_by(ReadMethod::Query) {
        map.insert(ACCEPT_QUERY, HeaderValue::from_static("application/json"));
    }
}

/// The same on the answer to a read of `resource` whose parameters are in its body: if it is a
/// `QUERY`, or has another media type.
pub(super) fn set_accept_query_beside(
    method: ReadMethod,
    resource: &Resource,
    answer: &mut HttpResponse,
) {
    let is_type = answer.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE;
    if method == ReadMethod::Query || is_type {
        set_accept_query(resource, answer.headers_mut());
    }
}

/// Says whether an invalidation is acknowledged, with its clock, or pending.
pub(super) fn set_receipt(receipt: InvalidationReceipt, answer: &mut HttpResponseBuilder) {
    match receipt.clock {
        Some(clock) => answer.insert_header((LARDER_CLOCK, clock.to_string())),
        None => answer.insert_header((LARDER_PENDING, "true")),
    };
}

/// `Cache-Status` (RFC 9211), the cache nearest to the source first. `now` is the replica's time.
/// `ttl` is the freshness that is left in the tier it belongs to, in seconds. For a stale copy it
/// is negative: how long ago the freshness ended (section 2.5).
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
            // A copy that was softly purged is stale before its time.
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

/// `Server-Timing` (W3C) of an answer that was not in memory: the time that each tier took.
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

/// `Cache-Control`: clients ask again each time, unless the resource has a `client_ttl`.
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
        // A client subtracts the `Age` of the answer (RFC 9111, section 4.2.3), so it is added
        // here.
        Some(keep) => out.text("private, max-age=").number(age + keep).value(),
    }
}

/// `ETag` of a view with this hash (RFC 9110, section 8.8.3).
pub(super) fn entity_tag(view: &View<'_>, hash: u64, out: &mut HeaderTexts) {
    let (weak, etag_hash) = view.entity_tag(hash);
    out.text(if weak { "W/\"" } else { "\"" })
        .hexadecimal(etag_hash)
        .text("\"");
}

/// Whether `If-None-Match` of a request names the entity tag `current`, so that the answer is 304.
#[inline]
pub(crate) fn is_unchanged(request: &HeaderMap, current: &HeaderValue) -> bool {
    // A list may stand on several lines (RFC 9110, section 5.3).
    request.get_all(header::IF_NONE_MATCH).any(|line| {
        let current = current.to_str().unwrap_or_default();
        line == current || line.to_str().is_ok_and(|line| none_match(line, current))
    })
}

/// Whether `If-None-Match` names the entity tag `current` (RFC 9110, section 13.1.2: compared
/// weakly).
fn none_match(header: &str, current: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).len();
    let plain = &current[current.len() - opaque(current)..];
    header.trim() == "*" || entity_tags(header).any(|tag| &tag[tag.len() - opaque(tag)..] == plain)
}

/// The entity tags of a list, with `W/` and quotes (RFC 9110, section 8.8.3). Ends at the first
/// malformed one.
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
            let stamp = Stamp {
                history: HistoryId(larder_cache::random()),
                clock: 1,
                sequence: 0,
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
            // Softly purged before its time.
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
