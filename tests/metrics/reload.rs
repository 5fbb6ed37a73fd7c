//! A reload resets no counter.

use super::scrape::Scrape;
use super::{config, options, origin};
use testkit::larder::Larder;
use testkit::{SOON, until};

/// Reads of one resource, by outcome.
#[track_caller]
fn reads(scrape: &Scrape, resource: &str, outcome: &str) -> f64 {
    let labels = [("resource", resource), ("outcome", outcome)];
    scrape.get("larder_requests_total", &labels)
}

#[test]
fn counters_go_on_over_a_reload_that_changes_removes_and_restores_resources() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    let reload = |text: &str| {
        let reloads = |larder: &Larder| larder.log().matches(" reloaded: ").count();
        let before = reloads(&larder);
        larder.reload(text);
        until(SOON, "it is reloaded", || reloads(&larder) > before);
    };
    larder.get("/quotes/a").expect(200);
    larder.get("/quotes/a").expect(200);
    larder.get("/status/1").expect(200);
    let before = Scrape::of(&larder);

    // The resource and its upstream are changed, so the value is loaded again.
    let changed = config(&origin)
        .replace("tags = [\"quote:{symbol}\"]", "tags = [\"q:{symbol}\"]")
        .replace("1000/1h", "2000/1h");
    reload(&changed);
    larder.get("/quotes/a").expect(200);
    let scrape = Scrape::of(&larder);
    scrape.check(Some(&before));
    assert_eq!(reads(&scrape, "quote", "loaded"), 2.0);
    assert_eq!(reads(&scrape, "quote", "memory"), 1.0);
    let calls = [("upstream", "quotes"), ("result", "ok")];
    assert_eq!(scrape.get("larder_upstream_calls_total", &calls), 2.0);

    // All other resources are removed. Their counters stay, and go on when they are declared again.
    let (quote, _) = changed.split_once("[resource.name]").unwrap();
    reload(quote);
    larder.get("/status/1").expect(404);
    let removed = Scrape::of(&larder);
    removed.check(Some(&scrape));
    assert_eq!(reads(&removed, "status", "loaded"), 1.0);
    reload(&changed);
    larder.get("/status/1").expect(200);
    let restored = Scrape::of(&larder);
    restored.check(Some(&removed));
    assert_eq!(
        restored.sum("larder_requests_total", &[("resource", "status")]),
        2.0
    );
    let stats = larder.stats();
    assert_eq!(stats["resources"]["quote"]["hits"], 1, "{stats}");
}
