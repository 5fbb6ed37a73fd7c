//! Composites and their parts: which series they have, and that no sum counts a thing twice.

use std::collections::BTreeSet;

use serde_json::json;

use super::scrape::Scrape;
use super::{config, options, origin};
use testkit::larder::{Larder, LarderOptions};
use testkit::upstream::{Behaviour, Response};

/// The resources that a metric has series of.
fn resources(scrape: &Scrape, metric: &str) -> BTreeSet<String> {
    let series = scrape.labels(metric, &[]).into_iter();
    series
        .map(|(labels, _)| labels["resource"].clone())
        .collect()
}

#[test]
fn a_series_is_there_from_the_start_exactly_where_something_can_be_counted() {
    let news = "[resource.articles]
path = \"/articles\"
params.category = { type = \"string\" }
source = { news = [\"newsapi\"] }
ttl = { memory = \"1h\", redis = \"1h\" }
";
    let text = format!("{}{news}", config(&origin()));
    let larder = Larder::start(&LarderOptions::new(&text));
    let scrape = Scrape::of(&larder);
    // `name` has no path, so no reader can ask for it.
    for metric in ["larder_requests_total", "larder_stale_served_total"] {
        let read = ["articles", "person", "quote", "status"];
        assert_eq!(resources(&scrape, metric), read.map(str::to_owned).into());
    }
    for metric in [
        "larder_part_lookups_total",
        "larder_part_stale_served_total",
    ] {
        let parts = ["articles.newsapi", "name", "status"];
        assert_eq!(resources(&scrape, metric), parts.map(str::to_owned).into());
        assert_eq!(scrape.sum(metric, &[]), 0.0);
    }
    let all = [
        "articles",
        "articles.newsapi",
        "name",
        "person",
        "quote",
        "status",
    ];
    for metric in ["larder_loads_total", "larder_load_duration_seconds_count"] {
        assert_eq!(resources(&scrape, metric), all.map(str::to_owned).into());
    }
    for (labels, _) in scrape.labels("larder_part_lookups_total", &[]) {
        let own = [("resource", &*labels["resource"])];
        let outcomes = scrape.labels("larder_part_lookups_total", &own);
        assert_eq!(outcomes.len(), 6, "{labels:?}");
        let reasons = scrape.labels("larder_part_stale_served_total", &own);
        assert_eq!(reasons.len(), 5, "{labels:?}");
    }
    let parts = |resource| scrape.get("larder_resource_parts", &[("resource", resource)]);
    assert_eq!((parts("person"), parts("articles")), (2.0, 1.0));
    let composites = ["articles", "person"].map(str::to_owned);
    assert_eq!(
        resources(&scrape, "larder_resource_parts"),
        composites.into()
    );
}

#[test]
fn loads_without_those_of_composites_are_what_the_sources_were_asked_for() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    for path in ["/quotes/a", "/people/7", "/people/7", "/people/8"] {
        larder.get(path).expect(200);
    }
    let scrape = Scrape::of(&larder);
    let composites = resources(&scrape, "larder_resource_parts");
    let loads = scrape.labels("larder_loads_total", &[]).into_iter();
    let of_sources = loads.filter(|(labels, _)| !composites.contains(&labels["resource"]));
    let of_sources: f64 = of_sources.map(|(_, count)| count).sum();
    assert_eq!(of_sources, origin.calls() as f64);
    // A composite's load is counted beside those of its parts.
    assert_eq!(
        scrape.sum("larder_loads_total", &[("resource", "person")]),
        2.0
    );
    assert_eq!(scrape.sum("larder_loads_total", &[]), of_sources + 2.0);
}

#[test]
fn a_hit_is_an_answer_that_did_not_wait_also_if_it_is_stale() {
    let origin = origin();
    let ttl = "ttl = { memory = \"1h\", redis = \"1h\" }\n[resource.status]";
    let stale = format!("stale = {{ if_error = \"1h\" }}\n{ttl}");
    let larder = Larder::start(&options(&origin).with_config_text(ttl, &stale));
    larder.get("/people/7").expect(200);
    larder.get("/people/7").expect(200);
    let all = json!({"all": true, "soft": true});
    larder.post("/cache/invalidate", &all).expect(200);
    origin.behave(Behaviour::answer(|request| {
        if request.path.starts_with("/name/") {
            Response::text(500, "oh no")
        } else {
            Response::json(200, &json!({"at": request.path}))
        }
    }));
    // This reader waits for the load that fails. The next one gets the copy at once.
    larder.get("/people/7").expect(200);
    let scrape = Scrape::of(&larder);
    for (metric, resource) in [
        ("larder_stale_served_total", "person"),
        ("larder_part_stale_served_total", "name"),
    ] {
        let waited = [("resource", resource), ("reason", "stale-if-error")];
        assert_eq!(scrape.get(metric, &waited), 1.0, "{metric}");
        assert_eq!(scrape.sum(metric, &[("resource", resource)]), 1.0);
    }
    larder.get("/people/7").expect(200);
    let scrape = Scrape::of(&larder);
    let of = |labels| scrape.sum("larder_requests_total", labels);
    let waited = |reason| scrape.sum("larder_stale_served_total", &[("reason", reason)]);
    let hits =
        of(&[("outcome", "memory")]) + of(&[("outcome", "redis")]) + of(&[("outcome", "stale")])
            - waited("stale-if-error")
            - waited("soft-timeout");
    let stats = larder.stats();
    assert_eq!(hits, stats["hits"].as_f64().unwrap(), "{stats}");
    assert_eq!((hits, of(&[])), (2.0, 4.0));
}
