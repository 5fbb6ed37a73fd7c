//! One resource against the rules.

use crate::config::tests::{faults, parse};

/// The only error of a file that is `[resource.news]` with this change.
fn fault_of_resource(change: impl Fn(String) -> String) -> String {
    let good = r#"[resource.news]
path = "/news"
source = { news = ["newsapi"] }
params.category = { type = "string" }
params.source = { type = "string", view = true }
params.limit = { type = "integer", view = true }
ttl = { memory = "30s", redis = "5m" }
stale = { if_error = "1d" }
tags = ["news"]
"#;
    parse(good).expect("the resource without the change is valid");
    let text = change(good.to_owned());
    let faults = faults(&text);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults[0].clone()
}

fn replaced(from: &str, to: &str) -> String {
    fault_of_resource(|text| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn added(line: &str) -> String {
    fault_of_resource(|text| text + line)
}

#[test]
fn what_a_resource_needs() {
    assert_eq!(
        faults("\n[resource.a]\n"),
        [
            "config.toml:2: resource.a.source: is missing; valid: { news = [\"newsapi\", \"guardian\"] }, { sql = \"user_by_id\" }, { http = \"https://host/path/{param}\" } or { parts = [\"profile\", \"status\"] }",
            "config.toml:2: resource.a.ttl: is missing; valid: { memory = \"30s\", redis = \"5m\" }",
        ]
    );
    assert!(
        replaced("[resource.news]", "[resource.\"n w\"]")
            .contains("is not a valid name of a resource")
    );
    assert!(replaced("memory = \"30s\", ", "").contains("ttl.memory: is missing"));
    assert!(replaced(", redis = \"5m\"", "").contains("ttl.redis: is missing"));
    assert!(faults("resource = 5")[0].contains("resource: is 5; valid: a table"));
    assert!(faults("[resource]\na = 5")[0].contains("resource.a: is 5; valid: a table"));
    assert!(added("ttl_ms = 5").contains(":10: resource.news.ttl_ms: is an unknown key"));
    assert!(added("public = 1").contains("public: is 1; valid: true or false"));
    let unknown = added("unknown_params = \"reject\"");
    assert!(unknown.contains("unknown_params: is \"reject\"; valid: \"ignore\" or \"refuse\""));
    assert!(added("client_ttl = 30").contains("client_ttl: is 30; valid: a duration"));
}

#[test]
fn texts_for_callers_are_printable() {
    let one_line = "; valid: one line of 1 to 120 characters, such as \"Articles by category\"";
    for (text, problem) in [
        ("a\\nb", "has a line feed"),
        (
            "a\\tb",
            "has U+0009, a control character or one that reorders text",
        ),
        (
            "\\u0007",
            "has U+0007, a control character or one that reorders text",
        ),
        (
            "a\\u2028b",
            "has U+2028, a control character or one that reorders text",
        ),
        (
            "a\\u202eb",
            "has U+202E, a control character or one that reorders text",
        ),
        (" ", "is empty"),
    ] {
        let fault = added(&format!("summary = \"{text}\""));
        assert!(
            fault.ends_with(&format!("summary: {problem}{one_line}")),
            "{fault}"
        );
        if !problem.contains("line feed") {
            let fault = added(&format!("description = \"{text}\""));
            let expected = format!("description: {problem}; valid: text of 1 to 10000 characters");
            assert!(fault.contains(&expected), "{fault}");
        }
    }
    let long = added(&format!("summary = \"{}\"", "é".repeat(121)));
    assert!(
        long.contains("summary: has 121 characters; valid: one line"),
        "{long}"
    );
    assert!(added("summary = 5").contains("summary: is 5; valid: one line"));

    // What stands around it is no part of it, and CR LF is a line end.
    let text = format!(
        "[resource.a]\npath = \"/a\"\nsource = {{ news = [\"guardian\"] }}\n\
         ttl = {{ memory = \"1s\", redis = \"1s\" }}\n\
         summary = \" {} \\n\"\ndescription = \"\"\"\r\n  \u{5d0} b\r\n\r\n- c\r\n\"\"\"\n",
        "é".repeat(120)
    );
    let config = parse(&text).unwrap();
    let resource = &config.resources[0];
    assert_eq!(resource.summary, Some("é".repeat(120)));
    assert_eq!(resource.description.as_deref(), Some("\u{5d0} b\n\n- c"));
}

#[test]
fn methods_of_reading() {
    let read = |methods: &str| {
        format!(
            "[resource.a]\npath = \"/a\"\nread = {methods}\nsource = {{ news = [\"newsapi\"] }}\nttl = {{ memory = \"1s\", redis = \"1s\" }}\n"
        )
    };
    let form = "an array of at least one of \"GET\", \"POST\" and \"QUERY\"";
    for (methods, shown) in [
        ("[\"GET\"]", "GET"),
        ("[\"QUERY\", \"POST\"]", "POST, QUERY"),
        ("[\"POST\", \"GET\", \"QUERY\"]", "GET, POST, QUERY"),
    ] {
        let config = parse(&read(methods)).unwrap();
        assert_eq!(config.resources[0].read.to_string(), shown);
    }
    for (methods, problem) in [
        ("\"POST\"", format!("is \"POST\"; valid: {form}")),
        ("[]", format!("is empty; valid: {form}")),
        ("[5]", format!("is 5; valid: {form}")),
        (
            "[\"QUERRY\"]",
            format!(
                "has \"QUERRY\", which is an unknown method, did you mean \"QUERY\"?; valid: {form}"
            ),
        ),
        (
            "[\"post\"]",
            format!("has \"post\", which is an unknown method; valid: {form}"),
        ),
        (
            "[\"POST\", \"POST\"]",
            "has \"POST\" twice; valid: each method once".to_owned(),
        ),
    ] {
        let faults = faults(&read(methods));
        assert_eq!(
            faults,
            [format!("config.toml:3: resource.a.read: {problem}")]
        );
    }
    let written = read("[\"QUERY\", \"POST\"]") + "write.POST = { sql = \"user_insert\" }\n";
    assert_eq!(
        faults(&written),
        [
            "config.toml:3: resource.a.read: has \"POST\", by which write.POST changes the resource; valid: a method that no write of the resource has"
        ]
    );
    let only_written =
        "[resource.a]\npath = \"/a\"\nread = [\"GET\"]\nwrite.POST = { sql = \"user_insert\" }\n";
    assert_eq!(
        faults(only_written),
        [
            "config.toml:3: resource.a.read: is there, but the resource has no source to read from; valid: a resource with a source, or no read"
        ]
    );
}

#[test]
fn sources_of_a_resource() {
    let source = |to| replaced("{ news = [\"newsapi\"] }", to);
    assert!(source("\"news\"").contains("source: is \"news\"; valid: { news"));
    assert!(source("{}").contains("source: is empty; valid: { news"));
    assert!(source("{ sqll = \"q\" }").contains("did you mean \"sql\"?"));
    assert!(source("{ sql = \"q\", parts = [\"a\"] }").contains("has the kinds sql and parts"));
    assert!(source("{ news = [] }").contains("news: is empty; valid: an array"));
    assert!(source("{ news = \"newsapi\" }").contains("news: is \"newsapi\"; valid: an array"));
    assert!(source("{ news = [5] }").contains("news: is 5; valid: an array"));
    assert!(source("{ news = [\"newsapi\", \"newsapi\"] }").contains("\"newsapi\" twice"));
    assert!(source("{ news = [\"newsapi\"], extra = 1 }").contains("source.extra: is an unknown"));
}

#[test]
fn apis_of_a_resource() {
    let source = |rest: &str| {
        format!(
            "[resource.q]\nsource = {{ http = \"https://host/{{x}}\", upstream = \"u\", {rest} }}\nparams.x = {{ type = \"string\", required = true }}\nttl = {{ memory = \"1s\", redis = \"1s\" }}\n"
        )
    };
    assert!(parse(&source("pick = \"/a\"")).is_ok());
    assert_eq!(
        faults(&source("pick = 5")),
        [
            "config.toml:2: resource.q.source.pick: is 5; valid: a JSON pointer such as \"/data/items\""
        ],
        "nothing else is wrong"
    );
    // All at once, also where the URL is none.
    let all = source("query = { y = \"{y}\" }").replace("{x}\"", "{x\"");
    let all = faults(&all).join("\n");
    assert!(all.contains("source.http: "), "{all}");
    assert!(
        all.contains("source.query.y: has {y}, which is not a parameter"),
        "{all}"
    );
}

#[test]
fn a_source_with_a_fault_is_still_of_its_kind() {
    let whole = faults("[resource.w]\nsource = { parts = [] }\n");
    assert_eq!(
        whole,
        [
            "config.toml:2: resource.w.source.parts: is empty; valid: an array of at least one name of a resource"
        ],
        "a composite has no ttl"
    );
    let api = faults(
        "[resource.q]\nsource = { http = \"https://host/\", pick = 5 }\nttl = \"upstream\"\n",
    );
    assert!(
        api.len() == 1 && api[0].contains("source.pick: is 5"),
        "an API may say how long: {api:#?}"
    );
}

#[test]
fn paths_of_resources() {
    let path = |to: &str| replaced("\"/news\"", to);
    assert!(path("\"news\"").contains("path: is \"news\", which does not begin with"));
    assert!(path("5").contains("path: is 5; valid: \"/articles\""));
    assert!(path("\"/keys\"").contains("path: is \"/keys\", which is reserved for larder"));
    let second = |path: &str| {
        format!(
            "[resource.b]\npath = \"{path}\"\nsource = {{ news = [\"newsapi\"] }}\nttl = {{ memory = \"0s\", redis = \"1s\" }}\n"
        )
    };
    assert_eq!(
        fault_of_resource(|text| text + &second("/news")),
        "config.toml:11: resource.b.path: is \"/news\", which resource.news has already as \"/news\"; valid: a path that no other resource has"
    );
    let twin = |path: &str, param: &str| {
        second(path).replace("resource.b", &format!("resource.{param}"))
            + &format!("params.{param} = {{ type = \"string\" }}\n")
    };
    let twins = faults(&(twin("/x/{category}", "category") + &twin("/x/{source}", "source")));
    assert_eq!(
        twins[0],
        "config.toml:7: resource.source.path: is \"/x/{source}\", which resource.category has already as \"/x/{category}\"; valid: a path that no other resource has"
    );
}

#[test]
fn parameters_of_a_path() {
    let path = |category: &str| {
        fault_of_resource(|text| {
            text.replace("\"/news\"", "\"/news/{category}\"")
                .replace("category = { type = \"string\" }", category)
        })
    };
    assert!(
        path("category = { type = \"string\", default = \"a\" }")
            .contains("category.default: is there, but")
    );
    assert!(
        path("category = { type = \"string\", required = false }")
            .contains("category.required: is false, but")
    );
    let undeclared = fault_of_resource(|text| text.replace("\"/news\"", "\"/news/{id}\""));
    assert!(undeclared.contains("resource.news.params.id: is missing, but the path has it"));
}

#[test]
fn parameters() {
    let category = |to: &str| replaced("category = { type = \"string\" }", to);
    let limit = |to: &str| replaced("limit = { type = \"integer\", view = true }", to);
    for (to, expected) in [
        ("category = 5", "category: is 5; valid: a table"),
        (
            "category = {}",
            "category.type: is missing; valid: \"string\"",
        ),
        ("category = { type = 5 }", "type: is 5; valid: \"string\""),
        (
            "category = { type = \"string\", min = 1 }",
            "min: does not apply to type \"string\"",
        ),
        (
            "category = { type = \"string\", one_of = [] }",
            "one_of: is empty",
        ),
        (
            "category = { type = \"string\", one_of = \"a\" }",
            "one_of: is \"a\"; valid: an array",
        ),
        (
            "category = { type = \"string\", one_of = [\"\"] }",
            "one_of: has \"\"; valid: text of 1",
        ),
        (
            "category = { type = \"string\", one_of = [\"health\", \"health\"] }",
            "\"health\" twice",
        ),
        (
            "category = { type = \"string\", pattern = \"[a\" }",
            "pattern: is \"[a\", which is not a valid regular expression",
        ),
        (
            "category = { type = \"string\", max_length = 0 }",
            "max_length: is 0; valid: a whole number from 1",
        ),
        (
            "category = { type = \"string\", default = 5 }",
            "default: is 5; valid: text of 1 to 200",
        ),
        (
            "category = { type = \"string\", one_of = [\"health\"], default = \"sports\" }",
            "default: is \"sports\"; valid: one of health",
        ),
        (
            "category = { type = \"string\", pattern = \"[a-z]\", default = \"ab\" }",
            "valid: text that matches [a-z]",
        ),
        (
            "category = { type = \"string\", required = true, default = \"a\" }",
            "required: is true, but with a default",
        ),
        (
            "category = { type = \"string\", view = true }",
            "category: is not a view: news are loaded by it",
        ),
        (
            "category = { type = \"boolean\" }",
            "category: is not a view: news are loaded by it",
        ),
        (
            "category = { type = \"string\", kind = 1 }",
            "category.kind: is an unknown key",
        ),
    ] {
        let fault = category(to);
        assert!(fault.contains(expected), "{to}: {fault}");
    }
    for (to, expected) in [
        (
            "limit = { type = \"integer\" }",
            "limit: must be a view: it selects from the loaded news; valid: type = \"integer\", view = true",
        ),
        (
            "limit = { type = \"string\", view = true }",
            "limit: must be a view: it selects from the loaded news",
        ),
        (
            "limit = { type = \"integer\", view = true, min = -1 }",
            "limit: allows a limit that no list has",
        ),
        (
            "limit = { type = \"integer\", view = true, default = 0 }",
            "limit: allows a limit that no list has",
        ),
        (
            "limit = { type = \"integer\", view = true, max = 9, default = 10 }",
            "default: is 10; valid: a whole number of at most 9",
        ),
        (
            "limit = { type = \"integer\", view = true, one_of = [1] }",
            "one_of: does not apply to type \"integer\"",
        ),
        (
            "limit = { type = \"integer\", view = 1 }",
            "view: is 1; valid: true or false",
        ),
    ] {
        let fault = if to.contains("view = 1 ") {
            // An invalid view is checked as a view, too: both errors are reported.
            faults(&format!("[resource.a]\nsource = {{ news = [\"newsapi\"] }}\nttl = {{ memory = \"1s\", redis = \"1s\" }}\nparams.{to}\n")).join("\n")
        } else {
            limit(to)
        };
        assert!(fault.contains(expected), "{to}: {fault}");
    }
    assert!(
        replaced(
            "source = { type = \"string\", view = true }",
            "source = { type = \"string\" }"
        )
        .contains("source: must be a view: it selects from the loaded news; valid: type = \"string\", view = true")
    );
    let typo =
        fault_of_resource(|text| text + "params.lmit = { type = \"integer\", view = true }\n");
    assert!(
        typo.contains(
            "params.lmit: is an unknown parameter of a news source, did you mean \"limit\"?"
        ),
        "{typo}"
    );
}

#[test]
fn times_of_a_resource() {
    let ttl = |to| replaced("{ memory = \"30s\", redis = \"5m\" }", to);
    assert!(ttl("{ memory = \"6m\", redis = \"5m\" }").ends_with(
        ":7: resource.news.ttl.memory: is \"6m\", longer than ttl.redis \"5m\"; valid: at most ttl.redis"
    ));
    assert!(ttl("{ memory = \"0s\", redis = \"0s\" }").contains("both tiers switched off"));
    assert!(ttl("\"30s\"").contains("ttl: is \"30s\"; valid: { memory"));
    assert!(ttl("{ memory = \"30\", redis = \"5m\" }").contains("ttl.memory: is \"30\""));
    let stale = |to| replaced("{ if_error = \"1d\" }", to);
    assert!(
        stale("{ while_revalidate = \"2d\", if_error = \"1d\" }")
            .contains("at most stale.if_error")
    );
    assert!(stale("{ on_reset = \"yes\" }").contains("stale.on_reset: is \"yes\""));
    assert!(stale("{ iferror = \"1d\" }").contains("did you mean \"if_error\"?"));
    assert!(added("disconnected_ttl = \"31s\"").contains(
        "disconnected_ttl: is \"31s\", longer than ttl.memory \"30s\"; valid: at most ttl.memory"
    ));
    // With Redis switched off there is nothing for memory to exceed, and revalidation needs no
    // if_error.
    let alone = "[resource.a]\nsource = { news = [\"newsapi\"] }\nttl = { memory = \"1h\", redis = \"0s\" }\nstale = { while_revalidate = \"1m\" }\n";
    assert_eq!(parse(alone).unwrap().resources.len(), 1);
}

#[test]
fn tags_of_a_resource() {
    let tags = |to| replaced("[\"news\"]", to);
    assert!(tags("\"news\"").contains("tags: is \"news\"; valid: an array of tags"));
    assert!(tags("[5]").contains("tags: is 5; valid: a tag such as"));
    assert!(tags("[\"a b\"]").contains("has \"a b\", which has a space"));
    assert!(tags("[\"*\"]").contains("which is \"*\", which means everything"));
    assert!(tags("[\"a:{category\"]").contains("which has a brace without its other half"));
    assert!(tags("[\"a\", \"a\"]").contains("has \"a\" twice"));
    assert!(tags("[\"a:{limit}\"]").contains("limit is a view"));
    assert!(tags("[\"a:{x}\"]").contains(
        "x is not a parameter of this resource; valid: a tag with no other parameters than category"
    ));
}
