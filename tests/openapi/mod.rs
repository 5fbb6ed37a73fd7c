//! `/openapi.json` and `larder openapi`: the document says what the server does.

mod answers;
mod command;
mod described;
mod served;
mod shop;

use serde_json::Value;

use testkit::larder::Larder;

const SHIPPED: &str = include_str!("../../config.toml");

fn document(larder: &Larder) -> Value {
    // Without a key: anyone may read it.
    let call = larder.call("GET", "/openapi.json");
    call.send().expect(200).json()
}

fn operation<'d>(document: &'d Value, method: &str, path: &str) -> &'d Value {
    let found = &document["paths"][path][method];
    assert!(found.is_object(), "no {method} {path}: {document}");
    found
}

/// The value that a reference leads to, or the value itself.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(place) => document
            .pointer(&place[1..])
            .unwrap_or_else(|| panic!("no {place}")),
        None => value,
    }
}

fn statuses(operation: &Value) -> Vec<&str> {
    let responses = operation["responses"].as_object().unwrap();
    responses.keys().map(String::as_str).collect()
}

fn parameter<'o>(operation: &'o Value, name: &str) -> &'o Value {
    let all = operation["parameters"].as_array().unwrap();
    let mut named = all.iter().filter(|parameter| parameter["name"] == name);
    named
        .next()
        .unwrap_or_else(|| panic!("no {name}: {operation}"))
}

/// The schema of an answer's body.
fn schema<'d>(document: &'d Value, operation: &'d Value, status: &str) -> &'d Value {
    let content = &operation["responses"][status]["content"];
    resolved(document, &content["application/json"]["schema"])
}
