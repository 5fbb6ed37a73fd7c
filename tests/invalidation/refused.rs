//! Invalidations that Redis does not take, and invalidations without Redis.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Change, MAX_STALENESS, Two, bus, category_tag, invalidate, invalidate_now, is_from_memory,
    never_old_after, until_nothing_pends, warm,
};
use testkit::larder::{Larder, LarderOptions};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, Response};
use testkit::versions::{Versions, VersionsConfig, try_version, version};
use testkit::{SOON, free_address, the_usual_redis_port, until};

/// Redis takes no invalidation until it is repaired. Each one is pending, holds on its own replica,
/// and is delivered in the end.
fn pends(break_it: impl FnOnce(&mut RedisServer), mend: impl FnOnce(&mut RedisServer)) {
    let mut two = Two::start();
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    break_it(&mut two.redis);
    let (first, change) = two.change(&two.near, "science");
    assert!(change.pending, "{change:?}");
    // It holds here at once. No tier answers, because Redis may still have the old value.
    assert_eq!(version(&two.near, "science"), first);
    assert_eq!(bus(&two.near)["pending"], 1);
    // Only the latest one for each name.
    let (new, change) = two.change(&two.near, "science");
    assert!(change.pending, "{change:?}");
    assert_eq!(version(&two.near, "science"), new);
    assert_eq!(bus(&two.near)["pending"], 1);
    let (other, change) = two.change(&two.near, "health");
    assert!(change.pending, "{change:?}");
    assert_eq!(version(&two.near, "health"), other);
    assert_eq!(bus(&two.near)["pending"], 2);

    mend(&mut two.redis);
    until_nothing_pends(&two.near);
    let delivered = Change {
        acknowledged: Instant::now(),
        ..change
    };
    never_old_after(MAX_STALENESS, &delivered, &two.both(), "science", new);
    never_old_after(MAX_STALENESS, &delivered, &two.both(), "health", other);
    two.both_trust();
    let (last, change) = two.change(&two.near, "science");
    assert!(!change.pending, "{change:?}");
    never_old_after(MAX_STALENESS, &change, &two.both(), "science", last);
}

#[test]
fn it_is_pending_while_redis_is_read_only() {
    pends(
        |redis| redis.make_read_only(),
        |redis| redis.make_writable(),
    );
}

#[test]
fn it_is_pending_while_redis_is_gone() {
    pends(RedisServer::kill, RedisServer::restart);
}

#[test]
fn it_is_pending_while_redis_is_silent() {
    pends(|redis| redis.pause(), |redis| redis.resume());
}

#[test]
fn it_is_pending_while_redis_permits_nothing() {
    pends(
        |redis| redis.cli(&["ACL", "SETUSER", "default", "-eval", "-evalsha", "-publish"]),
        |redis| redis.cli(&["ACL", "SETUSER", "default", "+@all"]),
    );
}

#[test]
fn a_pending_one_survives_that_redis_comes_back_with_an_old_snapshot() {
    let mut two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let old = two.redis.snapshot();
    two.redis.kill();
    let (new, change) = two.change(&two.near, "science");
    assert!(change.pending, "{change:?}");
    two.redis.restore(&old);
    until_nothing_pends(&two.near);
    let delivered = Change {
        acknowledged: Instant::now(),
        ..change
    };
    assert_eq!(version(&two.near, "science"), new);
    never_old_after(MAX_STALENESS, &delivered, &two.both(), "science", new);
}

#[test]
fn a_replica_that_never_had_a_redis_is_trusted() {
    let _nobody = the_usual_redis_port();
    let versions = Versions::start();
    let larder = Larder::start(&VersionsConfig::default().options_alone(&versions));
    assert_eq!(warm(&larder, "science"), 1);
    assert_eq!(bus(&larder)["trusted"], true);
    let new = versions.publish("science");
    let change = invalidate_now(&larder, &category_tag("science"));
    assert_eq!(version(&larder, "science"), new);
    // Memory is still trusted long after `max_staleness`.
    until(SOON, "the max_staleness is over", || {
        assert_eq!(warm(&larder, "science"), new);
        change.acknowledged.elapsed() > 2 * MAX_STALENESS
    });
    assert_eq!(versions.calls(), 2);
    let later = invalidate_now(&larder, &json!({"all": true}));
    let number = |clock: &str| clock.parse::<u64>().unwrap();
    assert!(number(&later.clock) > number(&change.clock));
    assert_eq!(bus(&larder)["pending"], 0);
}

#[test]
fn a_replica_whose_redis_is_not_there_is_blind_and_not_alone() {
    let versions = Versions::start();
    let larder = Larder::start(&VersionsConfig::default().options(&versions, free_address()));
    assert_eq!(version(&larder, "science"), 1);
    assert_eq!(bus(&larder)["trusted"], false);
    let new = versions.publish("science");
    let change = invalidate(&larder, &category_tag("science"));
    assert!(change.pending, "{change:?}");
    assert_eq!(version(&larder, "science"), new);
}

/// Two replicas that serve the versions without an archive: from one source, and as a composite of
/// two parts. The far one has a Redis user of its own.
fn apart(disconnected_ttl: &'static str) -> Two {
    let config = VersionsConfig {
        disconnected_ttl: Some(disconnected_ttl),
        ..VersionsConfig::default()
    };
    let (redis, versions) = (RedisServer::start(), Versions::start());
    redis.cli::<()>(&["ACL", "SETUSER", "far", "on", ">pw", "~*", "&*", "+@all"]);
    let proxy = FaultProxy::start(redis.address());
    let part = |name: &str| {
        format!(
            r#"
[resource.{name}]
path = "/{name}/{{category}}"
params.category = {{ type = "string" }}
source = {{ http = "http://{}/{name}?category={{category}}" }}
ttl = {{ memory = "1h", redis = "2h" }}
stale = {{ while_revalidate = "0s", if_error = "0s" }}
soft_timeout = "50ms"
disconnected_ttl = "{disconnected_ttl}"
tags = ["category:{{category}}"]
"#,
            versions.upstream.address()
        )
    };
    let whole = r#"
[resource.whole]
path = "/whole/{category}"
params.category = { type = "string" }
source = { parts = ["wire", "cable"] }
soft_timeout = "50ms"
"#;
    let resources = format!(
        "{}{}{whole}[resource.articles]",
        part("wire"),
        part("cable")
    );
    let options = |redis| -> LarderOptions {
        let options = config.options(&versions, redis);
        options.with_config_text("[resource.articles]", &resources)
    };
    let near = options(redis.address());
    let url = format!("redis://far:pw@{}", proxy.address());
    let far = options(proxy.address()).env("REDIS_URL", &url);
    Two::start_with([&near, &far], proxy, redis, versions)
}

fn refuse_far(two: &Two) {
    two.redis
        .cli::<()>(&["ACL", "SETUSER", "far", "-@all", "resetchannels"]);
}

fn cut_far(two: &Two) {
    two.proxy.cut();
}

fn stall_far(two: &Two) {
    two.proxy.stall();
}

const PATHS: [&str; 2] = ["/wire", "/whole"];

/// Loads the category into the memory of the far replica, for each of [`PATHS`].
fn warm_far(two: &Two, category: &str) {
    for path in PATHS {
        until(SOON, "an answer comes from memory", || {
            is_from_memory(&two.far.get(&format!("{path}/{category}")).expect(200))
        });
    }
}

/// Reads from the far replica until well after the bound. An answer to a read that began after the
/// bound has the new version, or is an error. Returns how many answers had the old one.
#[track_caller]
fn never_old_at_far(two: &Two, bound: Duration, change: &Change, category: &str, new: u64) -> u32 {
    let (mut past, mut old) = (0, 0);
    while past < 6 {
        for path in PATHS {
            let late = change.acknowledged.elapsed();
            let answer = two.far.get(&format!("{path}/{category}"));
            match try_version(&answer, category) {
                Some(found) if found >= new => assert_eq!(answer.status, 200, "{answer}"),
                Some(found) => {
                    assert!(
                        late <= bound,
                        "v{found} for a read {late:?} after v{new} was acknowledged: {answer}"
                    );
                    old += 1;
                }
                None => assert!([502, 503, 504].contains(&answer.status), "{answer}"),
            }
            past += u32::from(late > bound);
        }
    }
    old
}

fn fail(two: &Two) {
    let refusal = Response::text(500, "no");
    two.versions.upstream.behave(Behaviour::always(refusal));
}

/// Redis refuses everything to a replica. Neither a slow nor a failing source makes the replica
/// serve an old value.
fn no_old_value_stands_in(isolate: fn(&Two)) {
    let two = apart("0s");
    warm_far(&two, "science");
    warm_far(&two, "health");
    isolate(&two);
    let (new, slow) = two.change(&two.near, "science");
    let (newer, failing) = two.change(&two.near, "health");
    assert!(!slow.pending && !failing.pending);
    // Several times the soft timeout.
    two.versions
        .upstream
        .set_latency(Duration::from_millis(500));
    never_old_at_far(&two, MAX_STALENESS, &slow, "science", new);
    two.versions.upstream.set_latency(Duration::ZERO);
    fail(&two);
    never_old_at_far(&two, MAX_STALENESS, &failing, "health", newer);
}

#[test]
fn no_old_value_stands_in_where_redis_refuses_everything() {
    no_old_value_stands_in(refuse_far);
}

#[test]
fn no_old_value_stands_in_where_redis_is_not_reached() {
    no_old_value_stands_in(cut_far);
}

#[test]
fn no_old_value_stands_in_where_redis_is_silent() {
    no_old_value_stands_in(stall_far);
}

/// While Redis refuses, a replica may serve an old value for `disconnected_ttl`, as it may without
/// a connection. A failing source does not make that longer.
fn an_old_value_stands_in_for_disconnected_ttl(isolate: fn(&Two)) {
    let two = apart("4s");
    warm_far(&two, "science");
    isolate(&two);
    let (new, change) = two.change(&two.near, "science");
    fail(&two);
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    let bound = MAX_STALENESS + Duration::from_secs(4);
    let old = never_old_at_far(&two, bound, &change, "science", new);
    assert!(old > 0, "it served nothing while it was disconnected");
}

#[test]
fn an_old_value_stands_in_for_disconnected_ttl_where_redis_refuses_everything() {
    an_old_value_stands_in_for_disconnected_ttl(refuse_far);
}

#[test]
fn an_old_value_stands_in_for_disconnected_ttl_where_redis_is_not_reached() {
    an_old_value_stands_in_for_disconnected_ttl(cut_far);
}
