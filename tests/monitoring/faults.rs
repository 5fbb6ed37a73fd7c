//! A real Prometheus scrapes two loaded replicas while faults are made: each alert fires by its
//! fault, and each query of the dashboard returns data.
//!
//! A minute of the rules is a second here, in their expressions and in how long they wait.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use regex_lite::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::dashboard::{Dashboard, SCRAPE};
use super::{ALERTS, metrics_in, rules, text_of};
use testkit::client::{Call, Pending, Session};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::prometheus::{Prometheus, promtool};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Request, Response};
use testkit::{SOON, until};

/// The limit of the whole test, which takes less than half of it on a machine of its own.
const LIMIT: Duration = Duration::from_secs(220);
/// The pause before an alert is looked for again.
const POLL: Duration = Duration::from_millis(100);

/// Connections that a replica takes.
const PLACES: usize = 60;

/// Two replicas on one Redis behind a proxy, and their sources.
struct House {
    redis: RedisServer,
    proxy: FaultProxy,
    _steady: FakeUpstream,
    /// May fail.
    shaky: FakeUpstream,
    /// May be held.
    slow: FakeUpstream,
    /// Its values fill the memory.
    _large: FakeUpstream,
    replicas: Vec<Larder>,
    prometheus: Prometheus,
    /// Rules and key.
    _folder: TempDir,
    begun: Instant,
    fired: RefCell<BTreeSet<String>>,
}

/// The value of a path, and its revision, which changes every second.
fn revision(request: &Request) -> Response {
    let body = json!({"path": request.path, "second": Timestamp::now().as_second()});
    Response::json(200, &body)
}

/// A value that fills a tenth of the memory.
fn large(request: &Request) -> Response {
    Response::json(
        200,
        &json!({"path": request.path, "text": "x".repeat(100_000)}),
    )
}

fn config(
    steady: &FakeUpstream,
    shaky: &FakeUpstream,
    slow: &FakeUpstream,
    large: &FakeUpstream,
) -> String {
    let resource = |name: &str, upstream: &FakeUpstream, more: &str| {
        let url = upstream.base_url();
        format!(
            "[resource.{name}]
path = \"/{name}/{{id}}\"
params.id = {{ type = \"integer\" }}
source = {{ http = \"{url}/{{id}}\", upstream = \"{name}\" }}
public = true
tags = [\"{name}\", \"{name}:{{id}}\"]
{more}
"
        )
    };
    let short = "ttl = { memory = \"1s\", redis = \"1s\" }";
    let long = "ttl = { memory = \"1h\", redis = \"1h\" }";
    [
        format!(
            "[server]
workers = 2
max_loads = 16
max_queue = 8
max_connections = {PLACES}
head_timeout = \"500ms\"
[memory]
max_size = \"1MiB\"
[redis]
timeout = \"1s\"
connect_timeout = \"1s\"
[coherence]
max_staleness = \"1s\"
audit = 1.0
[upstream.counted]
quota = [\"20/1h\"]
[upstream.slow]
timeout = \"60s\"
"
        ),
        resource("steady", steady, long),
        resource("counted", steady, long),
        resource("bare", shaky, short),
        resource(
            "bridged",
            shaky,
            &format!("{short}\nstale = {{ while_revalidate = \"1s\", if_error = \"1d\" }}"),
        ),
        resource("slow", slow, long),
        resource("large", large, "ttl = { memory = \"1h\", redis = \"0s\" }"),
        "[resource.pair]
path = \"/pair/{id}\"
params.id = { type = \"integer\" }
source = { parts = [\"steady\", \"bridged\"] }
public = true
"
        .to_owned(),
    ]
    .concat()
}

/// The rules in a time in which a minute lasts a second.
fn hurried_rules() -> String {
    let time = Regex::new(r"(\bfor: |\[|\boffset )(\d+)([mhd])").unwrap();
    let text = text_of(ALERTS);
    let hurried = time.replace_all(&text, |found: &regex_lite::Captures<'_>| {
        let unit = match &found[3] {
            "m" => "s",
            "h" => "m",
            // Of an hour's sixtieth there are 24.
            _ => return format!("{}{}m", &found[1], 24 * found[2].parse::<u32>().unwrap()),
        };
        format!("{}{}{unit}", &found[1], &found[2])
    });
    hurried.into_owned()
}

/// docker/prometheus.yml with the paths, the targets and the interval of this test.
fn prometheus_config(rules: &str, key: &str, replicas: &[Larder]) -> String {
    let mut config = text_of("docker/prometheus.yml");
    let targets: Vec<String> = replicas
        .iter()
        .map(|one| one.address().to_string())
        .collect();
    for (old, new) in [
        ("/etc/prometheus/alerts.yml", rules.to_owned()),
        ("/run/larder/admin-key", key.to_owned()),
        (
            "[\"larder-1:8000\", \"larder-2:8000\"]",
            format!("{targets:?}"),
        ),
        ("5s", SCRAPE.to_owned()),
    ] {
        assert!(config.contains(old), "{old} is not in {config}");
        config = config.replace(old, &new);
    }
    config
}

impl House {
    fn start() -> House {
        let redis = RedisServer::start();
        let proxy = FaultProxy::start(redis.address());
        let upstream = || FakeUpstream::start(Behaviour::answer(revision));
        let (steady, shaky, slow) = (upstream(), upstream(), upstream());
        let vast = FakeUpstream::start(Behaviour::answer(large));
        let text = config(&steady, &shaky, &slow, &vast);
        let url = format!("redis://{}", proxy.address());
        let replicas = Larder::start_many(2, &LarderOptions::new(&text).env("REDIS_URL", &url));
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let rules = file("alerts.yml", &hurried_rules());
        let key = file("key", ADMIN_KEY);
        let prometheus = Prometheus::start(&prometheus_config(&rules, &key, &replicas));
        House {
            redis,
            proxy,
            _steady: steady,
            shaky,
            slow,
            _large: vast,
            replicas,
            prometheus,
            _folder: folder,
            begun: Instant::now(),
            fired: RefCell::default(),
        }
    }

    /// The names of the alerts in this state: `pending` or `firing`.
    fn alerts(&self, state: &str) -> BTreeSet<String> {
        let alerts = self.prometheus.alerts().into_iter();
        let alerts = alerts.filter(|alert| alert["state"] == state);
        let name = |alert: Value| alert["labels"]["alertname"].as_str().unwrap().to_owned();
        alerts.map(name).collect()
    }

    /// Waits until none of these fires for an earlier fault.
    #[track_caller]
    fn before(&self, alerts: &[&str]) {
        until(SOON, "the alerts of earlier faults have ended", || {
            let firing = self.alerts("firing");
            alerts.iter().all(|alert| !firing.contains(*alert))
        });
    }

    /// Waits until this alert fires, and does `meanwhile` again and again.
    #[track_caller]
    fn fires(&self, alert: &str, mut meanwhile: impl FnMut()) {
        let begun = Instant::now();
        while !self.alerts("firing").contains(alert) {
            let all = || (self.prometheus.alerts(), self.prometheus.log());
            assert!(
                self.begun.elapsed() < LIMIT,
                "{alert} does not fire: {:?}",
                all()
            );
            meanwhile();
            thread::sleep(POLL);
        }
        println!(
            "{:5.1?} {alert} fires after {:.1?}",
            self.begun.elapsed(),
            begun.elapsed()
        );
        self.fired.borrow_mut().insert(alert.to_owned());
    }

    /// Each replica uses Redis again, trusts its bus, and has told all invalidations.
    #[track_caller]
    fn well(&self) {
        for replica in &self.replicas {
            until(SOON, "it is well again", || {
                let stats = replica.stats();
                let bus = &stats["bus"];
                stats["redis"]["up"] == true && bus["trusted"] == true && bus["pending"] == 0
            });
        }
    }

    /// Nothing is wrong: with ten scrapes of both replicas and most reads being hits, no alert
    /// fires, or is about to.
    fn calm(&self) {
        let scraped = "min(count_over_time(up{job=\"larder\"}[1m])) >= 10";
        let hits = "sum(rate(larder_requests_total{outcome=\"memory\"}[5s]))
            / sum(rate(larder_requests_total[5s])) > 0.5";
        until(LIMIT, "nothing is wrong", || {
            let holds = |query: &str| !self.prometheus.query(query).is_empty();
            holds(scraped) && holds(hits) && self.prometheus.alerts().is_empty()
        });
    }

    /// Sources fail and stall, Redis is full, a quota is nearly spent, and a replica has more
    /// values than room.
    fn sources(&self) {
        let replica = &self.replicas[0];
        for id in 0..19 {
            replica.get(&format!("/counted/{id}")).expect(200);
        }
        self.redis.make_full();
        self.shaky
            .behave(Behaviour::always(Response::text(500, "oh no")));
        self.slow.hold();
        let (mut id, mut held) = (0, Vec::<Pending>::new());
        let mut one_more = || {
            id += 1;
            replica.call("GET", &format!("/slow/{id}"))
        };
        until(SOON, "no load of it has a place", || {
            held.push(one_more().connect().unwrap());
            let stats = replica.stats();
            let mut shares = stats["loads"]["shares"].as_array().unwrap().iter();
            shares.any(|share| share["name"] == "slow" && share["refused"] != 0)
        });
        self.fires("LarderShedsLoad", || {
            one_more().send().problem(503);
        });
        self.slow.release();
        drop(held);
        for alert in [
            "LarderRequestsFailing",
            "LarderLoadsFailing",
            "LarderRedisErrors",
            "LarderQuotaNearlySpent",
        ] {
            self.fires(alert, || {});
        }
        self.shaky.behave(Behaviour::answer(revision));
        self.redis.make_room();
        self.well();
    }

    /// Redis answers late, and there are more hits than the audit can ask about.
    fn busy(&self) {
        self.proxy.delay(Duration::from_millis(100));
        let mut session = Session::connect(self.replicas[0].address()).unwrap();
        until(SOON, "hits are skipped", || {
            for _ in 0..200 {
                session.get("/steady/0", ADMIN_KEY).unwrap();
            }
            !self
                .prometheus
                .query("larder_audits_skipped_total > 0")
                .is_empty()
        });
        // They are some of many.
        assert!(!self.alerts("firing").contains("LarderAuditBlind"));
        self.proxy.restore();
        self.well();
    }

    /// Messages are lost, then the bus is cut, then all of Redis.
    fn bus(&self) {
        self.proxy.lose_messages();
        let wish = json!({"tags": ["steady:5"]});
        self.replicas[0]
            .post("/cache/invalidate", &wish)
            .expect(200);
        until(SOON, "the message is lost", || {
            self.proxy.has_lost("steady:5")
        });
        self.proxy.restore();
        until(SOON, "the gap is repaired", || {
            let gaps = |one: &Larder| one.stats()["bus"]["gaps_repaired"].as_u64().unwrap();
            self.replicas.iter().any(|one| gaps(one) > 0)
        });
        self.well();
        self.before(&["LarderBusUntrusted", "LarderRedisDown"]);
        self.proxy.cut_bus();
        self.fires("LarderBusUntrusted", || {});
        self.proxy.restore();
        self.well();
        self.before(&["LarderRedisDown", "LarderInvalidationsPending"]);
        self.proxy.cut();
        let wish = json!({"tags": ["steady:6"]});
        self.replicas[0]
            .post("/cache/invalidate", &wish)
            .expect(202);
        self.fires("LarderRedisDown", || {});
        self.fires("LarderInvalidationsPending", || {});
        // Hits from before that wait for Redis's word.
        self.fires("LarderAuditBlind", || {});
        self.proxy.restore();
        self.well();
    }

    /// Somebody invalidates what all read, without an end.
    fn collapse(&self) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let _end = End(&over);
            let (address, over) = (self.replicas[0].address(), &over);
            scope.spawn(move || {
                let mut session = Session::connect(address).unwrap();
                while !over.load(Ordering::Relaxed) {
                    let wish = json!({"tags": ["steady"]});
                    session.post("/cache/invalidate", ADMIN_KEY, &wish).unwrap();
                }
            });
            self.fires("LarderHitRatioCollapsed", || {});
        });
    }

    /// An invalidation is written into the record without a message, so no replica hears of it.
    fn broken_bound(&self) {
        assert!(!self.alerts("firing").contains("LarderBoundBroken"));
        // A copy that was loaded later would be a new value.
        for replica in &self.replicas {
            until(SOON, "memory has a copy", || {
                let answer = replica.get("/steady/7").expect(200);
                answer.the("Cache-Status").starts_with("larder-memory; hit")
            });
        }
        self.redis
            .invalidate_silently("steady:7", self.redis.time());
        self.fires("LarderBoundBroken", || {});
    }

    /// Clients that send nothing, that are too many, and that guess keys.
    fn clients(&self) {
        let replica = &self.replicas[0];
        let connection = |what: &str| replica.stats()["connections"][what].as_u64().unwrap();
        let mut half = TcpStream::connect(replica.address()).unwrap();
        half.write_all(b"GET /steady/1 HT").unwrap();
        until(SOON, "the slow head is cut", || connection("timed_out") > 0);
        for _ in 0..35 {
            let call = replica
                .call("GET", "/cache/stats")
                .key("wrong-and-of-some-length");
            let status = call.send().status;
            assert!(status == 401 || status == 429, "{status}");
        }
        // Those that wait for an answer are never displaced.
        self.slow.hold();
        let mut waiting = Vec::new();
        until(SOON, "a connection is refused", || {
            waiting.extend(replica.call("GET", "/slow/0").connect());
            waiting.len() >= 2 * PLACES
        });
        self.slow.release();
        drop(waiting);
        until(SOON, "some were displaced, and some refused", || {
            let answer = replica
                .call("GET", "/cache/stats")
                .key(ADMIN_KEY)
                .try_send();
            let Ok(answer) = answer.map(|answer| answer.json()) else {
                return false;
            };
            answer["connections"]["displaced"] != 0 && answer["connections"]["refused"] != 0
        });
        until(SOON, "Prometheus has seen it", || {
            let seen = self
                .prometheus
                .query("larder_connections_refused_total > 0");
            !seen.is_empty()
        });
    }

    /// Names in queries and rules are names that a replica has, and promtool has no objection.
    fn names(&self) {
        let text = self.replicas[0].get("/metrics").expect(200).text();
        promtool(&["check", "metrics"], &text);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let names: BTreeSet<&str> = samples
            .map(|line| line.split(['{', ' ']).next().unwrap())
            .collect();
        let dashboard = Dashboard::read();
        let queries = dashboard.queries().into_iter().chain(dashboard.variables());
        let queries = queries.map(|query| (query.place, query.text));
        for (place, query) in queries.chain(rules()) {
            for metric in metrics_in(&query) {
                assert!(
                    names.contains(metric.as_str()),
                    "{place}: larder has no {metric}"
                );
            }
        }
    }

    /// Each query of the dashboard returned data in this test, and more than zeros.
    fn shown(&self) {
        let now = Timestamp::now().as_second();
        let since = now - self.begun.elapsed().as_secs() as i64 - 1;
        let dashboard = Dashboard::read();
        let queries = dashboard.queries().into_iter().chain(dashboard.variables());
        let mut bare = Vec::new();
        for query in queries {
            let series = self.prometheus.query_range(&query.asked(), since, now);
            let values = series
                .iter()
                .flat_map(|one| one["values"].as_array().unwrap());
            let value = |pair: &Value| pair[1].as_str().unwrap().parse::<f64>().unwrap();
            let mut values = values.map(value).filter(|value| !value.is_nan());
            if !values.any(|value| value != 0.0) {
                bare.push((query, series.len()));
            }
        }
        assert!(bare.is_empty(), "without data: {bare:#?}");
    }
}

/// Ends the threads that look at it, also if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads of one replica, most of them hits, until `over`. Connections may end at any time.
fn read(address: SocketAddr, over: &AtomicBool) {
    let mut session = None;
    for n in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let target = match n % 20 {
            5 => format!("/bare/{}", n / 20 % 4),
            10 => "/bridged/1".to_owned(),
            15 => "/pair/1".to_owned(),
            _ => format!("/steady/{}", n % 10),
        };
        if session.is_none() {
            session = Session::connect(address).ok();
        }
        let answer = session.as_mut().map(|session| match n % 200 {
            100 => {
                let wish = json!({"tags": ["steady:1"], "soft": true});
                session.post("/cache/invalidate", ADMIN_KEY, &wish)
            }
            _ => session.get(&target, ADMIN_KEY),
        });
        if !matches!(answer, Some(Ok(_))) {
            session = None;
        }
        // About a hundred reads a second.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Reads of values that have no room in its memory, until `over`.
fn fill(address: SocketAddr, over: &AtomicBool) {
    for id in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let _ = Call::new(address, "GET", &format!("/large/{id}")).try_send();
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_fault_fires_its_alert_and_is_shown() {
    let mut house = House::start();
    let addresses: Vec<_> = house.replicas.iter().map(Larder::address).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&over);
        for address in &addresses {
            scope.spawn(|| read(*address, &over));
        }
        house.calm();
        scope.spawn(|| fill(addresses[0], &over));
        house.sources();
        house.busy();
        house.bus();
        house.fires("LarderMemoryTooSmall", || {});
        house.collapse();
        house.broken_bound();
        house.clients();
        house.names();
        house.before(&["LarderReplicaDown", "LarderDown"]);
        house.replicas[1].kill();
        house.fires("LarderReplicaDown", || {});
        house.replicas[0].kill();
        house.fires("LarderDown", || {});
    });
    let all: BTreeSet<String> = rules().into_keys().collect();
    assert_eq!(*house.fired.borrow(), all);
    house.shown();
}
