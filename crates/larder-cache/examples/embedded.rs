//! The cache in a plain threaded program: eight threads want one slow answer, and it is worked out
//! once.
//!
//! `cargo run --example embedded`. Run it twice at one time with
//! `REDIS_URL=redis://127.0.0.1:6379`: both share one load, and an invalidation by one reaches the
//! other.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::thread;
use std::time::Duration;

use larder_cache::{Cache, InvalidationTarget, Outcome, Policy, Purge, TaggedKey};
use serde::{Deserialize, Serialize};

/// The cached value: anything that serde_json round-trips. Memory holds it as it is.
#[derive(Debug, Serialize, Deserialize)]
struct Weather {
    city: String,
    degrees: i32,
}

/// Stands for a slow query or call.
fn slow_weather(city: &str, degrees: i32) -> Result<Weather, String> {
    thread::sleep(Duration::from_millis(300));
    Ok(Weather {
        city: city.to_owned(),
        degrees,
    })
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut builder = Cache::builder().memory(16 << 20).prefix("weather");
    if let Ok(url) = std::env::var("REDIS_URL") {
        builder = builder.redis(&url);
    }
    let cache = builder.build()?;
    // Optional. Without it, values loaded before Redis is found are loaded again.
    cache.wait_trusted(Duration::from_secs(5));
    // Fresh for half a minute here, for five minutes in Redis.
    let policy = Policy::new(Duration::from_secs(30), Duration::from_secs(300));
    // Other programs recognise the type by this name and version.
    let weather = cache.typed::<Weather>("weather", 1)?;
    let of = |city: &str| {
        TaggedKey::new()
            .with("city", city)
            .tag(format_args!("city:{city}"))
    };

    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let ask = || {
            let load = || slow_weather("Zürich", 12);
            weather.get_or_load(of("Zürich"), &policy, load)
        };
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let answers = asked.into_iter().filter_map(|thread| thread.join().ok());
        answers
            .map(|answer| answer.map(|(_, outcome)| outcome))
            .collect::<Result<_, _>>()
    })?;
    let loads = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Loaded)
        .count();
    println!("8 threads asked, {loads} load was made");

    let (found, outcome) =
        weather.get_or_load(of("Zürich"), &policy, || slow_weather("Zürich", 99))?;
    println!("then: {} degrees, {outcome:?}", found.degrees);

    // The weather has changed. The old value is gone here at once, and elsewhere within
    // `max_staleness`.
    cache.invalidate(&InvalidationTarget::tag("city:Zürich"), Purge::Hard);
    let (found, outcome) =
        weather.get_or_load(of("Zürich"), &policy, || slow_weather("Zürich", 7))?;
    println!("after the change: {} degrees, {outcome:?}", found.degrees);

    // No load: what the tiers have, or nothing.
    let known = weather.get_many(["Zürich", "Nowhere"].map(of), &policy);
    let known = known.iter().flatten().count();
    println!("known without a load: {known} of 2");

    // Absence is cached too.
    for _ in 0..2 {
        let (found, outcome) = weather.find_or_load(of("Atlantis"), &policy, || {
            Ok::<Option<Weather>, String>(None)
        })?;
        println!("Atlantis: {found:?}, {outcome:?}");
    }

    // The caller gets the error's text. The next caller loads again at once.
    let failed = weather.get_or_load(of("Nowhere"), &policy, || Err::<Weather, _>("no station"));
    if let Err(error) = failed {
        println!("Nowhere: {error}");
    }
    let stats = cache.stats();
    println!("{} loads, {} failed", stats.loads, stats.failed_loads);
    // Dropping the last clone delivers pending invalidations, for a second at most, and ends all
    // threads and connections.
    Ok(())
}
