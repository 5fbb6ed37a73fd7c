//! The steps that are measured, and what they need.

use std::fmt;
use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::support;
use actix_web::dev::Service;
use actix_web::http::Method;
use actix_web::{App, test};
use bytes::Bytes;
use larder::api::edge::Places;
use larder::api::{Api, ClientRules};
use larder::auth::{KeyTable, Limiter};
use larder::config::Config;
use larder::database::{Database, DatabaseSettings, KeyRate, NewKey};
use larder::resource::{Archivist, Arguments, Given, Members, News, Resources, Sources};
use larder::source::HttpUpstreams;
use larder_cache::Secret;
use larder_cache::{
    Cache, Dependency, Entry, Expiry, Extras, HistoryId, InvalidationTarget, Key, KeyText,
    LoadSettings, MemorySettings, Policy, Request, Stamp, Tag, Ticket, Value, decode_envelope,
    encode_envelope,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
const BODY: usize = 4096;
const PATH: &str = "/items/7?unknown=x&language=en&order=by%20name";
/// The same by `POST` and `QUERY`, and the body with it.
const QUESTION: (&str, &str) = (
    "/items/7?unknown=x",
    r#"{"language": "en", "order": "by name"}"#,
);
const CONFIG: &str = r#"
[resource.item]
path = "/items/{id}"
read = ["GET", "POST", "QUERY"]
params.id = { type = "integer", min = 1 }
params.language = { type = "string", default = "en" }
params.order = { type = "string", default = "name" }
source = { http = "http://127.0.0.1:9/{id}/{language}/{order}" }
ttl = { memory = "1h", redis = "1h" }
client_ttl = "30s"
tags = ["item:{id}"]
"#;

/// One step.
pub struct Step {
    pub name: &'static str,
    /// Whether every memory hit takes it. Then it must not become slower.
    pub hot: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn step(name: &'static str, hot: bool) -> Step {
    Step { name, hot }
}

pub const STEPS: &[Step] = &[
    step("answer_200", true),
    step("answer_304", true),
    step("answer_query", true),
    step("answer_post", true),
    step("members", true),
    step("members_and_key", true),
    step("hit_1_tag", true),
    step("hit_16_tags", true),
    step("find_and_key", true),
    step("auth", true),
    step("limiter", true),
    step("encode", false),
    step("decode", false),
    step("join_flight", false),
];

/// What the steps need: a larder without its sockets.
pub struct Stage {
    cache: Cache,
    api: Api,
    table: Arc<KeyTable>,
    key: Secret,
    etag: String,
    _folder: TempDir,
}

/// A run of a step, so many times in a row.
pub type Run = Box<dyn FnOnce()>;

impl Stage {
    pub fn set() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&DatabaseSettings {
            url: Some(Secret::new(format!(
                "sqlite://{}/larder.db",
                folder.path().display()
            ))),
            ..DatabaseSettings::default()
        })
        .unwrap();
        database.migrate().unwrap();
        let made = database.keys().create(&NewKey {
            name: "bench".into(),
            rate: KeyRate::Limited("4000000000/1m".parse().unwrap()),
            admin: false,
        });
        let key = made.unwrap().secret;
        let table = Arc::new(KeyTable::new("600/1m".parse().unwrap(), None));
        table.refresh(&database).unwrap();
        let cache = support::alone(&MemorySettings::default(), &LoadSettings::default());
        let archivist = Archivist::start(database.clone(), HOUR).unwrap();
        let sources = Sources {
            news: News::new(Vec::new(), archivist, database.clone()),
            database: database.clone(),
            upstreams: HttpUpstreams::new(None),
        };
        let config = Config::parse(CONFIG, "config.toml", None, &|_| None).unwrap();
        let resources = Resources::build(&config.resources, &sources, None).unwrap();
        let api = Api::new(
            cache.clone(),
            resources,
            sources,
            table.clone(),
            ClientRules {
                keys_required: true,
                open_metrics: false,
                redis_required: false,
                body_timeout: HOUR,
                places: Places::new(1, 0),
            },
        )
        .unwrap();
        let mut stage = Stage {
            cache,
            api,
            table,
            key,
            etag: String::new(),
            _folder: folder,
        };
        let mut text = KeyText::default();
        let resources = stage.api.resources();
        let (path, query) = PATH.split_once('?').unwrap();
        let found = resources.find(path).unwrap();
        let arguments = Arguments {
            path: &found.path_arguments,
            given: Given::Query(query),
        };
        found.resource.key(arguments, &mut text).unwrap();
        stage.fill(text.key(), 1);
        for tags in [1, 16] {
            stage.fill(stage.key_with(tags), tags);
        }
        let hash = stage.get(text.as_str()).hash;
        stage.etag = format!("\"{hash:016x}\"");
        stage
    }

    fn key_with(&self, tags: usize) -> Key {
        Key::new(1, &format!("thing?tags={tags}"))
    }

    fn get(&self, key: &str) -> Arc<Entry> {
        let answer = self.cache.get(key, &policy(), None);
        answer.expect("it is in memory").entry
    }

    fn fill(&self, key: Key, tags: usize) {
        let text = key.as_str().to_owned();
        let request = request(key, tags, || Value::Present(vec![b'x'; BODY].into()));
        self.cache.answer(request, SOON).unwrap();
        self.get(&text);
    }

    /// This many runs of the step with this name. Everything else that they need is made before.
    pub fn prepare(&self, step: &str, times: usize) -> Run {
        match step {
            "answer_200" => self.answers(times, "GET", 200),
            "answer_304" => self.answers(times, "GET", 304),
            "answer_query" => self.answers(times, "QUERY", 200),
            "answer_post" => self.answers(times, "POST", 200),
            "members" => Box::new(move || {
                for _ in 0..times {
                    assert!(black_box(Members::parse(black_box(QUESTION.1.as_bytes()))).is_ok());
                }
            }),
            "members_and_key" => self.keys_of_bodies(times),
            "hit_1_tag" => self.hits(times, 1),
            "hit_16_tags" => self.hits(times, 16),
            "find_and_key" => self.keys(times),
            "auth" => {
                let (table, key) = (self.table.clone(), self.key.clone());
                Box::new(move || {
                    for _ in 0..times {
                        let found =
                            table.lookup(black_box(key.reveal()), |record| record.is_admin());
                        assert!(black_box(found).is_some());
                    }
                })
            }
            "limiter" => {
                let limiter = Limiter::new("600/1m".parse().unwrap());
                // The clock is not measured.
                let (began, each) = (Instant::now(), Duration::from_millis(101));
                Box::new(move || {
                    for at in 0..u32::try_from(times).unwrap() {
                        assert!(black_box(limiter.check(began + each * at)).allowed);
                    }
                })
            }
            "encode" => {
                let (cache, entry) = (self.cache.clone(), entry());
                Box::new(move || {
                    for _ in 0..times {
                        black_box(encode_envelope(black_box(&entry), 2, HOUR, cache.clock()));
                    }
                })
            }
            "decode" => {
                let (cache, policy, names) = (self.cache.clone(), policy(), names());
                let bytes = Bytes::from(encode_envelope(&entry(), 2, HOUR, cache.clock()));
                Box::new(move || {
                    for _ in 0..times {
                        let own = |stamp| Dependency::unknown(stamp, names.clone());
                        let entry =
                            decode_envelope(black_box(&bytes), own, &policy, 0, cache.clock());
                        assert!(black_box(entry).is_some());
                    }
                })
            }
            "join_flight" => {
                let held = self.hold_a_load();
                Box::new(move || {
                    for _ in 0..times {
                        black_box(held.ticket());
                    }
                })
            }
            _ => panic!("no step {step}"),
        }
    }

    /// Whole answers: from the parsed request to the response, without the sockets.
    fn answers(&self, times: usize, method: &str, status: u16) -> Run {
        let api = self.api.clone();
        let service = actix_web::rt::System::new().block_on(test::init_service(
            App::new().configure(|config| api.routes(config)),
        ));
        let key = format!("Bearer {}", self.key.reveal());
        let requests: Vec<_> = (0..times)
            .map(|_| {
                let mut request = test::TestRequest::default()
                    .method(Method::from_bytes(method.as_bytes()).unwrap())
                    .uri(if method == "GET" { PATH } else { QUESTION.0 })
                    .insert_header(("host", "localhost"))
                    .insert_header(("authorization", key.as_str()));
                if method != "GET" {
                    request = request
                        .insert_header(("content-type", "application/json"))
                        .set_payload(QUESTION.1);
                }
                if status == 304 {
                    request = request.insert_header(("if-none-match", self.etag.as_str()));
                }
                request.to_request()
            })
            .collect();
        Box::new(move || {
            for request in requests {
                let Poll::Ready(answer) = poll(pin!(service.call(request))) else {
                    panic!("a memory hit waits for nothing");
                };
                assert_eq!(black_box(answer).unwrap().status().as_u16(), status);
            }
        })
    }

    fn hits(&self, times: usize, tags: usize) -> Run {
        let (cache, key, policy) = (self.cache.clone(), self.key_with(tags), policy());
        Box::new(move || {
            for _ in 0..times {
                let answer = cache.get(black_box(key.as_str()), &policy, None);
                assert!(black_box(answer).is_some());
            }
        })
    }

    fn keys(&self, times: usize) -> Run {
        let resources = self.api.resources();
        let mut text = KeyText::default();
        let (path, query) = PATH.split_once('?').unwrap();
        Box::new(move || {
            for _ in 0..times {
                let found = resources.find(black_box(path)).unwrap();
                let arguments = Arguments {
                    path: &found.path_arguments,
                    given: Given::Query(black_box(query)),
                };
                assert!(found.resource.key(arguments, &mut text).is_ok());
                black_box(text.as_str());
            }
        })
    }

    /// As `keys`, with the parameters from a body.
    fn keys_of_bodies(&self, times: usize) -> Run {
        let resources = self.api.resources();
        let mut text = KeyText::default();
        let (path, _) = QUESTION.0.split_once('?').unwrap();
        Box::new(move || {
            for _ in 0..times {
                let found = resources.find(black_box(path)).unwrap();
                let members = Members::parse(black_box(QUESTION.1.as_bytes())).unwrap();
                let arguments = Arguments {
                    path: &found.path_arguments,
                    given: Given::Body(&members),
                };
                assert!(found.resource.key(arguments, &mut text).is_ok());
                black_box(text.as_str());
            }
        })
    }

    /// Begins a load that ends with what is returned.
    pub fn hold_a_load(&self) -> HeldLoad {
        let (release, held) = mpsc::channel::<()>();
        let key = Key::new(2, &format!("held:{:x}", larder_cache::random()));
        let request = request(key.clone(), 1, move || {
            // Ends when its other end is dropped.
            let _ = held.recv();
            Value::Absent
        });
        let first = self.cache.fetch(request);
        HeldLoad {
            cache: self.cache.clone(),
            key,
            first: Some(first),
            release: Some(release),
        }
    }
}

/// A load that is under way as long as this is there.
pub struct HeldLoad {
    cache: Cache,
    key: Key,
    first: Option<Ticket>,
    release: Option<Sender<()>>,
}

impl HeldLoad {
    /// One more claim to it.
    pub fn ticket(&self) -> Ticket {
        let never = || -> Value { panic!("it joins the load that is under way") };
        self.cache.fetch(request(self.key.clone(), 1, never))
    }
}

impl Drop for HeldLoad {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(first) = self.first.take() {
            let _ = first.wait(SOON);
        }
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn policy() -> Policy {
    Policy::new(HOUR, HOUR)
}

fn request(key: Key, tags: usize, value: impl FnOnce() -> Value + Send + 'static) -> Request {
    let tags = (0..tags).map(|tag| Tag::new(&format!("tag:{tag}")));
    support::request(key, Arc::new(policy()), tags, value)
}

/// Its dependencies: four tags and a key.
fn names() -> Arc<[InvalidationTarget]> {
    let tags = (0..4).map(|tag| InvalidationTarget::tag(&format!("item:{tag}")));
    tags.chain([InvalidationTarget::key("item?id=1")]).collect()
}

/// An entry of 4 KiB, as it comes from Redis.
fn entry() -> Entry {
    let stamp = Stamp {
        history: HistoryId(3),
        clock: 4,
        sequence: 0,
    };
    let never = Expiry {
        memory_until: 0,
        fresh_until: 0,
    };
    let extras = Extras {
        validator: Some("\"abc\"".into()),
        ..Extras::default()
    };
    let value = Value::Present(vec![b'x'; BODY].into());
    let own = Dependency::unknown(stamp, names());
    Entry::new(value, own, 1_700_000_000_000_000, 12_000, never, extras)
}
