//! Sources that take minutes, and that are paid for each call: one call for all who ask, whatever
//! happens while it runs.
//!
//! No test waits for minutes: the source answers when the test says so.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use testkit::client::{Answer, Pending};
use testkit::larder::{Larder, LarderOptions};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Request, Response};
use testkit::{SOON, until};

/// A source that answers each call when it is released, with the number of the call.
struct Slow {
    upstream: FakeUpstream,
    desk: Arc<Desk>,
}

#[derive(Default)]
struct Desk {
    state: Mutex<DeskState>,
    changed: Condvar,
}

#[derive(Default)]
struct DeskState {
    calls: usize,
    released: HashSet<usize>,
    all_released: bool,
    /// What each question was, as the source got it.
    asked: Vec<Value>,
}

impl Desk {
    fn serve(&self, request: &Request) -> Response {
        let mut state = self.state.lock().unwrap();
        let call = state.calls;
        state.calls += 1;
        let asked = request.json()["messages"][0]["content"].clone();
        // A question that asks for too much gets the beginning of an answer.
        let is_cut = asked.as_str().unwrap().starts_with("everything");
        state.asked.push(asked);
        let is_held =
            |state: &mut DeskState| !state.all_released && !state.released.contains(&call);
        drop(self.changed.wait_while(state, is_held).unwrap());
        let reason = if is_cut { "length" } else { "stop" };
        Response::json(200, &json!({ "call": call, "finish_reason": reason }))
    }
}

impl Slow {
    fn start() -> Slow {
        let desk = Arc::<Desk>::default();
        let serving = desk.clone();
        let behaviour = Behaviour::answer(move |request| serving.serve(request));
        Slow {
            upstream: FakeUpstream::start(behaviour),
            desk,
        }
    }

    fn calls(&self) -> usize {
        self.desk.state.lock().unwrap().calls
    }

    #[track_caller]
    fn until_calls(&self, calls: usize) {
        until(SOON, &format!("call {calls}"), || self.calls() == calls);
    }

    /// Answers the call of this number, from 0 on.
    fn release(&self, call: usize) {
        self.desk.state.lock().unwrap().released.insert(call);
        self.desk.changed.notify_all();
    }

    /// Answers all calls from now on.
    fn release_all(&self) {
        self.desk.state.lock().unwrap().all_released = true;
        self.desk.changed.notify_all();
    }

    /// A configuration with this source. `server` and `upstream` are more lines of these sections.
    fn config(&self, server: &str, upstream: &str) -> String {
        format!(
            r#"
[server]
workers = 1
{server}
[redis]
timeout = "5s"
connect_timeout = "5s"
[resource.answer]
path = "/answers"
read = ["POST", "QUERY"]
params.question = {{ type = "string", required = true }}
params.language = {{ type = "string", one_of = ["en", "de"], default = "en" }}
source.http = "http://{address}/v1/chat"
source.method = "POST"
source.json = {{ model = "small-1", messages = [{{ role = "user", content = "{{question}} (answer in {{language}})" }}] }}
source.store_if = {{ "/finish_reason" = "stop" }}
source.upstream = "ai"
public = true
ttl = {{ memory = "1h", redis = "1h" }}
stale = {{ while_revalidate = "1h", if_error = "1h" }}
tags = ["answers", "question:{{question}}"]
[resource.row]
path = "/rows/{{id}}"
params.id = {{ type = "integer" }}
source = {{ sql = "row" }}
public = true
ttl = {{ memory = "1h", redis = "0s" }}
[upstream.ai]
timeout = "10m"
{upstream}
"#,
            address = self.upstream.address()
        )
    }

    fn options(&self, redis: SocketAddr, server: &str, upstream: &str) -> LarderOptions {
        LarderOptions::new(&self.config(server, upstream))
            .statement("row", "SELECT :id + 0 AS id")
            .env("REDIS_URL", &format!("redis://{redis}"))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.release_all();
    }
}

fn ask(larder: &Larder, question: &str) -> Pending {
    ask_by(larder, "POST", &json!({ "question": question }).to_string())
}

/// Asks with this body, as it is.
fn ask_by(larder: &Larder, method: &'static str, body: &str) -> Pending {
    let call = larder.call(method, "/answers");
    let call = call.header("Content-Type", "application/json").body(body);
    call.connect().unwrap()
}

#[track_caller]
fn answer(pending: Pending) -> Answer {
    pending.finish().unwrap().expect(200)
}

/// The number of the call that an answer comes from.
#[track_caller]
fn call_of(answer: &Answer) -> u64 {
    answer.json()["call"].as_u64().unwrap()
}

/// Waits until another replica looks again and again for what the first one loads. While that is
/// so, nobody else reads from Redis.
#[track_caller]
fn until_waited_for(redis: &RedisServer) {
    let before = redis.calls("mget");
    until(SOON, "another replica waits", || {
        redis.calls("mget") > before + 3
    });
}

/// The leases that are held, each with the load that has it.
fn leases(redis: &RedisServer) -> Vec<(String, Option<String>)> {
    let leases = redis.keys("larder:l:*").into_iter();
    let leases = leases.map(|key| (key.clone(), redis.cli(&["GET", &key])));
    leases.collect()
}

fn stats(larder: &Larder) -> Value {
    larder.stats()
}

/// Has all that was sent before reached its place in the server? It has one worker, which takes
/// connections in their order.
fn settle(larder: &Larder) {
    larder.call("GET", "/healthz").send().expect(200);
}

/// One question, asked in as many ways.
const SAME: [&str; 5] = [
    r#"{"question":"why"}"#,
    r#"{"question":"why","language":"en"}"#,
    r#"{ "language" : "en", "question" : "why" }"#,
    "{\r\n\t\"question\": \"why\"\n}",
    r#"{"question":"\u0077h\u0079"}"#,
];

#[test]
fn a_thousand_callers_of_one_question_over_two_replicas_are_one_call() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "", "");
    let replicas = Larder::start_many(2, &options);
    let methods = ["POST", "QUERY"];
    let one = |at: usize| ask_by(&replicas[at % 2], methods[at / 2 % 2], SAME[at % 5]);
    let waiting: Vec<Pending> = (0..1000).map(one).collect();
    slow.until_calls(1);
    slow.release(0);
    for pending in waiting {
        assert_eq!(call_of(&answer(pending)), 0);
    }
    let asked = slow.desk.state.lock().unwrap().asked.clone();
    assert_eq!(asked, ["why (answer in en)"]);
    // Each spelling is a hit, by either method and on either replica.
    for at in 0..20 {
        let hit = answer(one(at));
        let status = hit.the("Cache-Status");
        assert!(status.starts_with("larder-memory; hit"), "{hit}");
    }
    assert_eq!(redis.keys("larder:v:*").len(), 1);
}

#[test]
fn an_answer_that_is_refused_reaches_those_who_wait_and_is_in_no_tier() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "", "");
    let larder = Larder::start(&options);
    let waiting: Vec<Pending> = (0..20).map(|_| ask(&larder, "everything")).collect();
    settle(&larder);
    slow.until_calls(1);
    slow.release(0);
    for pending in waiting {
        let answer = answer(pending);
        assert_eq!(call_of(&answer), 0);
        let status = answer.the("Cache-Status");
        assert!(
            !status.contains("stored") && !status.contains("hit"),
            "{answer}"
        );
    }
    let in_redis = redis.everything();
    let in_redis = String::from_utf8_lossy(&in_redis);
    assert!(!in_redis.contains("finish_reason"), "{in_redis}");
    assert!(redis.keys("larder:[vl]:*").is_empty());
    let wish = json!({"resource": "answer", "params": {"question": "everything"}});
    let entry = larder.post("/cache/entry", &wish).expect(200).json();
    assert_eq!(entry["tier"], Value::Null, "{entry}");
    // Another replica has no part in it, and who comes later asks anew.
    slow.release_all();
    let other = Larder::start(&options);
    for (at, replica) in [&larder, &other].into_iter().enumerate() {
        assert_eq!(call_of(&answer(ask(replica, "everything"))), 1 + at as u64);
    }
}

#[test]
fn a_thousand_callers_of_two_questions_are_two_calls() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "", "");
    let replicas = Larder::start_many(2, &options);
    let waiting: Vec<Pending> = (0..1000)
        .map(|at| ask(&replicas[at % 2], ["why", "how"][at / 2 % 2]))
        .collect();
    slow.until_calls(2);
    slow.release_all();
    let mut of_each: [HashSet<u64>; 2] = Default::default();
    for (at, pending) in waiting.into_iter().enumerate() {
        of_each[at / 2 % 2].insert(call_of(&answer(pending)));
    }
    assert_eq!(of_each.each_ref().map(HashSet::len), [1, 1]);
    assert_ne!(of_each[0], of_each[1]);
    assert_eq!(slow.calls(), 2);
}

#[test]
fn an_outage_of_redis_in_the_middle_costs_no_second_call() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let proxies = [(); 2].map(|()| FaultProxy::start(redis.address()));
    let replicas: Vec<Larder> = proxies
        .iter()
        .map(|proxy| Larder::start(&slow.options(proxy.address(), "", "")))
        .collect();
    let mut waiting = vec![ask(&replicas[0], "why")];
    slow.until_calls(1);
    waiting.push(ask(&replicas[1], "why"));
    until_waited_for(&redis);
    let held = leases(&redis);
    assert_eq!(held.len(), 1);
    proxies.iter().for_each(FaultProxy::cut);
    until(SOON, "the lease has run out", || leases(&redis).is_empty());
    for replica in &replicas {
        until(SOON, "it is disconnected", || {
            let stats = stats(replica);
            stats["bus"]["trusted"] == false && stats["redis"]["up"] == false
        });
        // Who comes now joins the load under way, as a copy in memory would be served.
        waiting.push(ask(replica, "why"));
        settle(replica);
    }
    proxies.iter().for_each(FaultProxy::restore);
    until(SOON, "the lease is held again", || leases(&redis) == held);
    for replica in &replicas {
        until(SOON, "it is connected", || {
            let stats = stats(replica);
            stats["bus"]["trusted"] == true && stats["redis"]["up"] == true
        });
        waiting.push(ask(replica, "why"));
        settle(replica);
    }
    slow.release(0);
    for pending in waiting {
        assert_eq!(call_of(&answer(pending)), 0);
    }
    assert_eq!(slow.calls(), 1);
    assert!(leases(&redis).is_empty());
}

#[test]
fn a_load_that_ends_during_an_outage_of_redis_is_stored_after_it() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let proxies = [(); 2].map(|()| FaultProxy::start(redis.address()));
    let replicas: Vec<Larder> = proxies
        .iter()
        .map(|proxy| Larder::start(&slow.options(proxy.address(), "", "")))
        .collect();
    let first = ask(&replicas[0], "why");
    slow.until_calls(1);
    let second = ask(&replicas[1], "why");
    until_waited_for(&redis);
    proxies.iter().for_each(FaultProxy::cut);
    for replica in &replicas {
        until(SOON, "it is disconnected", || {
            stats(replica)["redis"]["up"] == false
        });
    }
    slow.release(0);
    assert_eq!(call_of(&answer(first)), 0);
    proxies.iter().for_each(FaultProxy::restore);
    assert_eq!(call_of(&answer(second)), 0);
    assert_eq!(slow.calls(), 1);
    assert!(leases(&redis).is_empty());
}

#[test]
fn a_load_whose_replica_dies_is_taken_over_soon() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "", "");
    let mut replicas = Larder::start_many(2, &options);
    let lost = ask(&replicas[0], "why");
    slow.until_calls(1);
    let waits = ask(&replicas[1], "why");
    until_waited_for(&redis);
    replicas[0].kill();
    drop(lost);
    // Soon, and not after the ten minutes that a load may take.
    slow.until_calls(2);
    slow.release(1);
    assert_eq!(call_of(&answer(waits)), 1);
}

#[test]
fn who_waits_for_another_replica_takes_no_place_among_the_loads() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let server = "max_loads = 3\nmax_queue = 3";
    let options = slow.options(redis.address(), server, "");
    let replicas = Larder::start_many(2, &options);
    let first = ask(&replicas[0], "why");
    slow.until_calls(1);
    let waits = ask(&replicas[1], "why");
    until_waited_for(&redis);
    // All that this share may have: two loads, one of them from the common half, and two that wait.
    let busy: Vec<Pending> = (0..8)
        .map(|number| ask(&replicas[1], &format!("how-{number}")))
        .collect();
    slow.until_calls(3);
    until(SOON, "its share is full", || {
        let share = stats(&replicas[1])["loads"]["shares"].clone();
        let of_ai = |share: &&Value| share["name"] == "ai";
        let share = share
            .as_array()
            .unwrap()
            .iter()
            .find(of_ai)
            .unwrap()
            .clone();
        share["refused"].as_u64().unwrap() >= 4
    });
    // Another source is asked at once meanwhile.
    replicas[1].call("GET", "/rows/1").send().expect(200);
    slow.release(0);
    assert_eq!(call_of(&answer(first)), 0);
    assert_eq!(call_of(&answer(waits)), 0);
    assert_eq!(slow.calls(), 3);
    slow.release_all();
    let ended = busy.into_iter().map(|pending| pending.finish().unwrap());
    let served = ended.filter(|answer| answer.status == 200).count();
    assert!((2..=4).contains(&served), "{served}");
}

#[test]
fn callers_who_give_up_leave_an_answer_for_the_next() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "", "");
    let replicas = Larder::start_many(2, &options);
    let first = ask(&replicas[0], "why");
    slow.until_calls(1);
    let more: Vec<Pending> = (0..20).map(|at| ask(&replicas[at % 2], "why")).collect();
    until_waited_for(&redis);
    drop((first, more));
    // The next ones come while it still runs, and give up as well.
    for replica in &replicas {
        drop(ask(replica, "why"));
        settle(replica);
    }
    slow.release(0);
    let entry = redis_value(&redis);
    assert!(entry.contains(r#""call":0"#), "{entry}");
    for replica in &replicas {
        let next = answer(ask(replica, "why"));
        assert_eq!(call_of(&next), 0);
    }
    let hit = answer(ask(&replicas[0], "why"));
    assert!(
        hit.the("Cache-Status").starts_with("larder-memory; hit"),
        "{hit}"
    );
    assert_eq!(slow.calls(), 1);
}

/// The one value in Redis, as soon as it is there.
#[track_caller]
fn redis_value(redis: &RedisServer) -> String {
    until(SOON, "the answer is stored", || {
        redis.keys("larder:v:*").len() == 1
    });
    String::from_utf8_lossy(&redis.everything()).into_owned()
}

#[test]
fn a_replica_that_ends_stores_the_answer_of_a_load_without_callers() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "shutdown_grace = \"60s\"", "");
    let mut replicas = Larder::start_many(2, &options);
    slow.release(0);
    assert_eq!(call_of(&answer(ask(&replicas[0], "why"))), 0);
    let wish = json!({"tags": ["answers"], "soft": true});
    replicas[0].post("/cache/invalidate", &wish).expect(200);
    let stale = answer(ask(&replicas[0], "why"));
    assert!(stale.the("Cache-Status").contains("fwd=stale"), "{stale}");
    slow.until_calls(2);
    replicas[0].signal(Signal::TERM);
    until(SOON, "it waits for the load", || {
        replicas[0].log().contains("for loads under way: 1")
    });
    slow.release(1);
    assert!(replicas[0].ended().success());
    let next = answer(ask(&replicas[1], "why"));
    assert_eq!(call_of(&next), 1);
    assert!(
        next.the("Cache-Status").contains("larder-redis; hit"),
        "{next}"
    );
    assert_eq!(slow.calls(), 2);
}

#[test]
fn a_replica_that_ends_answers_those_who_wait() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "shutdown_grace = \"60s\"", "");
    let mut larder = Larder::start(&options);
    let waits = ask(&larder, "why");
    slow.until_calls(1);
    larder.signal(Signal::TERM);
    until(SOON, "it stops", || larder.log().contains("stopping: "));
    slow.release(0);
    assert_eq!(call_of(&answer(waits)), 0);
    assert!(larder.ended().success());
    assert!(redis_value(&redis).contains(r#""call":0"#));
}

#[test]
fn a_reload_in_the_middle_loses_no_load_and_begins_none() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "", "");
    let larder = Larder::start(&options);
    let first = ask(&larder, "why");
    slow.until_calls(1);
    let shorter = slow.config("", "").replace("10m", "9m");
    let public = shorter.replace("path = \"/rows/{id}\"", "path = \"/lines/{id}\"");
    larder.reload(&public);
    until(SOON, "it is reloaded", || {
        larder.call("GET", "/lines/1").send().status == 200
    });
    let second = ask(&larder, "why");
    settle(&larder);
    slow.release(0);
    for pending in [first, second] {
        assert_eq!(call_of(&answer(pending)), 0);
    }
    assert_eq!(slow.calls(), 1);
}

#[test]
fn the_result_of_an_overtaken_load_replaces_no_later_one() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    let options = slow.options(redis.address(), "", "");
    let replicas = Larder::start_many(2, &options);
    let before = ask(&replicas[0], "why");
    slow.until_calls(1);
    let wish = json!({"tags": ["question:why"]});
    replicas[0].post("/cache/invalidate", &wish).expect(200);
    let after: Vec<Pending> = (0..6).map(|at| ask(&replicas[at % 2], "why")).collect();
    slow.until_calls(2);
    until_waited_for(&redis);
    slow.release(1);
    for pending in after {
        assert_eq!(call_of(&answer(pending)), 1);
    }
    // Only who asked before the change gets the answer from before it.
    slow.release(0);
    assert_eq!(call_of(&answer(before)), 0);
    let hit = answer(ask(&replicas[0], "why"));
    assert!(
        hit.the("Cache-Status").starts_with("larder-memory; hit"),
        "{hit}"
    );
    assert_eq!(call_of(&hit), 1);
    let new = Larder::start(&options);
    let hit = answer(ask(&new, "why"));
    assert!(
        hit.the("Cache-Status").contains("larder-redis; hit"),
        "{hit}"
    );
    assert_eq!((call_of(&hit), slow.calls()), (1, 2));
}

/// Asks all these questions at once, of the replicas in turn.
fn ask_all(replicas: &[Larder], questions: impl Iterator<Item = String>) -> Vec<Answer> {
    let pending: Vec<Pending> = questions
        .enumerate()
        .map(|(at, question)| ask(&replicas[at % replicas.len()], &question))
        .collect();
    thread::scope(|scope| {
        let each = pending.into_iter();
        let each: Vec<_> = each
            .map(|pending| scope.spawn(move || pending.finish().unwrap()))
            .collect();
        each.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

fn named(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{prefix}-{number}"))
}

/// How many were answered. All others were told when the quota is back.
#[track_caller]
fn served(answers: &[Answer]) -> usize {
    let is_served = |answer: &&Answer| answer.status == 200;
    for refused in answers.iter().filter(|answer| !is_served(answer)) {
        refused.problem(503);
        let back: u32 = refused.the("Retry-After").parse().unwrap();
        assert!((80_000..=86_401).contains(&back), "{refused}");
    }
    answers.iter().filter(is_served).count()
}

/// Waits until all replicas have told each other of themselves in the book of the quota.
#[track_caller]
fn until_in_the_book(replicas: usize, redis: &RedisServer) {
    let key = "{larder:q:ai}:calls";
    let seen = |least: &str| -> usize { redis.cli(&["ZCOUNT", key, "-inf", least]) };
    until(SOON, "all have checked in", || seen("(0") == replicas);
    let time: Vec<f64> = redis.cli(&["TIME"]);
    let latest = format!("({:.0}", -(time[0] * 1e6 + time[1]));
    until(SOON, "all were heard again", || seen(&latest) == replicas);
}

#[test]
fn three_replicas_keep_a_daily_budget_to_the_call() {
    let (redis, slow) = (RedisServer::start(), Slow::start());
    slow.release_all();
    let options = slow.options(redis.address(), "", "quota = [\"20/1d\"]");
    let replicas = Larder::start_many(3, &options);
    let answers = ask_all(&replicas, named("q", 300));
    assert_eq!(served(&answers), 20);
    assert_eq!(slow.calls(), 20);
    // A copy stands in where there is one.
    let known = answers.iter().position(|answer| answer.status == 200);
    let wish = json!({"tags": ["answers"], "soft": true});
    replicas[0].post("/cache/invalidate", &wish).expect(200);
    let again = |question: &str| {
        let mut answers = replicas
            .iter()
            .map(|replica| answer(ask(replica, question)));
        answers.all(|answer| answer.the("Cache-Status").contains("stale"))
    };
    assert!(again(&format!("q-{}", known.unwrap())));
    assert_eq!(served(&ask_all(&replicas, named("more", 30))), 0);
    assert_eq!(slow.calls(), 20);
}

#[test]
fn without_redis_each_replica_keeps_the_budget_for_itself() {
    let (mut redis, slow) = (RedisServer::start(), Slow::start());
    slow.release_all();
    let options = slow.options(redis.address(), "", "quota = [\"20/1d\"]");
    let replicas = Larder::start_many(2, &options);
    assert_eq!(served(&ask_all(&replicas[..1], named("first", 5))), 5);
    until_in_the_book(2, &redis);
    redis.kill();
    // Five were booked by the first replica, and the second one has none of its own.
    assert_eq!(served(&ask_all(&replicas, named("second", 120))), 35);
    assert_eq!(slow.calls(), 40);
    redis.restart();
    until_in_the_book(2, &redis);
    assert_eq!(served(&ask_all(&replicas, named("third", 60))), 0);
    assert_eq!(slow.calls(), 40);
}

#[test]
fn a_call_that_fails_is_booked() {
    let slow = Slow::start();
    let failing = Behaviour::always(Response::json(500, &json!({"error": "overloaded"})));
    slow.upstream.behave(failing);
    let redis = RedisServer::start();
    let options = slow.options(redis.address(), "", "quota = [\"2/1d\"]");
    let replicas = Larder::start_many(2, &options);
    for (replica, question) in replicas.iter().zip(["one", "two"]) {
        ask(replica, question).finish().unwrap().problem(502);
    }
    for replica in &replicas {
        assert_eq!(served(&[ask(replica, "three").finish().unwrap()]), 0);
    }
    assert_eq!(slow.upstream.calls(), 2);
}

#[test]
fn a_reload_gives_no_second_budget() {
    let slow = Slow::start();
    slow.release_all();
    let nowhere = testkit::free_address();
    let options = slow.options(nowhere, "", "quota = [\"2/1d\"]");
    let replicas = [Larder::start(&options)];
    assert_eq!(served(&ask_all(&replicas, named("first", 4))), 2);
    for (timeout, quota, moved, left) in [("9m", 2, "/a/{id}", 0), ("9m", 3, "/b/{id}", 1)] {
        let config = slow.config("", &format!("quota = [\"{quota}/1d\"]"));
        let config = config.replace("10m", timeout).replace("/rows/{id}", moved);
        replicas[0].reload(&config);
        until(SOON, "it is reloaded", || {
            let path = moved.replace("{id}", "1");
            replicas[0].call("GET", &path).send().status == 200
        });
        let answers = ask_all(&replicas, named(moved.trim_matches('/'), 4));
        assert_eq!(served(&answers), left);
    }
    assert_eq!(slow.calls(), 3);
}
