//! Under load nothing is lost and nothing is counted twice, while scrapes run beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::scrape::Scrape;
use super::{options, origin};
use testkit::client::Session;
use testkit::larder::{ADMIN_KEY, Larder};

const CLIENTS: usize = 8;
const REQUESTS: usize = 400;

#[test]
fn no_request_is_lost_or_counted_twice_while_scrapes_run_beside_them() {
    let origin = origin();
    let text = "[server]\nworkers = 4\n[resource.quote]";
    let larder = Larder::start(&options(&origin).with_config_text("[resource.quote]", text));
    let before = Scrape::of(&larder);
    let done = AtomicBool::new(false);
    let (scrapes, statuses) = thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let (mut last, mut count) = (before.clone(), 0);
            while !done.load(Ordering::Relaxed) {
                let next = Scrape::of(&larder);
                next.check(Some(&last));
                (last, count) = (next, count + 1);
            }
            count
        });
        let client = |client: usize| {
            let mut session = Session::connect(larder.address()).unwrap();
            let mut statuses = Vec::with_capacity(REQUESTS);
            for request in 0..REQUESTS {
                let (path, key) = match request % 10 {
                    0 => (format!("/quotes/{client}-{request}"), ADMIN_KEY),
                    1 => ("/quotes/a?page=x".to_owned(), ADMIN_KEY),
                    2 => ("/nothing".to_owned(), ADMIN_KEY),
                    3 => ("/people/1".to_owned(), ADMIN_KEY),
                    4 => ("/healthz".to_owned(), ADMIN_KEY),
                    _ => (format!("/quotes/{}", request % 7), ADMIN_KEY),
                };
                statuses.push(session.get(&path, key).unwrap().status);
            }
            statuses
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|at| scope.spawn(move || client(at)))
            .collect();
        let statuses = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let statuses: Vec<u16> = statuses.collect();
        done.store(true, Ordering::Relaxed);
        (scraper.join().unwrap(), statuses)
    });
    assert!(scrapes > 0, "a scrape ran beside the load");
    let after = Scrape::of(&larder);
    after.check(Some(&before));
    let each = (CLIENTS * REQUESTS / 10) as f64;
    // One in ten is a bad parameter, one an unknown path, and one a route of larder's own.
    assert_eq!(after.sum("larder_requests_total", &[]), each * 7.0);
    assert_eq!(
        after.sum("larder_requests_total", &[("resource", "person")]),
        each
    );
    assert_eq!(
        after.sum("larder_request_duration_seconds_count", &[]),
        each * 7.0
    );
    for outcome in ["memory", "redis", "loaded", "collapsed", "stale", "failed"] {
        let labels = [("outcome", outcome)];
        assert_eq!(
            after.get("larder_request_duration_seconds_count", &labels),
            after.sum("larder_requests_total", &labels),
            "{outcome}"
        );
    }
    let counted = |status: u16| statuses.iter().filter(|one| **one == status).count() as f64;
    let grown =
        |status: &str| after.grown(&before, "larder_responses_total", &[("status", status)]);
    assert_eq!((grown("400"), grown("404")), (counted(400), counted(404)));
    // With the scrapes before the last one.
    assert_eq!(grown("200"), counted(200) + f64::from(scrapes) + 1.0);
}
