//! API keys over HTTP: `POST /keys`, `GET /keys`, `DELETE /keys/{id}`.

use std::collections::HashMap;

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::database::{Database, KeyCursor, KeyRate, KeyRow, NewKey};
use crate::quantity::RATE_FORM;
use crate::resource::{BadParameter, Wrong};
use larder_cache::{Cache, InvalidationTarget, Purge};

use super::access::{Access, Actor};
use super::problem::Problem;
use super::{body, bridge, headers};
use crate::auth::{KEYS_CHANGED, KeyTable};

/// Keys on one page, where the request does not say, and at most.
const PAGE: u32 = 1_000;
const LARGEST_PAGE: u32 = 10_000;

/// `POST /keys {"name","rate","admin"}`: 201 with the key, this once.
pub(crate) async fn create(
    request: HttpRequest,
    mut payload: web::Payload,
    access: web::Data<Access>,
    database: web::Data<Database>,
) -> HttpResponse {
    let work = async |actor: Actor| {
        let new = new_key(body::object(&request, &mut payload).await?)?;
        let (name, table) = (new.name.clone(), access.table.clone());
        let (admin, rate) = (new.admin, new.rate.text());
        let created = bridge::database(&database, move |database| {
            let created = database.keys().create(&new)?;
            refresh(&table, database);
            Ok(created)
        });
        let created = created.await?;
        log::info!(
            by_key = actor.id(), request_id = actor.request_id(), trace_id = actor.trace_id();
            "API key {} {name:?} created, admin: {admin}, rate: {}; {actor}",
            created.id,
            rate.as_deref().unwrap_or("the default")
        );
        Ok(HttpResponse::Created()
            .insert_header((LOCATION, format!("/keys/{}", created.id)))
            .json(json!({"id": created.id, "name": name, "key": created.secret.reveal()})))
    };
    access.admins(&request, work).await
}

/// `GET /keys?limit=&after=`: a page of keys, the oldest first. If more follow, `next` is the
/// `after` of the next page.
pub(crate) async fn list(
    request: HttpRequest,
    access: web::Data<Access>,
    database: web::Data<Database>,
) -> HttpResponse {
    let work = async {
        let (place, limit) = page(request.query_string())?;
        let read = move |database: &Database| {
            // One more than the limit, to know whether more follow.
            database.keys().page(place.as_ref(), limit + 1)
        };
        let mut rows = bridge::database(&database, read).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let keys: Vec<Value> = rows.iter().map(key_json).collect();
        let mut body = json!({"keys": keys});
        if let Some(last) = rows.last().filter(|_| more) {
            body["next"] = KeyCursor::after(last).to_string().into();
        }
        Ok(HttpResponse::Ok().json(body))
    };
    access.admins(&request, |_| work).await
}

/// The page that a query asks for. Other parameters are ignored.
fn page(query: &str) -> Result<(Option<KeyCursor>, u32), Problem> {
    let bad = |name: &str, valid: String| {
        Problem::BadParameter(BadParameter {
            name: name.to_owned(),
            wrong: Wrong::NotValid,
            valid,
        })
    };
    let parameters = web::Query::<HashMap<String, String>>::from_query(query);
    let parameters = parameters.map_err(|_| bad("limit", format!("1 to {LARGEST_PAGE}")))?;
    let limit = match parameters.get("limit").map(|text| text.parse()) {
        None => PAGE,
        Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
        Some(_) => return Err(bad("limit", format!("1 to {LARGEST_PAGE}"))),
    };
    let place = parameters.get("after").map(|text| text.parse());
    let place = place.transpose();
    let place = place.map_err(|()| bad("after", "the `next` of a page".to_owned()))?;
    Ok((place, limit))
}

/// `DELETE /keys/{id}`: 204. This replica refuses the key from then on, others within
/// `max_staleness`.
pub(crate) async fn revoke(
    request: HttpRequest,
    id: web::Path<String>,
    access: web::Data<Access>,
    cache: web::Data<Cache>,
    database: web::Data<Database>,
) -> HttpResponse {
    let work = async |actor: Actor| {
        let (id, table) = (id.into_inner(), access.table.clone());
        let revoked = id.clone();
        let cache = cache.get_ref().clone();
        let found = bridge::database(&database, move |database| {
            let found = database.keys().revoke(&id)?;
            table.forget(&id);
            refresh(&table, database);
            // The other replicas look at once. One that misses this looks within max_staleness.
            Ok(found
                .then(|| cache.invalidate(&[InvalidationTarget::tag(KEYS_CHANGED)], Purge::Hard)))
        });
        match found.await? {
            Some(receipt) => {
                log::info!(
                    by_key = actor.id(), request_id = actor.request_id(), trace_id = actor.trace_id();
                    "API key {revoked} revoked; {actor}"
                );
                let mut answer = HttpResponse::NoContent();
                headers::set_receipt(receipt, &mut answer);
                Ok(answer.finish())
            }
            None => Err(Problem::NotFound("There is no key with this id.")),
        }
    };
    access.admins(&request, work).await
}

/// Makes a change hold here at once. If the keys cannot be read now, the refresher reads them
/// later.
fn refresh(table: &KeyTable, database: &Database) {
    if let Err(error) = table.refresh(database) {
        log::warn!("the changed API keys cannot be read: {error}");
    }
}

fn new_key(mut body: Map<String, Value>) -> Result<NewKey, Problem> {
    let bad = Problem::bad_field;
    let name = match body.remove("name") {
        Some(Value::String(name)) => name,
        _ => return Err(bad("name", "text of 1 to 100 characters")),
    };
    if name.trim().is_empty() || name.chars().count() > 100 || name.contains(char::is_control) {
        return Err(bad(
            "name",
            "text of 1 to 100 characters, not only spaces, without control characters",
        ));
    }
    let rate_form = format!("{RATE_FORM}, \"unlimited\", or null for the default");
    let rate = match body.remove("rate") {
        None | Some(Value::Null) => KeyRate::Configured,
        Some(Value::String(text)) => KeyRate::parse(&text).map_err(|_| bad("rate", &rate_form))?,
        Some(_) => return Err(bad("rate", &rate_form)),
    };
    let admin = match body.remove("admin") {
        None => false,
        Some(Value::Bool(admin)) => admin,
        Some(_) => return Err(bad("admin", "true or false")),
    };
    match body.keys().next() {
        Some(unknown) => Err(bad(unknown, "the fields are name, rate and admin")),
        None => Ok(NewKey { name, rate, admin }),
    }
}

fn key_json(row: &KeyRow) -> Value {
    let time = |ms: i64| {
        Timestamp::from_millisecond(ms)
            .map(|time| time.to_string())
            .ok()
    };
    json!({
        "id": row.id,
        "name": row.name,
        "rate": row.rate.text(),
        "admin": row.admin,
        "created_at": time(row.created_at),
        "last_used_at": row.last_used_at.and_then(time),
    })
}
