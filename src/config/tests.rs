//! Whole files against the rules.

use std::time::Duration;

use super::*;
use crate::resource::{ParamKind, ParamSettings, ParamValue, SourceSettings, TagTemplate};
use larder_cache::{Eviction, Policy, StaleRules};

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, &[])
}

pub(super) fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::parse(text, "config.toml", None, &|name| {
        let found = env.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

pub(super) fn faults(text: &str) -> Vec<String> {
    faults_with(text, &[])
}

pub(super) fn faults_with(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let errors = parse_with(text, env).expect_err(text).to_string();
    errors.lines().map(str::to_owned).collect()
}

#[test]
fn the_shipped_file_is_the_built_in_default() {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml"));
    let shipped = parse(&shipped.unwrap()).unwrap();
    assert_eq!(
        format!("{shipped:?}"),
        format!("{:?}", parse(BUILT_IN).unwrap())
    );
    // Every key in the shipped file has the default value.
    let empty = parse("").unwrap();
    assert!(empty.resources.is_empty());
    let resources = shipped.resources.clone();
    assert_eq!(
        format!("{shipped:?}"),
        format!("{:?}", Config { resources, ..empty })
    );
    assert_eq!(shipped.server, ServerSettings::default());
    assert_eq!(shipped.memory, MemorySettings::default());
    assert_eq!(shipped.coherence, CoherenceSettings::default());
    assert_eq!(shipped.loads, LoadSettings::default());
    assert_eq!(
        format!("{:?}", (&shipped.redis, &shipped.database, &shipped.auth)),
        format!(
            "{:?}",
            (
                RedisSettings::default(),
                DatabaseSettings::default(),
                AuthSettings::default()
            )
        )
    );
    let upstreams: Vec<String> = shipped
        .upstreams
        .iter()
        .map(|u| {
            let quota: Vec<String> = u.quota.iter().map(|rate| rate.to_string()).collect();
            assert!(u.key.is_none());
            format!(
                "{} {} {} {:?} {quota:?}",
                u.name, u.base_url, u.key_env, u.timeout
            )
        })
        .collect();
    assert_eq!(
        upstreams,
        [
            r#"newsapi https://newsapi.org/v2 NEWSAPI_KEY 5s ["100/1d"]"#,
            r#"guardian https://content.guardianapis.com GUARDIAN_API_KEY 5s ["1/1s", "500/1d"]"#,
        ]
    );
}

#[test]
fn the_shipped_resource_is_read_whole() {
    let text = |one_of: &[&str]| ParamKind::Text {
        one_of: one_of.iter().map(|s| (*s).to_owned()).collect(),
        pattern: None,
        max_len: 200,
    };
    let param = |name: &str, kind, default, view| ParamSettings {
        name: name.to_owned(),
        kind,
        default,
        required: false,
        view,
    };
    let categories = [
        "business",
        "entertainment",
        "general",
        "health",
        "science",
        "sports",
        "technology",
    ];
    let expected = ResourceSettings {
        name: "articles".to_owned(),
        summary: Some("News articles, newest first".to_owned()),
        description: Some(
            "From NewsAPI and The Guardian. `source` and `limit` select from the articles of a category."
                .to_owned(),
        ),
        path: Some("/articles".to_owned()),
        params: vec![
            param("category", text(&categories), None, false),
            param("source", text(&[]), None, true),
            param(
                "limit",
                ParamKind::Integer { min: 1, max: 100 },
                Some(ParamValue::Integer(20)),
                true,
            ),
        ],
        read: Default::default(),
        source: Some(SourceSettings::News(vec![
            "newsapi".to_owned(),
            "guardian".to_owned(),
        ])),
        writes: Vec::new(),
        policy: Policy {
            memory: Duration::from_secs(30),
            redis: Duration::from_secs(300),
            absent: Duration::from_secs(5),
            stale: StaleRules {
                while_revalidate: Duration::from_secs(60),
                if_error: Duration::from_secs(86_400),
                on_reset: true,
            },
            soft_timeout: Some(Duration::from_millis(800)),
            disconnected_ttl: None,
            revalidate: Duration::ZERO,
            exact_ttl: false,
            retry_at_once: false,
        },
        client_ttl: Some(Duration::from_secs(30)),
        tags: vec![
            TagTemplate::parse("articles").unwrap(),
            TagTemplate::parse("category:{category}").unwrap(),
        ],
        public: false,
        refuses_unknown: false,
    };
    assert_eq!(parse(BUILT_IN).unwrap().resources[0], expected);
}

#[test]
fn every_documented_key_is_read() {
    let config = parse_with(
        r#"
[server]
bind = "0.0.0.0:8080"
workers = 3
max_loads = 5
max_queue = 6
drain_delay = "7s"
shutdown_grace = "8s"
max_connections = 900
max_connections_per_address = 90
head_timeout = "4s"
body_timeout = "9s"
progress_timeout = "20s"
open_metrics = true
[memory]
max_size = "9MiB"
eviction = "tiny_lfu"
[redis]
url = "rediss://u:${PASSWORD}@cache:6380/1"
required = true
pool = 10
connect_timeout = "11ms"
timeout = "12ms"
prefix = "other"
[coherence]
max_staleness = "13s"
log_length = 14
audit = 0.25
[database]
url = "postgres://u:${PASSWORD}@db/name"
pool = 15
archive_days = 16
[auth]
required = false
rate = "17/1s"
[upstream.newsapi]
base_url = "http://127.0.0.1:9000/${VERSION}/"
key_env = "OTHER_KEY"
timeout = "18s"
quota = []
max_pause = "20m"
[upstream.guardian]
quota = ["2/1s", "19/1d"]
[resource.news]
path = "/news/{category}"
params.category = { type = "string", pattern = "[a-z]+", max_length = 20 }
source = { news = ["guardian"] }
ttl = { memory = "0s", redis = "21s", absent = "22s" }
disconnected_ttl = "0s"
public = true
unknown_params = "refuse"
client_ttl = "0s"
[resource.part]
source = { news = ["newsapi"] }
params.category = { type = "string", required = true }
params.limit = { type = "integer", view = true, max = 0x10 }
ttl = { memory = "1s", redis = "0s" }
"#,
        &[
            ("PASSWORD", "hunter2"),
            ("VERSION", "v2"),
            ("OTHER_KEY", " key\n"),
        ],
    )
    .unwrap();
    assert_eq!(
        config.server,
        ServerSettings {
            bind: "0.0.0.0:8080".to_owned(),
            workers: 3,
            drain_delay: Duration::from_secs(7),
            shutdown_grace: Duration::from_secs(8),
            max_connections: 900,
            max_connections_per_address: 90,
            head_timeout: Duration::from_secs(4),
            body_timeout: Duration::from_secs(9),
            progress_timeout: Duration::from_secs(20),
            open_metrics: true,
        }
    );
    assert_eq!((config.loads.max_loads, config.loads.max_queue), (5, 6));
    assert_eq!(config.memory.max_bytes, 9 << 20);
    assert_eq!(config.memory.eviction, Eviction::TinyLfu);
    let redis = &config.redis;
    assert_eq!(
        redis.url.as_ref().unwrap().reveal(),
        "rediss://u:hunter2@cache:6380/1"
    );
    assert_eq!((redis.required, redis.pool), (true, 10));
    assert_eq!(redis.connect_timeout, Duration::from_millis(11));
    assert_eq!(redis.timeout, Duration::from_millis(12));
    assert_eq!(redis.prefix, "other");
    assert_eq!(config.coherence.max_staleness, Duration::from_secs(13));
    assert_eq!(config.coherence.log_length, 14);
    assert_eq!(config.coherence.audit, 0.25);
    assert_eq!(
        config.database.url.as_ref().unwrap().reveal(),
        "postgres://u:hunter2@db/name"
    );
    assert_eq!(config.database.pool, 15);
    assert_eq!(config.database.archive, Duration::from_secs(16 * 86_400));
    assert!(!config.auth.required);
    assert_eq!(config.auth.rate.to_string(), "17/1s");
    let newsapi = &config.upstreams[0];
    assert_eq!(newsapi.base_url, "http://127.0.0.1:9000/v2");
    assert_eq!(newsapi.key_env, "OTHER_KEY");
    assert_eq!(newsapi.key.as_ref().unwrap().reveal(), "key");
    assert_eq!(newsapi.timeout, Duration::from_secs(18));
    assert!(newsapi.quota.is_empty());
    assert_eq!(newsapi.max_pause, Duration::from_secs(1200));
    assert_eq!(config.upstreams[1].max_pause, Duration::from_secs(60));
    assert_eq!(config.upstreams[1].quota.len(), 2);
    let [news, part] = config.resources.as_slice() else {
        panic!("two resources");
    };
    assert!(news.public && news.client_ttl.is_none());
    assert!(news.params[0].required);
    assert_eq!(
        news.params[0].kind,
        ParamKind::Text {
            one_of: vec![],
            pattern: Some("[a-z]+".to_owned()),
            max_len: 20
        }
    );
    assert_eq!(news.policy.absent, Duration::from_secs(22));
    assert_eq!(news.policy.disconnected_ttl, Some(Duration::ZERO));
    assert_eq!(part.path, None);
    assert!(part.params[0].required);
    assert_eq!(part.params[1].kind, ParamKind::Integer { min: 1, max: 16 });
    assert_eq!(part.policy.absent, Duration::from_secs(1));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_environment_wins() {
    let text = "[server]\nbind = \"bad\"\n[redis]\nurl = \"${MISSING}\"\n[database]\nurl = \"sqlite://a\"\n";
    let config = parse_with(
        text,
        &[
            ("LARDER_BIND", "127.0.0.1:1"),
            ("REDIS_URL", "redis://r"),
            ("DATABASE_URL", "sqlite://b"),
            ("NEWSAPI_KEY", "n"),
            ("GUARDIAN_API_KEY", "g"),
            ("LARDER_ADMIN_KEY", "123456789012345678901234"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.bind, "127.0.0.1:1");
    let text = |secret: &Option<larder_cache::Secret>| secret.clone().unwrap().reveal().to_owned();
    assert_eq!(text(&config.redis.url), "redis://r");
    assert_eq!(text(&config.database.url), "sqlite://b");
    assert_eq!(text(&config.upstreams[0].key), "n");
    assert_eq!(text(&config.upstreams[1].key), "g");
    assert_eq!(text(&config.auth.admin_key), "123456789012345678901234");
    let unset = parse_with("", &[("REDIS_URL", ""), ("LARDER_ADMIN_KEY", "")]).unwrap();
    assert!(unset.redis.url.is_none() && unset.auth.admin_key.is_none());
}

#[test]
fn faults_of_the_environment_show_no_secret() {
    let faults = faults_with(
        "",
        &[
            ("LARDER_BIND", "nowhere"),
            ("REDIS_URL", "http://:hunter2@r"),
            ("DATABASE_URL", "mysql://u:hunter2@d/n"),
            ("LARDER_ADMIN_KEY", "hunter2"),
            ("NEWSAPI_KEY", "hunter2 hunter2"),
        ],
    );
    assert_eq!(faults.len(), 5, "{faults:#?}");
    let starts = [
        "environment: LARDER_BIND: is \"nowhere\"; valid: a host and a port",
        "environment: REDIS_URL: has the scheme http://; valid: redis://",
        "environment: DATABASE_URL: has the scheme mysql://; valid: sqlite://",
        "environment: LARDER_ADMIN_KEY: has 7 characters; valid: at least 24 characters",
        "environment: NEWSAPI_KEY: has a character that an API key cannot have",
    ];
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{fault}");
        assert!(!fault.contains("hunter2"), "{fault}");
    }
}

#[test]
fn one_bad_file_gives_all_its_faults_at_once() {
    let text = r#"[server]
bind = "127.0.0.1"
worker = 2
max_loads = 0
drain_delay = "5"
open_metrics = "yes"

[memory]
max_size = "1KiB"
eviction = "fifo"

[redis]
url = "redis://:hunter2@host/zero"
pool = 0
timeout = "0s"
prefix = "a{b}"

[coherence]
max_staleness = "1ms"
log_length = 1.5
audit = 1.001

[database]
url = "mysql://u:hunter2@host/name"
archive_days = "30"

[auth]
rate = "0/1m"

[upstream.newsapi]
base_url = "https://u:hunter2@newsapi.org"
key_env = "hunter2-hunter2"
quota = ["100/1d", "5/1d", "6"]

[upstream.guardain]
timeout = "1s"

[resource.articles]
path = "/articles"
source = { news = ["newsapi", "gardian"] }
params.category = { type = "string", one_of = ["sport"] }
params.limit = { type = "integer", min = 5, max = 1, view = true }
params.source = { type = "strin", view = true }
params.page = { type = "integer" }
ttl = { memory = "1h", redis = "5m", abscent = "1s" }
stale = { while_revalidate = "1d", if_error = "1m" }
soft_timeout = "0s"
tags = [
  "articles",
  "source:{source}",
  "x:{nothing}",
]

[resource.user]
path = "/users/{id}"
source = { sql = "user_by_id" }
ttl = { memory = "0s", redis = "0s" }
write.PUT = { sql = "user_update" }

[cache]
"#;
    let expected = [
        "2: server.bind: is \"127.0.0.1\"; valid: a host and a port such as \"127.0.0.1:8000\", \"[::1]:8000\" or \"localhost:8000\"",
        "3: server.worker: is an unknown key, did you mean \"workers\"?; valid: bind, body_timeout, drain_delay, head_timeout, max_connections, max_connections_per_address, max_loads, max_queue, open_metrics, progress_timeout, shutdown_grace, workers",
        "4: server.max_loads: is 0; valid: a whole number from 1 to 10000",
        "5: server.drain_delay: is \"5\"; valid: a duration such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"1d\"",
        "6: server.open_metrics: is \"yes\"; valid: true or false",
        "9: memory.max_size: is \"1KiB\"; valid: a size from 1MiB to 1024GiB",
        "10: memory.eviction: is \"fifo\"; valid: \"lru\" or \"tiny_lfu\"",
        "13: redis.url: is not a valid Redis URL; valid: redis://user:password@host:6379/0, or rediss:// for TLS, with special characters percent-encoded",
        "14: redis.pool: is 0; valid: a whole number from 1 to 1024",
        "15: redis.timeout: is \"0s\"; valid: a duration such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"1d\", of at least 1ms",
        "16: redis.prefix: is \"a{b}\"; valid: 1 to 64 letters, digits, \"-\", \"_\", \".\" or \":\"",
        "19: coherence.max_staleness: is \"1ms\"; valid: a duration from 20ms to 1h",
        "20: coherence.log_length: is 1.5; valid: a whole number from 1 to 100000000",
        "21: coherence.audit: is 1.001; valid: a number from 0 to 1, such as 0.001",
        "24: database.url: has the scheme mysql://; valid: sqlite://FILE or postgres://user:password@host:5432/name",
        "25: database.archive_days: is \"30\"; valid: a whole number from 1 to 36500",
        "28: auth.rate: is \"0/1m\"; valid: a rate such as \"600/1m\": a count, a slash and a duration",
        "31: upstream.newsapi.base_url: has a user or a password in it, where logs would show them; valid: http:// or https://, a host and perhaps a path",
        "32: upstream.newsapi.key_env: is not a valid name of an environment variable; valid: \"NEWSAPI_KEY\", with the key in that variable",
        "33: upstream.newsapi.quota: has two rates for one window of 1d; valid: one rate for each window",
        "33: upstream.newsapi.quota: is \"6\"; valid: a rate such as \"600/1m\": a count, a slash and a duration",
        "35: upstream.guardain: is an unknown upstream, did you mean \"guardian\"?; valid: newsapi, guardian, or one that an http source names",
        "40: resource.articles.source.news: names \"gardian\", which is an unknown upstream, did you mean \"guardian\"?; valid: newsapi, guardian",
        "41: resource.articles.params.category.one_of: has \"sport\", which is an unknown category, did you mean \"sports\"?; valid: business, entertainment, general, health, science, sports, technology",
        "42: resource.articles.params.limit.max: is 1, less than min 5; valid: at least min",
        "43: resource.articles.params.source.type: is an unknown type, did you mean \"string\"?; valid: \"string\", \"integer\" or \"boolean\"",
        "44: resource.articles.params.page: is an unknown parameter of a news source; valid: category, source, limit",
        "45: resource.articles.ttl.memory: is \"1h\", longer than ttl.redis \"5m\"; valid: at most ttl.redis",
        "45: resource.articles.ttl.abscent: is an unknown key, did you mean \"absent\"?; valid: absent, memory, redis",
        "46: resource.articles.stale.while_revalidate: is \"1d\", longer than stale.if_error \"1m\"; valid: at most stale.if_error",
        "47: resource.articles.soft_timeout: is \"0s\"; valid: a duration such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"1d\", of at least 1ms",
        "50: resource.articles.tags: has \"source:{source}\", but source is a view, which no tag can have; valid: a tag with no other parameters than category, page",
        "51: resource.articles.tags: has \"x:{nothing}\", but nothing is not a parameter of this resource; valid: a tag with no other parameters than category, page",
        "54: resource.user.params.id: is missing, but the path has it; valid: id = { type = \"string\" }",
        "56: resource.user.source.sql: names :id, which is not a parameter of this resource; valid: a statement without parameters, or params that declare them",
        "57: resource.user.ttl: has both tiers switched off; valid: memory or redis longer than \"0s\"",
        "60: cache: is an unknown key; valid: auth, coherence, database, memory, redis, resource, server, upstream",
    ];
    let found = faults(text);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(*found, format!("config.toml:{expected}"));
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(!found.join("").contains("hunter2"));
}

#[test]
fn what_is_no_toml_is_told_with_line_and_column() {
    let found = faults(
        "[server]\nbind = 127.0.0.1:8000\n\n[redis]\nurl = \"redis://:hunter2@x\nä = [1,,]\n",
    );
    assert!(found[0].starts_with("config.toml:2:"), "{found:#?}");
    assert!(found.len() >= 3, "{found:#?}");
    for fault in &found {
        assert!(!fault.contains("hunter2"), "{found:#?}");
        assert_eq!(
            fault
                .split(':')
                .take(3)
                .filter_map(|n| n.parse::<u32>().ok())
                .count(),
            2
        );
    }
    let twice = faults("[server]\nworkers = 1\nworkers = 2\n");
    assert_eq!(twice, ["config.toml:3:1: duplicate key"]);
    let column = faults("[server]\r\nbind = \"ä\" x\r\n");
    assert!(column[0].starts_with("config.toml:2:12: "), "{column:?}");
}

#[test]
fn secrets_are_filled_in() {
    let url = |text: &str| format!("[redis]\nurl = \"{text}\"\n");
    assert_eq!(
        faults(&url("redis://:${A}@${B}")),
        [
            "config.toml:2: redis.url: names ${A}, which is missing from the environment; valid: with A set in the environment",
            "config.toml:2: redis.url: names ${B}, which is missing from the environment; valid: with B set in the environment",
        ]
    );
    assert_eq!(
        faults(&url("redis://:hunter2${A")),
        ["config.toml:2: redis.url: has a \"${\" without its \"}\"; valid: ${NAME}"]
    );
    assert_eq!(
        faults(&url("redis://:${hunter2-}@x")),
        ["config.toml:2: redis.url: has a \"${}\" around an invalid variable name; valid: ${NAME}"]
    );
}

#[test]
fn the_file_is_looked_for_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, workers: usize| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("[server]\nworkers = {workers}\n")).unwrap();
        path
    };
    let load = |explicit: Option<&Path>, env: Option<&Path>| {
        Config::survey_beside(directory.path(), explicit, &|name| {
            let env = env.filter(|_| name == "LARDER_CONFIG")?;
            Some(env.to_str().unwrap().to_owned())
        })
        .valid()
        .map(|(config, origin)| (config.server.workers, origin))
    };
    let (_, origin) = load(None, None).unwrap();
    assert_eq!(origin, ConfigOrigin::BuiltIn);
    assert_eq!(origin.path(), None);
    let here = write("config.toml", 1);
    let named = write("named.toml", 2);
    let explicit = write("explicit.toml", 3);
    assert_eq!(
        load(None, None),
        Ok((1, ConfigOrigin::WorkingDirectory(here)))
    );
    assert_eq!(
        load(None, Some(&named)),
        Ok((2, ConfigOrigin::Environment(named.clone())))
    );
    assert_eq!(
        load(Some(&explicit), Some(&named)),
        Ok((3, ConfigOrigin::CommandLine(explicit.clone())))
    );
    // A file that is named is not passed over.
    let missing = directory.path().join("missing.toml");
    for (explicit, env) in [
        (Some(missing.as_path()), None),
        (None, Some(missing.as_path())),
    ] {
        let error = load(explicit, env).unwrap_err();
        assert_eq!(error.errors[0].place, Place::File);
        assert!(
            error.to_string().contains("missing.toml: cannot be read: "),
            "{error}"
        );
    }
    // A file in the working directory that cannot be read is an error, too.
    std::fs::remove_file(directory.path().join("config.toml")).unwrap();
    std::fs::create_dir(directory.path().join("config.toml")).unwrap();
    assert_eq!(load(None, None).unwrap_err().errors[0].place, Place::File);
    std::fs::write(&explicit, b"[server]\n# \xff\n").unwrap();
    let error = load(Some(&explicit), None).unwrap_err().to_string();
    assert!(
        error.ends_with("explicit.toml:2: is not UTF-8; valid: a file in UTF-8"),
        "{error}"
    );
}

#[test]
fn an_old_key_is_an_error_that_names_the_new_one() {
    let text = r#"[coherence]
patience = "1s"
[server]
patience = "1s"
[resource.a]
source = { http = "https://h/" }
ttl = { memory = "1s", redis = "1s" }
blind_ttl = "0s"
"#;
    let server = "body_timeout, drain_delay, head_timeout, max_connections, \
                  max_connections_per_address, max_loads, max_queue, open_metrics, progress_timeout, \
                  shutdown_grace, workers";
    assert_eq!(
        faults(text),
        [
            "config.toml:2: coherence.patience: was renamed to max_staleness; valid: coherence.max_staleness".to_owned(),
            // It never was a key of this section.
            format!("config.toml:4: server.patience: is an unknown key; valid: bind, {server}"),
            "config.toml:8: resource.a.blind_ttl: was renamed to disconnected_ttl; valid: resource.a.disconnected_ttl".to_owned(),
        ]
    );
    // The old key is an error even beside the new one.
    let both = faults("[coherence]\nmax_staleness = \"1s\"\npatience = \"2s\"\n");
    assert!(both.len() == 1 && both[0].contains("3: coherence.patience: was renamed"));
}

#[test]
fn no_section_ignores_a_key() {
    for section in [
        "server",
        "memory",
        "redis",
        "coherence",
        "database",
        "auth",
        "upstream.newsapi",
        "upstream.guardian",
    ] {
        let found = faults(&format!("[{section}]\nxyzzy = 1\n"));
        let start = format!("config.toml:2: {section}.xyzzy: is an unknown key; valid: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&start),
            "{found:?}"
        );
        let name = section.split('.').next().unwrap();
        let found = faults(&format!("{name} = 1\n"));
        assert_eq!(
            found,
            [format!("config.toml:1: {name}: is 1; valid: a table")]
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,40}", cut in 0usize..4000, bytes in "[ \"\\[\\]{}=.,\\na-z0-9$]{0,12}") {
        let _ = parse(&text);
        let mut cut = cut.min(BUILT_IN.len());
        while !BUILT_IN.is_char_boundary(cut) {
            cut -= 1;
        }
        if let Err(errors) = parse(&format!("{}{bytes}{}", &BUILT_IN[..cut], &BUILT_IN[cut..])) {
            assert!(!errors.errors.is_empty());
        }
    }
}
