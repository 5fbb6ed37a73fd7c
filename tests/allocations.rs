//! A memory hit allocates its answer and nothing else.

use std::sync::Arc;
use std::time::Duration;

use larder::config::Config;
use larder::database::{Database, DatabaseSettings};
use larder::resource::{Archivist, Arguments, Body, Given, News, NewsSource, Resources, Sources};
use larder::source::HttpUpstreams;
use larder::source::http::{HttpClient, HttpSettings};
use larder::source::news::{NewsFormat, NewsUpstream};
use larder_cache::Secret;
use larder_cache::{
    Cache, CoherenceSettings, KeyText, LoadSettings, MemorySettings, RedisSettings,
};

use testkit::SOON;
use testkit::news::News as Upstreams;

#[test]
fn finding_a_memory_hit_allocates_nothing() {
    let upstreams = Upstreams::start();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/larder.db", folder.path().display());
    let settings = DatabaseSettings {
        url: Some(Secret::new(url)),
        ..DatabaseSettings::default()
    };
    let database = Database::open(&settings).unwrap();
    database.migrate().unwrap();
    let redis = RedisSettings::default();
    let cache = Cache::start(
        &MemorySettings::default(),
        &redis,
        &LoadSettings::default(),
        &CoherenceSettings::default(),
    )
    .unwrap();
    let sources = [
        (
            NewsFormat::NewsApi,
            format!("http://{}/v2", upstreams.newsapi.address()),
        ),
        (
            NewsFormat::Guardian,
            format!("http://{}", upstreams.guardian.address()),
        ),
    ];
    let sources = sources.map(|(format, base_url)| NewsSource {
        upstream: Arc::new(NewsUpstream {
            format,
            base_url,
            key: Some(Secret::new("a-key")),
            http: HttpClient::new(HttpSettings::new(format.name(), SOON)),
            quota: None,
        }),
        is_sandbox: false,
    });
    let archivist = Archivist::start(database.clone(), Duration::from_secs(60)).unwrap();
    let sources = Sources {
        news: News::new(sources.into(), archivist, database.clone()),
        database,
        upstreams: HttpUpstreams::new(None),
    };
    let text = include_str!("../config.toml");
    let config = Config::parse(text, "config.toml", None, &|_| None).unwrap();
    let resources = Resources::build(&config.resources, &sources, None).unwrap();

    let mut key = KeyText::default();
    let query = "limit=5&unknown=x&category=technology";
    {
        let found = resources.find("/articles").unwrap();
        let arguments = Arguments {
            path: &found.path_arguments,
            given: Given::Query(query),
        };
        found.resource.key(arguments, &mut key).unwrap();
        let request = found
            .resource
            .request(arguments, &Default::default())
            .unwrap();
        cache.fetch(request.unwrap()).wait(SOON).unwrap();
    }
    let found = resources.find("/articles").unwrap();
    let mut seen = 0;
    let counted = allocation_counter::measure(|| {
        for _ in 0..20 {
            let found = resources.find("/articles").unwrap();
            let arguments = Arguments {
                path: &found.path_arguments,
                given: Given::Query(query),
            };
            found.resource.key(arguments, &mut key).unwrap();
            let answer = cache.get(key.as_str(), found.resource.policy(), None);
            seen += usize::from(answer.is_some());
        }
    });
    assert_eq!(seen, 20, "these are memory hits");
    // moka does its housekeeping on the calling threads, so an occasional lookup pays for it.
    assert!(counted.count_total <= 2, "{counted:?}");

    let arguments = Arguments {
        path: &found.path_arguments,
        given: Given::Query(query),
    };
    let view = found.resource.key(arguments, &mut key).unwrap();
    let answer = cache
        .get(key.as_str(), found.resource.policy(), None)
        .unwrap();
    let bytes = answer.entry.value.bytes();
    let counted = allocation_counter::measure(|| {
        let Body::Made(body) = view.body(bytes, true) else {
            panic!("news are cut from what is stored");
        };
        assert!(body.ends_with(b",\"cached\":true}"));
    });
    assert!(
        counted.count_total <= 2,
        "the body, and the digits of its total: {counted:?}"
    );
}
