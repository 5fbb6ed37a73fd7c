//! How the server is: alive, ready, and what its cache has done.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use crate::database::Database;
use larder_cache::{Cache, RedisState, ShareStatus, Totals};

use super::bridge;
use super::edge::Places;
use super::resource::AppState;

/// How long the database may take to show that it is there.
const PROOF: Duration = Duration::from_secs(3);

/// What readiness depends on besides the cache.
pub(crate) struct Health {
    pub(crate) database: Database,
    pub(crate) redis_required: bool,
    pub(crate) places: Arc<Places>,
}

/// `GET /healthz`: the process is alive and answers.
pub(crate) async fn alive() -> HttpResponse {
    fresh(HttpResponse::Ok().json(json!({"status": "alive"})))
}

/// `GET /readyz`: 503 while draining, while the database is down, or while a required Redis is.
pub(crate) async fn ready(front: web::Data<AppState>, health: web::Data<Health>) -> HttpResponse {
    let ping = bridge::database(&health.database, |database| database.ping());
    let database_up = matches!(actix_web::rt::time::timeout(PROOF, ping).await, Ok(Ok(())));
    let redis = front.cache.redis();
    let (redis_state, _) = redis_state(&front.cache);
    let redis_serves = redis.state().0.keeps_promises() || !health.redis_required;
    let draining = front.lifecycle.is_draining();
    let ready = !draining && database_up && redis_serves;
    let status = match (draining, ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let body = json!({
        "status": status,
        "database": {"state": if database_up { "up" } else { "down" }, "kind": health.database.kind().to_string()},
        "redis": {"state": redis_state, "required": health.redis_required},
    });
    let mut answer = if ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    if !ready {
        answer.insert_header(("Retry-After", "1"));
    }
    fresh(answer.json(body))
}

/// What Redis takes, or `standalone`, and the error that says why it is not more: only for
/// administrators, since it can name the Redis user.
fn redis_state(cache: &Cache) -> (String, Option<String>) {
    let redis = cache.redis();
    match redis.state() {
        (RedisState::Up, _) => (RedisState::Up.to_string(), None),
        // Whatever listens at the default address, it is no Redis of larder's.
        _ if !redis.is_configured() && cache.is_alone() => ("standalone".to_owned(), None),
        (state, why) => (state.to_string(), Some(why).filter(|why| !why.is_empty())),
    }
}

/// `GET /cache/stats`.
pub(crate) async fn stats(
    request: HttpRequest,
    front: web::Data<AppState>,
    health: web::Data<Health>,
) -> HttpResponse {
    let work = async {
        let mut body = counted(&front);
        let places = health.places.totals();
        body["connections"] = json!({
            "open": places.open, "max": places.most,
            "refused": places.refused, "displaced": places.displaced, "timed_out": places.timed_out,
        });
        let (refused, slowed) = front.access.wrong_keys.totals();
        body["unknown_keys"] = json!({"refused": refused, "slowed": slowed});
        Ok(HttpResponse::Ok().json(body))
    };
    front.access.admins(&request, |_| work).await
}

/// What was counted since this process started.
fn counted(front: &AppState) -> Value {
    let resources = front.resources.load();
    // Read once, so that the sums are those of what is told of each.
    let tallies = resources.all().iter().flat_map(|one| one.tallies());
    let each: Vec<(String, Totals, Totals)> = tallies
        .map(|(name, tally)| (name, tally.totals(), tally.part_totals()))
        .collect();
    // Each request once: what its parts were looked up for stands with them alone.
    let all: Totals = each.iter().map(|(_, own, _)| *own).sum();
    let memory = front.cache.memory_size();
    let redis = front.cache.redis();
    let (state, reason) = redis_state(&front.cache);
    let bus = front.cache.bus();
    let mut body = rates(&all);
    body["total_keys"] = json!(memory.entries);
    body["memory"] = json!({
        "hits": all.memory_hits, "misses": all.memory_misses,
        "entries": memory.entries, "bytes": memory.bytes, "evictions": memory.evictions,
    });
    body["redis"] = json!({
        "up": redis.is_up(), "state": state, "reason": reason, "hits": all.redis_hits, "misses": all.redis_misses, "errors": redis.errors(),
    });
    body["source"] = json!({
        "loads": all.loads, "errors": all.load_errors, "collapsed": all.collapsed, "stale_served": all.stale_served,
    });
    let shares = front.cache.shares();
    body["loads"] = json!({
        "running": shares.iter().map(|share| share.running).sum::<usize>(),
        "waiting": shares.iter().map(|share| share.waiting).sum::<usize>(),
        "shares": shares.iter().map(share).collect::<Vec<_>>(),
    });
    body["bus"] = json!({
        "trusted": bus.trusted, "clock": bus.clock.to_string(), "gaps_repaired": bus.gaps_repaired, "pending": bus.pending,
    });
    let by_resource = each
        .into_iter()
        .map(|(name, own, part)| (name, by_tier(&[own, part].into_iter().sum())));
    body["resources"] = Value::Object(by_resource.collect());
    body
}

/// The look-ups of one resource, those as a part of another included.
fn by_tier(totals: &Totals) -> Value {
    let mut body = rates(totals);
    body["memory"] = json!({"hits": totals.memory_hits, "misses": totals.memory_misses});
    body["redis"] = json!({"hits": totals.redis_hits, "misses": totals.redis_misses});
    body["source"] = json!({
        "loads": totals.loads, "errors": totals.load_errors,
        "collapsed": totals.collapsed, "stale_served": totals.stale_served,
    });
    body
}

fn share(share: &ShareStatus) -> Value {
    json!({
        "name": &*share.name, "running": share.running, "waiting": share.waiting,
        "refused": share.refused, "left": share.left,
    })
}

fn rates(totals: &Totals) -> Value {
    let lookups = totals.hits + totals.misses;
    let percent = if lookups == 0 {
        0.0
    } else {
        totals.hits as f64 * 100.0 / lookups as f64
    };
    json!({"hits": totals.hits, "misses": totals.misses, "hit_rate_percent": (percent * 100.0).round() / 100.0})
}

fn fresh(mut answer: HttpResponse) -> HttpResponse {
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
