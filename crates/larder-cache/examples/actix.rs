//! The cache in an actix-web server: a request that waits for a slow answer occupies no thread.
//!
//! `cargo run --example actix -- 127.0.0.1:8080`, then `curl localhost:8080/primes/20000` and
//! `curl -X POST localhost:8080/forget`.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use larder_cache::{Cache, Error, InvalidationTarget, LoadError, Policy, Purge, TaggedKey, Typed};

/// How many primes there are below `limit`: slow on purpose.
fn primes_below(limit: u32) -> Result<usize, String> {
    if limit > 1_000_000 {
        return Err("that would take too long".to_owned());
    }
    let is_prime = |n: &u32| {
        (2..)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    Ok((2..limit).filter(is_prime).count())
}

async fn primes(counts: web::Data<Typed<usize>>, limit: web::Path<u32>) -> HttpResponse {
    let limit = limit.into_inner();
    let policy = Policy::new(Duration::from_secs(60), Duration::from_secs(600));
    let wanted = TaggedKey::new().with("below", limit).tag("primes");
    // A memory hit is answered at once. Otherwise a thread of the cache loads while this task
    // waits.
    let found = counts.get_or_load_blocking(wanted, &policy, move || primes_below(limit));
    match found.await {
        Ok((count, outcome)) => HttpResponse::Ok()
            .insert_header(("X-Outcome", format!("{outcome:?}")))
            .body(format!("{count}\n")),
        Err(error @ Error::Cache(LoadError::Overloaded)) => {
            HttpResponse::ServiceUnavailable().body(error.to_string())
        }
        Err(error) => HttpResponse::BadGateway().body(error.to_string()),
    }
}

async fn forget(cache: web::Data<Cache>) -> HttpResponse {
    let cache = cache.into_inner();
    // This waits for Redis, so it must not run on the async worker.
    let done =
        web::block(move || cache.invalidate(&InvalidationTarget::tag("primes"), Purge::Hard)).await;
    match done {
        Ok(done) if done.is_pending() => HttpResponse::Accepted().finish(),
        Ok(_) => HttpResponse::NoContent().finish(),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let at = std::env::args().nth(1);
    let at = at.unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut builder = Cache::builder().prefix("primes");
    if let Ok(url) = std::env::var("REDIS_URL") {
        builder = builder.redis(&url);
    }
    let cache = builder.build()?;
    // Optional. Without it, values loaded before Redis is found are loaded again.
    cache.wait_trusted(Duration::from_secs(5));
    let counts = web::Data::new(cache.typed::<usize>("primes", 1)?);
    let cache = web::Data::new(cache);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(cache.clone())
            .app_data(counts.clone())
            .route("/primes/{limit}", web::get().to(primes))
            .route("/forget", web::post().to(forget))
    });
    let server = server.bind(&at)?.run();
    println!("listening on http://{at}");
    actix_web::rt::System::new().block_on(server)?;
    Ok(())
}
