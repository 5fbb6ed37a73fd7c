//! The two servers that this program is itself, when it is started again: the origin and the bare
//! handler.

use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{App, HttpResponse, HttpServer, web};

use super::BODY;

/// JSON as an API gives it, of exactly [`BODY`] bytes.
fn body() -> String {
    let mut text = String::from("{\"items\":[");
    for at in 0.. {
        let item = format!(
            "{{\"id\":{at},\"name\":\"item {at}\",\"price\":\"{}.50\",\"in_stock\":true}},",
            at * 7
        );
        if text.len() + item.len() + 20 > BODY {
            break;
        }
        text += &item;
    }
    text.pop();
    text += "],\"pad\":\"";
    while text.len() < BODY - 2 {
        text.push('x');
    }
    text + "\"}"
}

/// Runs as `role`, if it is one: until it is ended.
pub fn run(role: &str, arguments: &[String]) -> bool {
    match (role, arguments) {
        ("origin", [at]) => origin(at),
        ("bare", [at, headers]) => bare(at, headers),
        _ => return false,
    }
    true
}

/// Answers everything with the body; what is missed on purpose after a while.
fn origin(at: &str) {
    let body = web::Bytes::from(body());
    let server = HttpServer::new(move || {
        let (fast, slow) = (body.clone(), body.clone());
        App::new()
            .route(
                "/missed/{id}",
                web::get().to(move || {
                    let body = slow.clone();
                    async move {
                        actix_web::rt::time::sleep(Duration::from_millis(5)).await;
                        json().body(body)
                    }
                }),
            )
            .default_service(web::to(move || {
                std::future::ready(json().body(fast.clone()))
            }))
    });
    let server = server.workers(1).bind(at).unwrap().run();
    actix_web::rt::System::new().block_on(server).unwrap();
}

fn json() -> actix_web::HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer.content_type("application/json");
    answer
}

/// Answers with the body and these headers, `name: value` on a line each, and does nothing else.
fn bare(at: &str, headers: &str) {
    let body = web::Bytes::from(body());
    let headers: &'static str = Box::leak(headers.to_owned().into_boxed_str());
    let headers: Vec<(HeaderName, HeaderValue)> = headers
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect();
    let server = HttpServer::new(move || {
        let (body, headers) = (body.clone(), headers.clone());
        // No route either: it answers whatever is asked.
        App::new().default_service(web::to(move || {
            let mut answer = HttpResponse::Ok().body(body.clone());
            for (name, value) in &headers {
                answer.headers_mut().insert(name.clone(), value.clone());
            }
            std::future::ready(answer)
        }))
    });
    let server = server.workers(1).bind(at).unwrap().run();
    actix_web::rt::System::new().block_on(server).unwrap();
}
