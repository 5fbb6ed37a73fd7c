//! A replica of the checker: a process that uses the crate, and does what a line of text says.
//!
//! Lines are read from connections, each served by a thread of its own. Each gets one line for an
//! answer. A read that is answered tells the version and the tier.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use larder_cache::{
    Answer, Cache, CacheItem, CoherenceSettings, InsertReceipt, InvalidationTarget, Key, Lifetime,
    Load, LoadError, LoadSettings, Loaded, MemorySettings, Outcome, Policy, Producer, Purge,
    RedisSettings, Request, Secret, Tag, Tally, Value,
};
use testkit::SOON;

use super::super::child::ready;

/// What a replica is started with.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Where it takes lines.
    pub address: SocketAddr,
    pub source: SocketAddr,
    pub max_staleness: Duration,
    pub log_length: u32,
}

impl Role {
    pub fn to_text(self) -> String {
        let Role {
            address,
            source,
            max_staleness,
            log_length,
        } = self;
        format!(
            "{address} {source} {} {log_length}",
            max_staleness.as_millis()
        )
    }

    fn of_text(text: &str) -> Role {
        let words: Vec<&str> = text.split(' ').collect();
        Role {
            address: words[0].parse().unwrap(),
            source: words[1].parse().unwrap(),
            max_staleness: Duration::from_millis(words[2].parse().unwrap()),
            log_length: words[3].parse().unwrap(),
        }
    }
}

/// A connection on which each line gets a line for an answer.
pub struct Line(BufReader<TcpStream>);

impl Line {
    pub fn open(address: SocketAddr) -> std::io::Result<Line> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(Line(BufReader::new(stream)))
    }

    pub fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        match self.0.read_line(&mut answer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}

/// Answers each line of each connection to `listener`, on threads of its own, until the process
/// ends.
pub fn serve(listener: TcpListener, answer: impl Fn(&str) -> String + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut to = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines() {
                    let Ok(line) = line else { return };
                    if to
                        .write_all(format!("{}\n", answer(&line)).as_bytes())
                        .is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
}

/// What the process of a replica does, until its parent lets it end.
pub fn run(role: &str, url: &str) {
    let role = Role::of_text(role);
    let redis = RedisSettings {
        url: Some(Secret::new(url)),
        ..RedisSettings::default()
    };
    let coherence = CoherenceSettings {
        max_staleness: role.max_staleness,
        log_length: role.log_length,
        audit: 1.0,
    };
    let (memory, loads) = (MemorySettings::default(), LoadSettings::default());
    let cache = Cache::start(&memory, &redis, &loads, &coherence).unwrap();
    let hour = Duration::from_secs(3600);
    let replica = Replica {
        cache,
        policy: Arc::new(Policy {
            disconnected_ttl: Some(Duration::ZERO),
            ..Policy::new(hour, hour)
        }),
        tally: Arc::default(),
        source: role.source,
    };
    serve(TcpListener::bind(role.address).unwrap(), move |line| {
        replica.answer(line)
    });
    ready();
}

struct Replica {
    cache: Cache,
    policy: Arc<Policy>,
    tally: Arc<Tally>,
    source: SocketAddr,
}

impl Replica {
    fn answer(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["read", key] => self.read(key, None),
            ["read", key, after] => self.read(key, Some(after.parse().unwrap())),
            ["invalidate", key] => {
                let tag = InvalidationTarget::tag(&tag(key));
                let told = self.cache.invalidate(&[tag], Purge::Hard);
                told.clock
                    .map_or("pending".into(), |clock| format!("clock {clock}"))
            }
            // A value of the caller's own write.
            ["insert", key] => self.insert(key, "publish", Duration::ZERO),
            // A value that the caller has read, a while ago.
            ["keep", key, millis] => {
                let pause = Duration::from_millis(millis.parse().unwrap());
                self.insert(key, "read", pause)
            }
            ["about"] => {
                let (bus, audits) = (self.cache.bus(), self.cache.audits());
                format!("{} {} {}", bus.pending, bus.trusted, audits.illegal)
            }
            _ => panic!("what is {line:?}?"),
        }
    }

    fn read(&self, key: &str, after: Option<u64>) -> String {
        let request = self.request(key);
        let at_hand = self
            .cache
            .get(request.item.key.as_str(), &self.policy, after);
        let found = match (at_hand, after) {
            (Some(answer), _) => Ok(answer),
            (None, Some(clock)) => {
                let caller = Default::default();
                self.cache.fetch_after(request, caller, clock).wait(SOON)
            }
            (None, None) => self.cache.fetch(request).wait(SOON),
        };
        match found {
            Ok(Answer { entry, outcome, .. }) => {
                let tier = match outcome {
                    Outcome::MemoryHit => "memory",
                    Outcome::RedisHit => "redis",
                    Outcome::Loaded => "source",
                    Outcome::Collapsed | Outcome::Stale(_) => "unknown",
                };
                let version = String::from_utf8_lossy(entry.value.bytes());
                format!("version {version} {tier}")
            }
            Err(error) => format!("failed {error}"),
        }
    }

    fn request(&self, key: &str) -> Request {
        let (source, question) = (self.source, format!("load {key}"));
        let load = move |_| {
            let version =
                ask(source, &question).map_err(|error| LoadError::Failed(error.to_string()))?;
            Ok(Loaded::new(
                Value::present(version.into_bytes()),
                Lifetime::Policy,
            ))
        };
        Request {
            item: CacheItem {
                key: place(key),
                policy: self.policy.clone(),
                tags: Box::new([Tag::new(&tag(key))]),
                share: "source".into(),
                label: "source".into(),
                note: Default::default(),
                jitter: 0,
                tally: self.tally.clone(),
            },
            producer: Producer::Load(Load {
                limit: SOON,
                run: Box::new(load),
            }),
        }
    }

    /// Inserts what the source answers to `how`, after a pause.
    fn insert(&self, key: &str, how: &str, pause: Duration) -> String {
        let since = self.cache.stamp();
        let version = match ask(self.source, &format!("{how} {key}")) {
            Ok(version) => version,
            Err(error) => return format!("failed {error}"),
        };
        thread::sleep(pause);
        let value = Value::present(version.clone().into_bytes());
        let tags = [Tag::new(&tag(key))];
        let InsertReceipt {
            invalidation,
            inserted,
        } = self
            .cache
            .insert(&place(key), &tags, value, &self.policy, &since);
        let told = invalidation.clock;
        let told = told.map_or("pending".into(), |clock| format!("clock {clock}"));
        format!("{told} {version} {inserted:?}")
    }
}

fn ask(source: SocketAddr, question: &str) -> std::io::Result<String> {
    Line::open(source)?.ask(question)
}

fn place(key: &str) -> Key {
    Key::new(1, &format!("thing?id={key}"))
}

fn tag(key: &str) -> String {
    format!("thing:{key}")
}
