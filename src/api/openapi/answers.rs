//! What an operation answers: its values and its problems, with their headers.

use std::collections::BTreeMap;

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{AnyOfBuilder, Object, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, Schema};

use crate::api::problem::Problem;

use super::schemas;

/// The headers of an answer with a value.
pub(super) const OF_VALUE: [&str; 6] = [
    "Cache-Status",
    "Age",
    "ETag",
    "Cache-Control",
    "Server-Timing",
    "X-Request-Id",
];
/// The headers of the answer to a `QUERY`, beside those of every read.
pub(super) const OF_QUERY: [&str; 1] = ["Accept-Query"];
/// The headers of the answer to a write.
pub(super) const OF_WRITE: [&str; 4] = [
    "Larder-Clock",
    "Larder-Pending",
    "Cache-Control",
    "X-Request-Id",
];
/// The headers that say what is left of a key's rate.
pub(super) const OF_RATE: [&str; 2] = ["RateLimit", "RateLimit-Policy"];

/// A header, as a component.
struct HeaderText {
    /// The name of the component. A header that some answers always have and others sometimes is
    /// two components.
    component: &'static str,
    name: &'static str,
    always: bool,
    kind: Type,
    says: &'static str,
}

const fn header(name: &'static str, always: bool, kind: Type, says: &'static str) -> HeaderText {
    HeaderText {
        component: name,
        name,
        always,
        kind,
        says,
    }
}

const HEADERS: [HeaderText; 15] = [
    header(
        "Accept-Query",
        true,
        Type::String,
        "What the body of a QUERY may be (RFC 10008): `application/json`.",
    ),
    header(
        "Age",
        true,
        Type::Integer,
        "How old the value is, in seconds.",
    ),
    header(
        "Cache-Control",
        true,
        Type::String,
        "How long a client may keep the answer without asking again.",
    ),
    header(
        "Cache-Status",
        true,
        Type::String,
        "Which tier answered, the one nearest to the source first (RFC 9211): `larder-memory; hit; ttl=27`.",
    ),
    header(
        "ETag",
        true,
        Type::String,
        "The entity tag of the value, for `If-None-Match`. A strong one is for `If-Match` too.",
    ),
    header(
        "Larder-Clock",
        false,
        Type::String,
        "The clock of this change, for `Larder-After`. Missing while the change is pending.",
    ),
    header(
        "Larder-Pending",
        false,
        Type::Boolean,
        "`true` if other replicas learn of this change later.",
    ),
    header(
        "Location",
        true,
        Type::String,
        "The path of what was created.",
    ),
    header(
        "RateLimit",
        false,
        Type::String,
        "What is left of the key's rate. Missing for a key without a limit.",
    ),
    header(
        "RateLimit-Policy",
        false,
        Type::String,
        "The key's rate, as requests and seconds. Missing for a key without a limit.",
    ),
    header(
        "Retry-After",
        true,
        Type::Integer,
        "When to ask again, in seconds.",
    ),
    HeaderText {
        component: "Retry-After-if-known",
        ..header(
            "Retry-After",
            false,
            Type::Integer,
            "When to ask again, in seconds, if that is known.",
        )
    },
    header(
        "Server-Timing",
        false,
        Type::String,
        "How long each tier took, if memory did not have the value.",
    ),
    header("WWW-Authenticate", true, Type::String, "`Bearer`."),
    header(
        "X-Request-Id",
        true,
        Type::String,
        "The id of the request, which the log has too: from the request's own header, or made here.",
    ),
];

/// Every header, by the name of its component.
pub(super) fn headers() -> BTreeMap<String, RefOr<Header>> {
    let header = |text: &HeaderText| {
        // The type of a header here has no `required` of its own.
        let required = text
            .always
            .then(|| Extensions::from_iter([("required", true)]));
        let schema = ObjectBuilder::new().schema_type(text.kind.clone());
        let schema = match text.kind {
            Type::Integer => schema.minimum(Some(0)),
            _ => schema,
        };
        let header = HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(text.says))
            .extensions(required);
        (text.component.to_owned(), RefOr::T(header.build()))
    };
    HEADERS.iter().map(header).collect()
}

/// An answer with these headers.
pub(super) fn answer(says: &str, headers: &[&'static str]) -> ResponseBuilder {
    let answer = ResponseBuilder::new().description(says);
    headers.iter().fold(answer, |answer, component| {
        let text = HEADERS.iter().find(|text| text.component == *component);
        let name = text.map_or(*component, |text| text.name);
        let place = format!("#/components/headers/{component}");
        answer.header_ref(name, Ref::new(place))
    })
}

/// An answer with these headers and a JSON body.
pub(super) fn with_body(
    says: &str,
    headers: &[&'static str],
    schema: RefOr<Schema>,
) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(schema)).build();
    answer(says, headers).content("application/json", content)
}

/// The answers for these problems, one for each status. `has_rate`: the caller has an API key.
/// `accepts_query`: whether the answer with a status says that the path takes `QUERY`.
pub(super) fn refusals(
    problems: &[Problem],
    has_rate: bool,
    is_read: bool,
    accepts_query: impl Fn(u16) -> bool,
) -> Vec<(String, ResponseBuilder)> {
    let mut by_status: BTreeMap<u16, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        by_status.entry(problem.status()).or_default().push(problem);
    }
    let refusal = |(status, problems): (u16, Vec<&Problem>)| {
        let mut headers = vec!["Cache-Control", "X-Request-Id"];
        let (mut titles, mut kinds) = (Vec::new(), Vec::new());
        for problem in problems {
            titles.push(problem.title());
            kinds.push(schemas::reference(&component(problem)));
        }
        match status {
            401 => headers.push("WWW-Authenticate"),
            429 | 503 => headers.push("Retry-After"),
            502 | 504 => headers.push("Retry-After-if-known"),
            404 if is_read => headers.extend(["Age", "Server-Timing"]),
            _ => {}
        }
        if is_read && matches!(status, 404 | 502 | 503 | 504) {
            headers.push("Cache-Status");
        }
        if accepts_query(status) {
            headers.extend(OF_QUERY);
        }
        // These come before the rate of the key is looked at.
        if has_rate && !matches!(status, 401 | 403) {
            headers.extend(OF_RATE);
        }
        let schema = match kinds.len() {
            1 => kinds.remove(0),
            _ => kinds
                .into_iter()
                .fold(AnyOfBuilder::new(), AnyOfBuilder::item)
                .into(),
        };
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let answer = answer(&format!("{}.", titles.join("; ")), &headers);
        let answer = answer.content("application/problem+json", content);
        (status.to_string(), answer)
    };
    by_status.into_iter().map(refusal).collect()
}

/// The name of the component that describes a kind of problem.
pub(super) fn component(problem: &Problem) -> String {
    format!("problem.{}", problem.kind().1)
}

/// The schema of a kind of problem (RFC 9457).
pub(super) fn problem(problem: &Problem) -> RefOr<Schema> {
    let text = || Object::with_type(Type::String);
    let one = |value: String| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some([value]))
    };
    let status = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .enum_values(Some([problem.status()]));
    let mut schema = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("type", one(problem.uri()))
        .required("type")
        .property("title", one(problem.title().to_owned()))
        .required("title")
        .property("status", status)
        .required("status")
        .property("detail", text())
        .required("detail");
    let more: &[&str] = match problem {
        Problem::BadParameter(_) => &["parameter", "valid"],
        Problem::BadField { .. } => &["field", "valid"],
        _ => &[],
    };
    for name in more {
        schema = schema.property(*name, text()).required(*name);
    }
    if matches!(problem, Problem::Conflict { .. }) {
        schema = schema.property("field", text());
    }
    schema.into()
}
