//! An HTTP API as a source of the cache, over a real Redis. Two caches are two replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::source::json_api::{JsonApi, JsonApiSettings, TtlFrom};
use larder::source::{HttpUpstream, HttpUpstreamSettings, SourceMethod};
use larder::template::Template;
use larder_cache::{
    Answer, Cache, CacheItem, InvalidationTarget, Lifetime, Load, LoadError, Loaded, LookupResult,
    Outcome, Policy, Producer, Purge, Request, StaleRules, Tag, Value,
};
use serde_json::json;

use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::{SOON, until};

use super::cache;

const HOUR: Duration = Duration::from_secs(3600);
const VALUE: &str = "larder:v:0000000000000001:quote?symbol=ACME";
const LEASE: &str = "larder:l:0000000000000001:quote?symbol=ACME";

/// The policy of `ttl = "upstream"`: an upper bound, and time to confirm a value.
fn policy() -> Policy {
    Policy {
        memory: HOUR,
        redis: HOUR,
        absent: HOUR,
        stale: StaleRules::default(),
        soft_timeout: None,
        disconnected_ttl: None,
        revalidate: HOUR,
        exact_ttl: false,
        retry_at_once: false,
    }
}

/// A resource whose values come from `upstream`.
struct Quotes {
    api: JsonApi,
    policy: Arc<Policy>,
}

impl Quotes {
    fn at(upstream: &FakeUpstream) -> Quotes {
        Quotes::with(upstream, |_| {})
    }

    fn with(upstream: &FakeUpstream, change: impl FnOnce(&mut JsonApiSettings)) -> Quotes {
        let url = format!("http://{}/quote/{{symbol}}", upstream.address());
        let mut settings = JsonApiSettings {
            url: Template::parse(&url, &|_| None).unwrap(),
            headers: Vec::new(),
            query: Vec::new(),
            method: SourceMethod::Get,
            json: None,
            pick: Some("/quote".to_owned()),
            store_if: Vec::new(),
            ttl: TtlFrom::Upstream,
        };
        change(&mut settings);
        let upstream = HttpUpstream::new(&HttpUpstreamSettings::new("quotes"), None);
        Quotes {
            api: JsonApi::new(&settings, upstream).unwrap(),
            policy: Arc::new(policy()),
        }
    }

    fn ask(&self, cache: &Cache) -> LookupResult {
        cache.answer(self.request(), SOON)
    }

    fn request(&self) -> Request {
        let api = self.api.clone();
        let load = Load {
            limit: self.api.upstream().timeout(),
            run: Box::new(move |attempt| api.load(&[("symbol", json!("ACME"))], attempt, None)),
        };
        request(&self.policy, load)
    }

    fn get(&self, cache: &Cache) -> Answer {
        self.ask(cache).unwrap()
    }
}

fn request(policy: &Arc<Policy>, load: Load) -> Request {
    let mut key = larder_cache::KeyText::default();
    key.begin(1, "quote");
    key.parameter("symbol", "ACME");
    Request {
        item: CacheItem {
            key: key.key(),
            policy: policy.clone(),
            tags: Box::new([Tag::new("quote:ACME")]),
            share: "test".into(),
            label: "quotes".into(),
            note: Default::default(),
            jitter: 0,
            tally: Arc::default(),
        },
        producer: Producer::Load(load),
    }
}

fn quote(price: f64, control: &str) -> Response {
    Response::json(200, &json!({"quote": {"price": price}, "at": "now"}))
        .with("Cache-Control", control)
}

fn body(answer: &Answer) -> &str {
    std::str::from_utf8(answer.entry.value.bytes()).unwrap()
}

#[test]
fn an_expired_copy_is_confirmed_by_any_replica() {
    for (header, value, condition) in [
        ("ETag", "\"v1\"", "If-None-Match"),
        (
            "Last-Modified",
            "Fri, 02 Jan 2026 10:00:00 GMT",
            "If-Modified-Since",
        ),
    ] {
        let (redis, upstream) = (
            RedisServer::start(),
            FakeUpstream::start(Behaviour::answer(move |request| {
                quote(1.5, "max-age=0")
                    .with(header, value)
                    .unless_known(request)
            })),
        );
        let (a, b) = (cache(&redis), cache(&redis));
        let quotes = Quotes::at(&upstream);
        let first = quotes.get(&a);
        assert_eq!(
            (body(&first), first.outcome),
            ("{\"price\":1.5}", Outcome::Loaded)
        );
        // The lease script tells loads apart by this id. A confirmed value has a new id, though its
        // bytes are the same.
        let load_id = || redis.cli::<Vec<u8>>(&["GET", VALUE])[4..12].to_vec();
        let mut seen = vec![load_id()];
        // Another invalidation advances the clock.
        a.invalidate(&[InvalidationTarget::tag("elsewhere")], Purge::Hard);
        for cache in [&a, &b] {
            let next = quotes.get(cache);
            assert_eq!(
                (body(&next), next.outcome),
                ("{\"price\":1.5}", Outcome::Loaded)
            );
            assert_eq!(next.entry.hash, first.entry.hash);
            assert!(
                next.entry.stamp().clock > first.entry.stamp().clock,
                "the clock of its own load"
            );
            assert!(next.entry.loaded_at > first.entry.loaded_at);
            assert!(!seen.contains(&load_id()));
            seen.push(load_id());
        }
        let requests = upstream.requests();
        let conditions: Vec<_> = requests
            .iter()
            .map(|request| request.header(condition))
            .collect();
        assert_eq!(conditions, [None, Some(value), Some(value)]);
    }
}

#[test]
fn a_copy_that_changed_is_replaced() {
    let (redis, upstream) = (
        RedisServer::start(),
        FakeUpstream::start(Behaviour::answer(|request| {
            quote(1.5, "no-cache")
                .with("ETag", "\"v1\"")
                .unless_known(request)
        })),
    );
    let cache = cache(&redis);
    let quotes = Quotes::at(&upstream);
    quotes.get(&cache);
    upstream.behave(Behaviour::answer(|request| {
        quote(2.5, "max-age=3600")
            .with("ETag", "\"v2\"")
            .unless_known(request)
    }));
    assert_eq!(body(&quotes.get(&cache)), "{\"price\":2.5}");
    assert_eq!(quotes.get(&cache).outcome, Outcome::MemoryHit);
    assert_eq!(
        upstream.requests()[1].header("If-None-Match"),
        Some("\"v1\"")
    );
}

#[test]
fn a_hard_purged_entry_is_fetched_anew() {
    for kind in [Purge::Soft, Purge::Hard] {
        let (redis, upstream) = (
            RedisServer::start(),
            FakeUpstream::start(Behaviour::answer(|request| {
                quote(1.5, "max-age=3600")
                    .with("ETag", "\"v1\"")
                    .unless_known(request)
            })),
        );
        let (a, b) = (cache(&redis), cache(&redis));
        let quotes = Quotes::at(&upstream);
        quotes.get(&a);
        let clock = a
            .invalidate(&[InvalidationTarget::tag("quote:ACME")], kind)
            .clock
            .unwrap();
        until(SOON, "the other replica has heard", || b.has_heard(clock));
        assert_eq!(quotes.get(&b).outcome, Outcome::Loaded);
        let conditional = upstream.requests()[1].header("If-None-Match").is_some();
        assert_eq!(conditional, kind == Purge::Soft);
    }
}

#[test]
fn a_no_store_answer_is_in_no_tier() {
    let redis = RedisServer::start();
    let upstream = FakeUpstream::start(Behaviour::always(quote(1.5, "max-age=3600")));
    let cache = cache(&redis);
    let quotes = Quotes::at(&upstream);
    quotes.get(&cache);
    assert_eq!(redis.cli::<i64>(&["EXISTS", VALUE]), 1);
    // It does not leave an older value in place either.
    cache.invalidate(&[InvalidationTarget::tag("quote:ACME")], Purge::Soft);
    upstream.behave(Behaviour::always(
        quote(2.5, "no-store").with("ETag", "\"v1\""),
    ));
    for price in ["{\"price\":2.5}"; 2] {
        let answer = quotes.get(&cache);
        assert_eq!((body(&answer), answer.outcome), (price, Outcome::Loaded));
        assert!(!answer.trace.stored);
        assert_eq!(redis.cli::<i64>(&["EXISTS", VALUE, LEASE]), 0);
        assert_eq!(cache.memory().entries, 0);
    }
}

#[test]
fn the_upstreams_time_holds_in_both_tiers() {
    let redis = RedisServer::start();
    let said = quote(1.5, "max-age=600").with("Age", "500");
    let upstream = FakeUpstream::start(Behaviour::always(said));
    let (a, b) = (cache(&redis), cache(&redis));
    let quotes = Quotes::at(&upstream);
    let loaded = quotes.get(&a);
    let found = quotes.get(&b);
    assert_eq!(
        (loaded.outcome, found.outcome),
        (Outcome::Loaded, Outcome::RedisHit)
    );
    for (cache, answer) in [(&a, &loaded), (&b, &found)] {
        let ends = answer.entry.expiry;
        for end in [ends.memory_until, ends.fresh_until] {
            let left = Duration::from_micros(end - cache.clock().now());
            assert!(
                left <= Duration::from_secs(100) && left > Duration::from_secs(80),
                "{left:?}"
            );
        }
        assert_eq!(quotes.get(cache).outcome, Outcome::MemoryHit);
    }
    let left: u64 = redis.cli(&["PTTL", VALUE]);
    assert!(
        left <= 100_000,
        "nobody can confirm it, so it goes at its end: {left}"
    );
}

#[test]
fn an_upstreams_404_is_absence_and_its_other_errors_are_failures() {
    let redis = RedisServer::start();
    let upstream = FakeUpstream::start(Behaviour::always(
        Response::text(404, "no").with("Cache-Control", "max-age=60"),
    ));
    let (a, b) = (cache(&redis), cache(&redis));
    let quotes = Quotes::at(&upstream);
    for cache in [&a, &b] {
        assert!(quotes.get(cache).entry.value.is_absent());
    }
    assert_eq!(upstream.calls(), 1);
    a.invalidate(&[InvalidationTarget::everything()], Purge::Hard);
    upstream.behave(Behaviour::always(Response::text(500, "oops")));
    let error = quotes.ask(&a).unwrap_err();
    assert_eq!(error, LoadError::Failed("quotes answered 500".to_owned()));
}

#[test]
fn the_status_decides_where_the_body_is_not_needed() {
    let long = "<p>not here</p>".repeat(400_000);
    let control = |response: Response| response.with("Cache-Control", "max-age=60");
    for (name, behaviour) in [
        (
            "a long page",
            Behaviour::always(control(Response::text(404, &long))),
        ),
        (
            "cut short",
            Behaviour::Truncated(control(Response::text(404, "not here"))),
        ),
        (
            "gone, cut short",
            Behaviour::Truncated(control(Response::text(410, "not here"))),
        ),
        (
            "an unknown coding",
            Behaviour::always(control(Response::text(404, "?")).with("Content-Encoding", "br")),
        ),
    ] {
        let (redis, upstream) = (RedisServer::start(), FakeUpstream::start(behaviour));
        let (cache, quotes) = (cache(&redis), Quotes::at(&upstream));
        for outcome in [Outcome::Loaded, Outcome::MemoryHit] {
            let answer = quotes.get(&cache);
            assert!(answer.entry.value.is_absent(), "{name}");
            assert_eq!(answer.outcome, outcome, "{name}");
        }
        assert_eq!(upstream.calls(), 1, "{name}");
    }
    for response in [
        Response::text(429, "slow down").with("Retry-After", "7"),
        Response::text(503, "slow down").with("Retry-After", "7"),
    ] {
        let redis = RedisServer::start();
        let upstream = FakeUpstream::start(Behaviour::Truncated(response));
        let (cache, quotes) = (cache(&redis), Quotes::at(&upstream));
        let error = quotes.ask(&cache).unwrap_err();
        let LoadError::Paused { retry_after, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(retry_after, Duration::from_secs(7));
    }
}

#[test]
fn redirects_are_references_and_dates_have_any_form() {
    for (location, path) in [
        ("current", "/quote/current"),
        ("../other/", "/other/"),
        ("?page=2", "/quote/ACME"),
        ("/x", "/x"),
    ] {
        let redis = RedisServer::start();
        let upstream = FakeUpstream::start(Behaviour::answer(move |request| {
            if request.path == "/quote/ACME" && request.query.is_empty() {
                Response::text(307, "<html>moved</html>").with("Location", location)
            } else {
                Response::json(200, &json!({"quote": {"price": 1.5}}))
                    .with("Date", "Sun Nov  6 08:49:37 1994")
                    .with("Expires", "Sunday, 06-Nov-94 09:49:37 GMT")
            }
        }));
        let (cache, quotes) = (cache(&redis), Quotes::at(&upstream));
        let first = quotes.get(&cache);
        assert_eq!(body(&first), "{\"price\":1.5}", "{location}");
        assert_eq!(upstream.requests()[1].path, path);
        // By its `Date` and `Expires` it is fresh for an hour.
        assert_eq!(quotes.get(&cache).outcome, Outcome::MemoryHit, "{location}");
    }
}

#[test]
fn a_lease_is_given_back_also_where_nothing_is_kept() {
    let redis = RedisServer::start();
    let cache = cache(&redis);
    let policy = Arc::new(Policy {
        absent: Duration::ZERO,
        ..policy()
    });
    let loads = Arc::new(AtomicUsize::new(0));
    for count in 1..=3 {
        let loads_here = loads.clone();
        let load = Load {
            limit: SOON,
            run: Box::new(move |_| {
                loads_here.fetch_add(1, Ordering::SeqCst);
                Ok(Loaded::new(Value::Absent, Lifetime::Policy))
            }),
        };
        let answer = cache.answer(request(&policy, load), SOON).unwrap();
        assert!(answer.entry.value.is_absent());
        assert_eq!(loads.load(Ordering::SeqCst), count);
        assert_eq!(redis.cli::<i64>(&["EXISTS", LEASE]), 0);
    }
}

#[test]
fn an_answer_that_is_not_to_be_stored_reaches_all_who_wait_for_it() {
    let redis = RedisServer::start();
    let upstream = FakeUpstream::start(Behaviour::always(quote(1.5, "max-age=3600")));
    let cache = cache(&redis);
    let quotes = Quotes::with(&upstream, |settings| {
        settings.method = SourceMethod::Post;
        settings.store_if = vec![("/at".to_owned(), vec![json!("then")])];
    });
    upstream.hold();
    // Each has joined when `fetch` returns.
    let waiting: Vec<_> = (0..8).map(|_| cache.fetch(quotes.request())).collect();
    upstream.release();
    let outcomes = waiting.into_iter().map(|ticket| {
        let answer = ticket.wait(SOON).unwrap();
        assert_eq!(body(&answer), "{\"price\":1.5}");
        assert!(!answer.trace.stored);
        answer.outcome
    });
    let outcomes: Vec<Outcome> = outcomes.collect();
    let loaded = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Loaded);
    assert_eq!(loaded.count(), 1, "{outcomes:?}");
    let collapsed = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Collapsed);
    assert_eq!(collapsed.count(), 7, "{outcomes:?}");
    assert_eq!(upstream.calls(), 1);
    assert_eq!(redis.cli::<i64>(&["EXISTS", VALUE, LEASE]), 0);
    assert_eq!(cache.memory().entries, 0);
    assert_eq!(quotes.get(&cache).outcome, Outcome::Loaded);
    assert_eq!(upstream.calls(), 2);
}
