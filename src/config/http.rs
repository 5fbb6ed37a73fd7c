//! HTTP sources, and their upstreams.

use std::time::Duration;

use serde_json::Value as Json;

use super::environment::Environment;
use super::json;
use super::params::Declared;
use super::paths::is_name;
use super::reader::{Setting, Shape, Table};
use super::upstreams;
use crate::resource::{HttpSourceSettings, SourceSettings};
use crate::source::{
    HttpUpstreamSettings, JsonApiSettings, JsonTemplate, NEWS_UPSTREAMS, Place, SourceMethod,
    TtlFrom,
};
use crate::template::Template;
use larder_cache::Policy;

const URL_FORM: &str = "\"https://api.example.com/v1/quote/{symbol}\"";
const METHOD_FORM: &str = "\"GET\", \"POST\" or \"QUERY\"";
const JSON_FORM: &str = "a table or an array, such as { q = \"{q}\" }";
const STORE_FORM: &str = "a JSON value, or an array of them, of which one has to be there";
const PICK_FORM: &str = "a JSON pointer such as \"/data/items\"";
const TEMPLATE_FORM: &str = "a text, in which {name} is a parameter and ${NAME} a variable";
const TTL_FORM: &str = "{ memory = \"1s\", redis = \"5s\" } or \"upstream\"";
/// The longest lifetime that an upstream can declare.
const LONGEST: Duration = Duration::from_secs(86_400);
/// How long an expired value is kept for revalidation.
const REVALIDATED: Duration = Duration::from_secs(86_400);

/// What HTTP sources need beside their own table.
#[derive(Clone, Copy)]
pub(super) struct Apis<'r, 'e> {
    /// The root of the file, for its upstreams.
    pub(super) root: &'r Table<'r>,
    pub(super) env: Environment<'e>,
}

/// Reads the HTTP API in `table`, the source of the resource `name`. `None` if it is not valid.
pub(super) fn source(
    table: &Table<'_>,
    name: &str,
    params: &[Declared<'_>],
    ttl: TtlFrom,
    apis: Apis<'_, '_>,
) -> Option<SourceSettings> {
    let template = |value: &Setting<'_>| -> Option<Template> {
        let text = value.text(TEMPLATE_FORM)?;
        match Template::parse(text, &|name| apis.env.get(name)) {
            Ok(template) => Some(template),
            Err(error) => {
                // The value is not shown: it may be a key by mistake.
                value.fault(error, TEMPLATE_FORM);
                None
            }
        }
    };
    let names: Vec<&str> = params.iter().map(|param| param.name).collect();
    let known = |value: &Setting<'_>, template: &Template| {
        for name in template.params().filter(|name| !names.contains(name)) {
            value.fault(
                format!("has {{{name}}}, which is not a parameter of this resource"),
                format!("no other parameters than {}", names.join(", ")),
            );
        }
    };
    let url_at = table.need("http", URL_FORM)?;
    let url = template(&url_at);
    let named = |key: &'static str| -> Vec<(String, Setting<'_>, Template)> {
        let entries = table.table(key).entries().into_iter();
        entries
            .filter_map(|(name, value)| {
                let template = template(&value)?;
                Some((name.to_owned(), value, template))
            })
            .collect()
    };
    let (headers, query) = (named("headers"), named("query"));
    let pick_at = table.get("pick");
    let pick = pick_at.as_ref().and_then(|value| value.text(PICK_FORM));
    let method_at = table.get("method");
    let method = method_at.as_ref().map(|value| {
        value.parse(METHOD_FORM, |text| {
            let mut all = SourceMethod::ALL.into_iter();
            all.find(|method| method.name() == text)
        })
    });
    let json_at = table.get("json");
    let json = json_at.as_ref().map(|value| {
        body(value, &|text| {
            let template = template(text)?;
            known(text, &template);
            Some(template)
        })
    });
    let conditions = table.table("store_if").entries();
    let store_if = conditions.iter().filter_map(condition).collect();
    let upstream = upstream(table, name, apis);
    for (_, value, template) in headers.iter().chain(&query) {
        known(value, template);
    }
    if let Some(url) = &url {
        known(&url_at, url);
        for param in params.iter().filter_map(|param| param.settings.as_ref()) {
            let missing = !param.required && param.default.is_none();
            if missing && url.params().any(|name| name == param.name) {
                url_at.fault(
                    format!("has {{{}}}, which a request may leave out", param.name),
                    "a parameter that is required or has a default, or its place in query",
                );
            }
        }
    }
    let plain = |all: &[(String, Setting<'_>, Template)]| {
        let all = all.iter();
        all.map(|(name, _, template)| (name.clone(), template.clone()))
            .collect()
    };
    // An error in one of these does not hide those in the others: for what could not be read, and
    // is reported, something valid stands in.
    let any_body = || JsonTemplate::Object(Vec::new());
    let any_method = match json_at {
        Some(_) => SourceMethod::Post,
        None => SourceMethod::Get,
    };
    let api = JsonApiSettings {
        url: url.or_else(|| Template::parse("http://localhost/", &|_| None).ok())?,
        headers: plain(&headers),
        query: plain(&query),
        method: method.map_or(SourceMethod::Get, |method| method.unwrap_or(any_method)),
        json: json.map(|json| json.unwrap_or_else(any_body)),
        pick: pick.map(str::to_owned),
        store_if,
        ttl,
    };
    for fault in api.faults() {
        let entry = |all: &'_ [(String, Setting<'_>, Template)], name: &str| -> bool {
            let found = all.iter().find(|(known, ..)| known == name);
            if let Some((_, value, _)) = found {
                value.fault(&fault.problem, fault.valid);
            }
            found.is_some()
        };
        let at = |place: Option<&Setting<'_>>| -> bool {
            let place = place.inspect(|value| value.fault(&fault.problem, fault.valid));
            place.is_some()
        };
        let reported = match &fault.place {
            Place::Url => false,
            Place::Header(name) => entry(&headers, name),
            Place::Query(name) => entry(&query, name),
            Place::Method => at(method_at.as_ref()),
            Place::Json => at(json_at.as_ref()),
            Place::Pick => at(pick_at.as_ref()),
            Place::StoreIf(pointer) => {
                let found = conditions.iter().find(|(known, _)| known == pointer);
                at(found.map(|(_, value)| value))
            }
        };
        if !reported {
            url_at.fault(&fault.problem, fault.valid);
        }
    }
    Some(SourceSettings::Http(Box::new(HttpSourceSettings {
        api,
        upstream: upstream?,
    })))
}

/// The body of its requests. `text` reads one of its texts.
fn body(
    value: &Setting<'_>,
    text: &dyn Fn(&Setting<'_>) -> Option<Template>,
) -> Option<JsonTemplate> {
    let is_body = matches!(value.shape()?, Shape::Array(_) | Shape::Table(_));
    if !is_body {
        value.wrong(JSON_FORM);
        return None;
    }
    json::template(value, text)
}

/// A pointer of `store_if`, and the values of which it has to lead to one.
fn condition((pointer, value): &(&str, Setting<'_>)) -> Option<(String, Vec<Json>)> {
    if json::has_place(pointer) {
        value.fault(
            "has a place in its pointer",
            "a pointer without {name} and ${NAME}",
        );
        return None;
    }
    let values = match json::literal(value)? {
        Json::Array(values) if values.is_empty() => {
            value.fault("is empty", STORE_FORM);
            return None;
        }
        Json::Array(values) => values,
        one => vec![one],
    };
    Some(((*pointer).to_owned(), values))
}

/// Its upstream: a shared one, or one of its own with the resource's name.
fn upstream(table: &Table<'_>, resource: &str, apis: Apis<'_, '_>) -> Option<HttpUpstreamSettings> {
    let Some(value) = table.get("upstream") else {
        return Some(HttpUpstreamSettings::new(resource));
    };
    const FORM: &str = "a name, under which [upstream.NAME] may have a timeout and a quota";
    let name = value.text(FORM)?;
    if !is_name(name) || NEWS_UPSTREAMS.contains(&name) {
        value.wrong(format!("{FORM}; not {}", NEWS_UPSTREAMS.join(" or ")));
        return None;
    }
    Some(upstreams::http(apis.root, name))
}

/// Who decides how long a value is fresh: the upstream, with `ttl = "upstream"`, or the resource.
pub(super) fn ttl_from(resource: &Table<'_>) -> TtlFrom {
    match resource.get("ttl").and_then(|value| value.as_text()) {
        Some(_) => TtlFrom::Upstream,
        None => TtlFrom::Resource,
    }
}

/// The TTLs with `ttl = "upstream"`: the longest lifetime that it can declare.
pub(super) fn ttl_of_upstream(value: &Setting<'_>) -> [Option<Duration>; 3] {
    if value.as_text() != Some("upstream") {
        value.wrong(TTL_FORM);
    }
    [Some(LONGEST); 3]
}

/// The policy with time for revalidation.
pub(super) fn kept(policy: Policy) -> Policy {
    Policy {
        revalidate: REVALIDATED,
        ..policy
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{faults_with, parse_with};
    use super::*;

    const KEY: [(&str, &str); 1] = [("KEY", "s3cr3t")];

    /// A file with one HTTP source that has these lines, the first of them in line 7.
    fn file(lines: &str) -> String {
        format!(
            "[resource.a]\npath = \"/a\"\nparams = {{ q = {{ type = \"string\" }}, n = {{ type = \"integer\" }} }}\nttl = {{ memory = \"1s\", redis = \"1s\" }}\n[resource.a.source]\nhttp = \"https://h/\"\n{lines}\n"
        )
    }

    fn api(lines: &str) -> JsonApiSettings {
        let config = parse_with(&file(lines), &KEY).unwrap_or_else(|errors| panic!("{errors}"));
        match config.resources[0].source.clone() {
            Some(SourceSettings::Http(http)) => http.api,
            other => panic!("{other:?}"),
        }
    }

    /// The errors, without the path of the source.
    fn wrong(lines: &str) -> Vec<String> {
        let found = faults_with(&file(lines), &KEY);
        assert!(!format!("{found:?}").contains("s3cr3t"), "{found:?}");
        let short = |line: &String| {
            line.replace("config.toml:", "")
                .replace("resource.a.source.", "")
        };
        found.iter().map(short).collect()
    }

    fn text(text: &str) -> JsonTemplate {
        let key = |_: &str| Some(KEY[0].1.to_owned());
        JsonTemplate::Text(Template::parse(text, &key).unwrap())
    }

    #[test]
    fn a_body_has_the_values_of_the_file_in_its_order() {
        let api = api(r#"
method = "QUERY"
json.query = """
query {{ user(id: {n}) {{ name }} }}
"""
json.z = [1, -9223372036854775808, 18_446_744_073_709_551_615, 0xff, 1.5, 1e3, -0.0, true, []]
json.a = { "$filter" = "{q}", "a{b" = "${KEY}", "}{" = { } }
json.b = [{ "c d" = "{q} {n}" }, [["{n}"]]]
"#);
        assert_eq!(api.method, SourceMethod::Query);
        let numbers = json!([1, i64::MIN, u64::MAX, 255, 1.5, 1000.0, -0.0, true]);
        let numbers = numbers.as_array().unwrap().iter().cloned();
        let mut numbers: Vec<JsonTemplate> = numbers.map(JsonTemplate::Literal).collect();
        numbers.push(JsonTemplate::Array(Vec::new()));
        let object = |members: Vec<(&str, JsonTemplate)>| {
            let members = members.into_iter();
            JsonTemplate::Object(
                members
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            )
        };
        let array = JsonTemplate::Array;
        let expected = object(vec![
            ("query", text("query {{ user(id: {n}) {{ name }} }}\n")),
            ("z", array(numbers)),
            (
                "a",
                object(vec![
                    ("$filter", text("{q}")),
                    ("a{b", text("${KEY}")),
                    ("}{", object(vec![])),
                ]),
            ),
            (
                "b",
                array(vec![
                    object(vec![("c d", text("{q} {n}"))]),
                    array(vec![array(vec![text("{n}")])]),
                ]),
            ),
        ]);
        assert_eq!(api.json, Some(expected));
        assert!(!format!("{api:?}").contains("s3cr3t"));
        let params: Vec<&str> = api.params().collect();
        assert_eq!(params, ["n", "q", "q", "n", "n"]);
    }

    #[test]
    fn a_get_needs_none_of_it() {
        let api = api("");
        assert_eq!((api.method, api.json), (SourceMethod::Get, None));
        assert!(api.store_if.is_empty());
    }

    #[test]
    fn the_tables_of_a_file_are_members_too() {
        let api = api(r#"
method = "POST"
[resource.a.source.json]
model = "m"
[[resource.a.source.json.messages]]
role = "user"
content = "{q}"
[[resource.a.source.json.messages]]
role = "system"
[resource.a.source.store_if]
"/a" = 1
"#);
        let message = |members: &[(&str, &str)]| {
            let members = members.iter();
            JsonTemplate::Object(
                members
                    .map(|(name, value)| ((*name).to_owned(), text(value)))
                    .collect(),
            )
        };
        let messages = JsonTemplate::Array(vec![
            message(&[("role", "user"), ("content", "{q}")]),
            message(&[("role", "system")]),
        ]);
        let expected = JsonTemplate::Object(vec![
            ("model".to_owned(), text("m")),
            ("messages".to_owned(), messages),
        ]);
        assert_eq!(api.json, Some(expected));
        assert_eq!(api.store_if, [("/a".to_owned(), vec![json!(1)])]);
    }

    #[test]
    fn conditions_are_values_or_several_of_them() {
        let api = api(r#"
store_if = { "/a" = "stop", "/b/0" = ["stop", 1.5, [1], { x = '{"q":1} {}' }], "" = true, "/c" = [[]] }
"#);
        let expected = [
            ("/a", vec![json!("stop")]),
            // Texts are what they are.
            (
                "/b/0",
                vec![
                    json!("stop"),
                    json!(1.5),
                    json!([1]),
                    json!({"x": "{\"q\":1} {}"}),
                ],
            ),
            ("", vec![json!(true)]),
            ("/c", vec![json!([])]),
        ];
        let expected = expected.map(|(pointer, values)| (pointer.to_owned(), values));
        assert_eq!(api.store_if, expected);
    }

    #[test]
    fn every_error_of_a_question_is_reported_at_once() {
        let found = wrong(
            r#"method = "post"
pick = "a"
json.a = 2026-01-02
json.b = [nan, { c = -inf }, 1e400]
json.d = 18446744073709551616
json.e = "{x} ${KEY}"
json.f = "{q"
json.g = "${MISSING}"
json."{q}" = 1
json.h = { "x${KEY}y" = 1, "{{q}}" = 1 }
store_if = { "b" = 1, "/c" = [], "/d" = [2026-01-02T03:04:05Z], "/~" = "x", "/e" = ["{q}"], "/f${KEY}" = 1, "/g" = { h = "a ${KEY}" } }
retry = 1"#,
        );
        let form = "a text, in which {name} is a parameter and ${NAME} a variable";
        let range = "a whole number from -9223372036854775808 to 18446744073709551615";
        let dates = "a text such as \"2026-01-02\": JSON has no dates";
        let finite = "a finite number, as JSON has it";
        let name = "a name without places: it is sent as it is";
        let values = "a JSON value, or an array of them, of which one has to be there";
        let pointer =
            "\"/data/items/0\": a slash before each name, ~1 for a slash and ~0 for a tilde in one";
        let literal = "a text without {name} and ${NAME}";
        let keys = "headers, http, json, method, pick, query, store_if, upstream";
        let mut expected = vec![
            "7: method: is \"post\"; valid: \"GET\", \"POST\" or \"QUERY\"".to_owned(),
            format!("8: pick: is not a valid JSON pointer; valid: {pointer}"),
            format!("9: json.a: is 2026-01-02; valid: {dates}"),
            format!("10: json.b: is nan; valid: {finite}"),
            format!("10: json.b.c: is -inf; valid: {finite}"),
            format!("10: json.b: is 1e400; valid: {finite}"),
            format!("11: json.d: is 18446744073709551616; valid: {range}"),
            "12: json.e: has {x}, which is not a parameter of this resource; valid: no other parameters than q, n"
                .to_owned(),
            format!("13: json.f: has a brace without its other half, or an empty pair; valid: {form}"),
            format!("14: json.g: names ${{MISSING}}, which is missing from the environment; valid: {form}"),
            format!("15: json.\"{{q}}\": has a place in its name; valid: {name}"),
            format!("16: json.h.\"x${{KEY}}y\": has a place in its name; valid: {name}"),
            format!("16: json.h.\"{{{{q}}}}\": has a place in its name; valid: {name}"),
            format!("17: store_if.b: is not a valid JSON pointer; valid: {pointer}"),
            format!("17: store_if.\"/c\": is empty; valid: {values}"),
            format!("17: store_if.\"/d\": is 2026-01-02T03:04:05Z; valid: {dates}"),
            format!("17: store_if.\"/~\": is not a valid JSON pointer; valid: {pointer}"),
            format!("17: store_if.\"/e\": has a place, and is compared as it is; valid: {literal}"),
            "17: store_if.\"/f${KEY}\": has a place in its pointer; valid: a pointer without {name} and ${NAME}"
                .to_owned(),
            format!("17: store_if.\"/g\".h: has a place, and is compared as it is; valid: {literal}"),
            format!("18: retry: is an unknown key; valid: {keys}"),
        ];
        let mut found = found;
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_method_and_a_body_have_to_fit() {
        for (lines, error) in [
            (
                "json = { q = \"{q}\" }",
                "7: json: is a body, which a GET does not send; valid: method = \"POST\" or method = \"QUERY\" beside it",
            ),
            (
                "method = \"GET\"\njson = []",
                "8: json: is a body, which a GET does not send; valid: method = \"POST\" or method = \"QUERY\" beside it",
            ),
            (
                "method = \"QUERY\"",
                "7: method: is QUERY, which needs a body; valid: json = { q = \"{q}\" } beside it",
            ),
            (
                "method = \"POST\"\njson = \"{q}\"",
                "8: json: is \"{q}\"; valid: a table or an array, such as { q = \"{q}\" }",
            ),
            (
                "method = \"POST\"\njson = 1",
                "8: json: is 1; valid: a table or an array, such as { q = \"{q}\" }",
            ),
            (
                "method = 1",
                "7: method: is 1; valid: \"GET\", \"POST\" or \"QUERY\"",
            ),
            (
                "store_if = \"/a\"",
                "7: store_if: is \"/a\"; valid: a table",
            ),
        ] {
            assert_eq!(wrong(lines), [error], "{lines}");
        }
        for lines in [
            "method = \"POST\"",
            "method = \"POST\"\njson = []",
            "method = \"GET\"",
        ] {
            api(lines);
        }
    }
}
