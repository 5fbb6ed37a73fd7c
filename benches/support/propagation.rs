//! How soon an invalidation is in force at other replicas.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use larder_cache::{Cache, InvalidationTarget, Key, Policy, Tag, Value, random};

use testkit::redis::RedisServer;

use super::{SOON, acknowledged, replica, request, until};

const HOUR: Duration = Duration::from_secs(3600);
const BODY: usize = 1024;

/// Seconds of each invalidation: of the call, from the call and from its return to each replica,
/// and from the call to the last replica.
#[derive(Default)]
pub struct Times {
    pub call: Vec<f64>,
    pub since_call: Vec<f64>,
    pub since_return: Vec<f64>,
    pub slowest: Vec<f64>,
}

/// Invalidates on one replica and looks at three others, some 1500 times.
pub fn propagation(redis: &RedisServer) -> Times {
    const ROUNDS: usize = 1500;
    let start = || replica(redis, "propagation", Duration::from_secs(1));
    let (first, others) = (start(), [start(), start(), start()]);
    let told: Vec<_> = others.iter().map(listen).collect();
    let mut thing = Thing::new("thing", &[]);
    let mut times = Times::default();
    for round in 0..ROUNDS {
        let name = thing.tag_anew(round);
        thing.fill(&first);
        others.iter().for_each(|other| thing.fill(other));
        // Long enough for every thread to sleep again: an invalidation in an idle process.
        thread::sleep(Duration::from_micros(500 + random() % 1000));
        let called = Instant::now();
        acknowledged(&first, std::slice::from_ref(&name));
        let returned = Instant::now();
        times.call.push(seconds(called, returned));
        let mut worst = f64::MIN;
        for (other, told) in others.iter().zip(&told) {
            let at = told.when(&name);
            thing.must_be_gone(other);
            times.since_call.push(seconds(called, at));
            times.since_return.push(seconds(returned, at));
            worst = worst.max(seconds(called, at));
        }
        times.slowest.push(worst);
    }
    times
}

/// A value that every replica can have in memory.
pub struct Thing {
    pub key: Key,
    pub tags: Vec<Tag>,
    pub policy: Arc<Policy>,
}

impl Thing {
    pub fn new(name: &str, tags: &[&str]) -> Thing {
        Thing {
            key: Key::new(1, name),
            tags: tags.iter().map(|tag| Tag::new(tag)).collect(),
            policy: Arc::new(Policy::new(HOUR, HOUR)),
        }
    }

    /// Gives the next load a tag of this round alone, so that messages of other rounds are not
    /// mistaken for it.
    pub fn tag_anew(&mut self, round: usize) -> InvalidationTarget {
        let tag = format!("thing:{round}:{:x}", random());
        self.tags = vec![Tag::new(&tag)];
        InvalidationTarget::tag(&tag)
    }

    pub fn text(&self) -> &str {
        self.key.as_str()
    }

    pub fn fill(&self, cache: &Cache) {
        until("it is in memory", || {
            let value = || Value::present(vec![b'x'; BODY]);
            let request = request(
                self.key.clone(),
                self.policy.clone(),
                self.tags.clone(),
                value,
            );
            cache.answer(request, SOON).unwrap();
            cache.get(self.text(), &self.policy, None).is_some()
        });
    }

    pub fn must_be_gone(&self, cache: &Cache) {
        let found = cache.get(self.text(), &self.policy, None);
        assert!(found.is_none(), "the old value was served");
    }
}

/// An invalidation that a replica heard, and when.
pub struct Told(Receiver<(Instant, InvalidationTarget)>);

pub fn listen(cache: &Cache) -> Told {
    let (sender, receiver) = mpsc::channel();
    cache.on_invalidation(move |name, _| {
        let _ = sender.send((Instant::now(), name.clone()));
    });
    Told(receiver)
}

impl Told {
    /// The moment at which `name` came into force.
    pub fn when(&self, name: &InvalidationTarget) -> Instant {
        loop {
            let (at, told) = self.0.recv_timeout(SOON).expect("it is told");
            if told == *name {
                return at;
            }
        }
    }
}

pub fn seconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_secs_f64(),
        None => -(from - to).as_secs_f64(),
    }
}
