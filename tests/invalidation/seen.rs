//! What clients and operators see of invalidations: clocks, entries, replicas, refusals, the
//! command.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    LONG_MAX_STALENESS, Two, bus, invalidate_now, is_from_memory, is_warm, until_heard,
    until_trusted, warm,
};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::path;
use testkit::proxy::Scope;
use testkit::redis::RedisServer;
use testkit::versions::{Versions, VersionsConfig, version, version_in};
use testkit::{SOON, free_address, until};

#[test]
fn a_read_after_a_clock_is_never_older_on_any_replica() {
    let two = Two::with(&VersionsConfig {
        max_staleness: LONG_MAX_STALENESS,
        ..VersionsConfig::default()
    });
    let after = |replica: &Larder, clock: &str| {
        let call = replica.call("GET", &path("science")).key(ADMIN_KEY);
        call.header("Larder-After", clock).send()
    };
    assert_eq!(two.warm("science"), 1);
    two.proxy.stall_to_client_only(Scope::Bus);
    let (new, change) = two.change(&two.near, "science");
    // The far one has not heard of the change. It may serve the old version for a minute, but not
    // to the client that sent the clock.
    assert_eq!(version(&two.far, "science"), 1);
    assert_eq!(version_in(&after(&two.far, &change.clock), "science"), new);
    assert_eq!(version_in(&after(&two.near, &change.clock), "science"), new);
    // If it cannot ask Redis either, it may answer with an error, but not with an older version.
    let (newer, change) = two.change(&two.near, "science");
    two.proxy.stall();
    let cut_off = after(&two.far, &change.clock);
    if cut_off.status != 200 {
        cut_off.problem(503);
        assert!(cut_off.header("Retry-After").is_some(), "{cut_off}");
    } else {
        assert_eq!(version_in(&cut_off, "science"), newer);
    }
    two.proxy.restore();
    until_heard(&two.far, &change.clock);

    // A clock that it has heard of costs nothing.
    two.warm("science");
    for old in ["0", "1", &change.clock] {
        assert!(is_from_memory(&after(&two.far, old)), "{old}");
    }
    for nonsense in ["soon", "-1", "1.5", "99999999999999999999999999"] {
        after(&two.far, nonsense).problem(400);
    }
}

#[test]
fn a_clock_that_nobody_can_have_given_is_no_reason_to_load() {
    let mut two = Two::with(&VersionsConfig {
        disconnected_ttl: None,
        ..VersionsConfig::default()
    });
    let after = |replica: &Larder, clock: &str| {
        let call = replica.call("GET", &path("science")).key(ADMIN_KEY);
        call.header("Larder-After", clock).send()
    };
    assert_eq!(two.warm("science"), 1);
    let calls = two.versions.calls();
    // Redis is asked, and says that nothing was invalidated.
    for clock in ["9999999999999999", "18446744073709551615"] {
        assert_eq!(version_in(&after(&two.near, clock), "science"), 1);
    }
    assert_eq!(two.versions.calls(), calls);
    two.redis.kill();
    for replica in two.both() {
        until(SOON, "Redis is gone", || {
            replica.stats()["redis"]["up"] == false
        });
        for clock in [
            "9999999999999999",
            "9007199254740993",
            "18446744073709551615",
        ] {
            assert!(is_from_memory(&after(replica, clock)), "{clock}");
        }
    }
    assert_eq!(two.versions.calls(), calls);

    // Redis could have given out this clock by now. So the promise requires a load.
    let new = two.versions.publish("science");
    let last: u64 = bus(&two.near)["clock"].as_str().unwrap().parse().unwrap();
    let answer = after(&two.near, &(last + 1).to_string());
    assert_eq!(version_in(&answer, "science"), new);
    assert_eq!(two.versions.calls(), calls + 1);
}

#[test]
fn an_entry_says_why_it_is_the_answer() {
    let two = Two::start();
    let place = "/cache/entry?path=/articles%3Fcategory%3Dscience";
    assert_eq!(two.warm("science"), 1);
    let entry = two.near.get(place).expect(200).json();
    assert_eq!(entry["resource"], "articles", "{entry}");
    assert_eq!(entry["key"], "articles?category=science", "{entry}");
    assert_eq!(entry["tier"], "memory", "{entry}");
    assert_eq!(entry["state"], "fresh", "{entry}");
    let number = |entry: &Value, field: &str| {
        entry[field]
            .as_u64()
            .unwrap_or_else(|| panic!("no {field}: {entry}"))
    };
    assert!(
        number(&entry, "bytes") > 0 && number(&entry, "age_ms") < 60_000,
        "{entry}"
    );
    assert!(number(&entry, "ttl_left_ms") > 3_000_000, "{entry}");
    let parts = entry["parts"]
        .as_array()
        .unwrap_or_else(|| panic!("{entry}"));
    assert_eq!(parts.len(), 1, "{entry}");
    let part = &parts[0];
    assert!(part["key"].as_str().unwrap().contains("newsapi"), "{entry}");
    for one in [&entry, part] {
        let fields = [
            "resource",
            "key",
            "tier",
            "state",
            "age_ms",
            "ttl_left_ms",
            "load_clock",
            "load_ms",
            "bytes",
        ];
        for field in fields {
            assert!(one.get(field).is_some(), "no {field}: {one}");
        }
    }
    let names = |entry: &Value| -> HashSet<String> {
        let tags = entry["tags"]
            .as_array()
            .unwrap_or_else(|| panic!("{entry}"));
        tags.iter()
            .map(|tag| {
                assert!(tag.get("invalidated").is_some(), "{entry}");
                tag["name"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let wanted = ["articles", "category:science"].map(str::to_owned);
    assert!(names(part).is_superset(&HashSet::from(wanted)), "{entry}");

    // After an invalidation the entry is not served any more, and `/cache/entry` says so.
    two.change(&two.near, "science");
    let dead = two.near.get(place);
    let dead = dead.json();
    assert_eq!(
        (&dead["state"], &dead["reason"]),
        (&"dead".into(), &"invalidated".into()),
        "{dead}"
    );

    two.near.get("/cache/entry").problem(400);
    two.near
        .get("/cache/entry?path=/articles%3Fcategory%3Dnone")
        .problem(400);
    two.near.get("/cache/entry?path=/nothing").problem(404);
}

#[test]
fn the_live_replicas_are_listed() {
    let mut two = Two::start();
    let listed = |larder: &Larder| -> Vec<Value> {
        let body = larder.get("/cache/replicas").expect(200).json();
        body["replicas"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}"))
            .clone()
    };
    for replica in two.both() {
        until(SOON, "both are listed", || listed(replica).len() == 2);
    }
    let replicas = listed(&two.near);
    let ids: HashSet<&str> = replicas
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "{replicas:?}");
    let binds: HashSet<String> = replicas
        .iter()
        .map(|one| one["bind"].as_str().unwrap().to_owned())
        .collect();
    let expected = two.both().map(|replica| replica.address().to_string());
    assert_eq!(binds, HashSet::from(expected));
    for one in &replicas {
        assert_eq!(one["version"], env!("CARGO_PKG_VERSION"), "{one}");
        assert!(one["uptime_ms"].is_u64(), "{one}");
        assert!(one["clock"].is_string(), "{one}");
        assert!(one["trusted"].is_boolean(), "{one}");
        assert!(
            one["trust_left_ms"]
                .as_u64()
                .is_some_and(|left| left <= 1000),
            "{one}"
        );
    }
    assert!(
        replicas.iter().any(|one| one["trusted"] == true),
        "{replicas:?}"
    );

    two.far.stop();
    until(SOON, "one is left", || listed(&two.near).len() == 1);
}

#[test]
fn the_bus_is_in_the_stats() {
    let two = Two::start();
    let clock_before = bus(&two.far)["clock"].clone();
    assert!(clock_before.is_string(), "{clock_before}");
    let change = invalidate_now(&two.near, &json!({"all": true}));
    until_heard(&two.far, &change.clock);
    let bus = bus(&two.far);
    assert_eq!(bus["trusted"], true, "{bus}");
    assert_eq!(bus["clock"], change.clock.as_str(), "{bus}");
    assert!(
        bus["gaps_repaired"].is_u64() && bus["pending"] == 0,
        "{bus}"
    );
}

#[test]
fn only_an_admin_may() {
    let two = Two::start();
    let (_, reader) = two.near.create_key(&json!({"name": "reader"}));
    two.warm("science");
    for (method, target) in [
        ("GET", "/cache/entry?path=/articles%3Fcategory%3Dscience"),
        ("GET", "/cache/replicas"),
        ("POST", "/cache/invalidate"),
    ] {
        let call = || {
            let call = two.near.call(method, target);
            if method == "POST" {
                call.json(&json!({"all": true}))
            } else {
                call
            }
        };
        let nobody = call().send();
        nobody.problem(401);
        assert_eq!(nobody.the("WWW-Authenticate"), "Bearer");
        call().key("lk_nobody").send().problem(401);
        call().key(&reader).send().problem(403);
        call().key(ADMIN_KEY).send().expect(200);

        let other = if method == "POST" { "GET" } else { "DELETE" };
        let wrong = two.near.call(other, target).key(ADMIN_KEY).send();
        wrong.problem(405);
        assert!(wrong.the("Allow").contains(method), "{wrong}");
    }
}

#[test]
fn a_request_that_does_not_fit_is_refused_and_changes_nothing() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    for body in [
        json!([]),
        json!({}),
        json!({"tags": []}),
        json!({"tags": "category:science"}),
        json!({"tags": [7]}),
        json!({"tags": [""]}),
        json!({"keys": [null]}),
        json!({"paths": ["science"]}),
        json!({"paths": ["/nothing"]}),
        json!({"paths": ["/articles?category=none"]}),
        json!({"all": "yes"}),
        json!({"all": false}),
        json!({"all": true, "soft": 1}),
        json!({"all": true, "softly": true}),
        // A valid target does not make up for an invalid one.
        json!({"tags": ["category:science"], "paths": ["/nothing"]}),
    ] {
        let refused = two.near.post("/cache/invalidate", &body);
        assert_eq!(refused.status, 422, "{body}: {refused}");
        assert!(!refused.problem(422).is_empty());
    }
    let post = || two.near.call("POST", "/cache/invalidate").key(ADMIN_KEY);
    let json = || post().header("Content-Type", "application/json");
    json().body("{\"all\":").send().problem(400);
    json().body("").send().problem(400);
    post()
        .header("Content-Type", "text/plain")
        .body("{\"all\":true}")
        .send()
        .problem(415);
    assert!(is_warm(&two.near, "science"));
    assert_eq!(two.versions.calls(), 1);
}

#[test]
fn the_command_does_it_through_a_running_server() {
    let two = Two::start();
    let url = format!("http://{}", two.near.address());
    // The key comes from the environment, never from the command line.
    let shell = LarderOptions::unconfigured().env("THE_KEY", ADMIN_KEY);
    let run_with = |shell: &LarderOptions, arguments: &[&str]| {
        let mut words = vec!["invalidate"];
        words.extend_from_slice(arguments);
        let output = shell.run(&words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains(ADMIN_KEY), "{said}");
        (output.status.code(), said)
    };
    let run = |arguments: &[&str]| {
        let mut words = arguments.to_vec();
        words.extend(["--url", &url, "--key-env", "THE_KEY"]);
        run_with(&shell, &words)
    };
    let all = ["science", "health"];
    let dropped_by = |arguments: &[&str]| {
        let old = all.map(|category| warm(&two.near, category));
        for category in all {
            two.versions.publish(category);
        }
        let (code, said) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        let changed = all.into_iter().zip(old);
        let changed: Vec<&str> = changed
            .filter(|(category, old)| version(&two.near, category) > *old)
            .map(|(category, _)| category)
            .collect();
        invalidate_now(&two.near, &json!({"all": true}));
        changed
    };
    assert_eq!(dropped_by(&["--tag", "category:science"]), ["science"]);
    assert_eq!(
        dropped_by(&["--tag", "category:science", "--tag", "category:health"]),
        all
    );
    assert_eq!(
        dropped_by(&["--path", "/articles?category=health"]),
        ["health"]
    );
    assert_eq!(
        dropped_by(&["--key", "articles?category=health"]),
        ["health"]
    );
    assert_eq!(
        dropped_by(&[
            "--key",
            "articles?category=health",
            "--tag",
            "category:science"
        ]),
        all
    );
    assert_eq!(dropped_by(&["--all"]), all);
    // This resource serves nothing stale, so a soft purge drops the entry as well.
    assert_eq!(
        dropped_by(&["--tag", "category:science", "--soft"]),
        ["science"]
    );

    for wrong in [
        &[][..],
        &["--soft"],
        &["--tag"],
        &["--everything"],
        &["--all", "--url", "not a url"],
    ] {
        let (code, said) = run_with(&shell, wrong);
        assert_eq!(code, Some(2), "{wrong:?}: {said}");
    }
    let nobody = format!("http://{}", free_address());
    let failing: [(&LarderOptions, &[&str]); 3] = [
        (&shell, &["--all", "--url", &nobody, "--key-env", "THE_KEY"]),
        (
            &shell.clone().env("THE_KEY", "lk_wrong"),
            &["--all", "--url", &url, "--key-env", "THE_KEY"],
        ),
        (
            &shell,
            &["--path", "/nothing", "--url", &url, "--key-env", "THE_KEY"],
        ),
    ];
    for (shell, arguments) in failing {
        let (code, said) = run_with(shell, arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(
            !said.trim().is_empty(),
            "{arguments:?} fails without a word"
        );
    }
}

#[test]
fn a_revoked_key_is_refused_there_long_before_the_poll() {
    let (redis, versions) = (RedisServer::start(), Versions::start());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let config = VersionsConfig {
        // Replicas poll at half this interval.
        max_staleness: "10m",
        ..VersionsConfig::default()
    };
    let options = config
        .options(&versions, redis.address())
        .in_folder(&folder);
    let near = Larder::start(&options);
    let (id, key) = near.create_key(&json!({"name": "reader"}));
    // It reads the key at its start.
    let far = Larder::start(&options);
    for replica in [&near, &far] {
        until_trusted(replica);
    }
    let status =
        |larder: &Larder, key: &str| larder.call("GET", &path("science")).key(key).send().status;
    assert_eq!(status(&far, &key), 200);
    near.delete(&format!("/keys/{id}")).expect(204);
    assert_eq!(status(&near, &key), 401);
    until(SOON, "the other one refuses it", || {
        status(&far, &key) == 401
    });
}
