//! How the server is: alive, ready, and what its cache has done.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use crate::cache::{ShareStatus, Totals};
use crate::database::Database;

use super::bridge;
use super::edge::Places;
use super::resource::Front;

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
pub(crate) async fn ready(front: web::Data<Front>, health: web::Data<Health>) -> HttpResponse {
    let ping = bridge::database(&health.database, |database| database.ping());
    let database_up = matches!(actix_web::rt::time::timeout(PROOF, ping).await, Ok(Ok(())));
    let redis = front.cache.redis();
    let redis_state = if redis.is_up() {
        "up"
    } else if redis.is_configured() || !front.cache.is_alone() {
        "down"
    } else {
        "standalone"
    };
    let draining = front.lifecycle.is_draining();
    let ready = !draining && database_up && (redis.is_up() || !health.redis_required);
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

/// `GET /cache/stats`.
pub(crate) async fn stats(
    request: HttpRequest,
    front: web::Data<Front>,
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
fn counted(front: &Front) -> Value {
    let resources = front.resources.load();
    // Read once, so that the sums are those of what is told of each.
    let each: Vec<(&str, Totals)> = resources
        .all()
        .iter()
        .map(|resource| (resource.name(), resource.tally().totals()))
        .collect();
    let all: Totals = each.iter().map(|(_, totals)| *totals).sum();
    let memory = front.cache.memory_size();
    let redis = front.cache.redis();
    let bus = front.cache.bus();
    let mut body = rates(&all);
    body["total_keys"] = json!(memory.entries);
    body["memory"] = json!({
        "hits": all.memory_hits, "misses": all.memory_misses,
        "entries": memory.entries, "bytes": memory.bytes, "evictions": memory.evictions,
    });
    body["redis"] = json!({
        "up": redis.is_up(), "hits": all.redis_hits, "misses": all.redis_misses, "errors": redis.errors(),
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
        .iter()
        .map(|(name, totals)| ((*name).to_owned(), rates(totals)));
    body["resources"] = Value::Object(by_resource.collect());
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
