//! What panels of the dashboard, and the queries of the documents, show of known counts, by
//! `promtool`.

use serde_json::{Value, json};

use super::dashboard::{Dashboard, Query};
use crate::documents::fenced_as;
use testkit::prometheus::promtool;

/// What one replica counts in each second.
const EACH_SECOND: &[(&str, &str, u32)] = &[
    // Of 8 reads 4 did not wait.
    (
        "larder_requests_total",
        r#"resource="it", outcome="memory""#,
        1,
    ),
    (
        "larder_requests_total",
        r#"resource="it", outcome="redis""#,
        1,
    ),
    (
        "larder_requests_total",
        r#"resource="it", outcome="stale""#,
        4,
    ),
    (
        "larder_requests_total",
        r#"resource="it", outcome="loaded""#,
        2,
    ),
    (
        "larder_stale_served_total",
        r#"resource="it", reason="stale-while-revalidate""#,
        2,
    ),
    (
        "larder_stale_served_total",
        r#"resource="it", reason="soft-timeout""#,
        1,
    ),
    (
        "larder_stale_served_total",
        r#"resource="it", reason="stale-if-error""#,
        1,
    ),
    // Of 4 look-ups of a part one did not wait.
    (
        "larder_part_lookups_total",
        r#"resource="name", outcome="stale""#,
        2,
    ),
    (
        "larder_part_lookups_total",
        r#"resource="name", outcome="loaded""#,
        2,
    ),
    (
        "larder_part_stale_served_total",
        r#"resource="name", reason="backing-off""#,
        1,
    ),
    (
        "larder_part_stale_served_total",
        r#"resource="name", reason="soft-timeout""#,
        1,
    ),
    // Each load of the composite is one of each part.
    (
        "larder_loads_total",
        r#"resource="name", result="first""#,
        4,
    ),
    (
        "larder_loads_total",
        r#"resource="status", result="first""#,
        4,
    ),
    (
        "larder_loads_total",
        r#"resource="person", result="first""#,
        4,
    ),
    ("larder_audits_total", r#"result="same""#, 2),
    ("larder_audits_skipped_total", "", 4),
];

/// What the queries at a place return, in its order: labels and values.
type Shown = (&'static str, &'static [&'static [(&'static str, f64)]]);

const SHOWN: &[Shown] = &[
    ("Hit ratio", &[&[("{}", 0.5)]]),
    (
        "Hit ratio by tier",
        &[
            &[
                (r#"{outcome="memory"}"#, 0.125),
                (r#"{outcome="redis"}"#, 0.125),
                (r#"{outcome="loaded"}"#, 0.25),
            ],
            &[("{}", 0.25)],
            &[("{}", 0.25)],
        ],
    ),
    (
        "Hit ratio by resource",
        &[
            &[(r#"{resource="it"}"#, 0.5)],
            &[(r#"{resource="name"}"#, 0.25)],
        ],
    ),
    // The queries of a document.
    (
        "docs/metrics.md",
        &[&[("{}", 0.5)], &[(r#"{result="first"}"#, 8.0)]],
    ),
    ("Loads by result", &[&[(r#"{result="first"}"#, 8.0)]]),
    (
        "Loads by resource",
        &[&[
            (r#"{resource="name"}"#, 4.0),
            (r#"{resource="status"}"#, 4.0),
        ]],
    ),
    (
        "Audit",
        &[
            &[(r#"{result="same"}"#, 2.0)],
            &[("{}", 4.0)],
            &[("{}", 7.0)],
        ],
    ),
];

/// What a resource that is a question counts in each second: 5 questions are answered, of which 2
/// made a call, and one call more ran in the background.
const OF_QUESTIONS: &[(&str, &str, u32)] = &[
    (
        "larder_requests_total",
        r#"resource="answer", outcome="memory""#,
        3,
    ),
    (
        "larder_requests_total",
        r#"resource="answer", outcome="loaded""#,
        2,
    ),
    (
        "larder_requests_total",
        r#"resource="answer", outcome="failed""#,
        4,
    ),
    (
        "larder_requests_total",
        r#"resource="it", outcome="memory""#,
        100,
    ),
    (
        "larder_loads_total",
        r#"resource="answer", result="first""#,
        2,
    ),
    (
        "larder_loads_total",
        r#"resource="answer", result="same""#,
        1,
    ),
    (
        "larder_upstream_calls_total",
        r#"upstream="ai", result="ok""#,
        3,
    ),
    (
        "larder_upstream_calls_total",
        r#"upstream="ai", result="spent""#,
        7,
    ),
];

/// At 0.002 a call and 3600 seconds an hour: 2 calls a second are saved, and 3 are made.
const SHOWN_OF_QUESTIONS: &[Shown] = &[("docs/questions.md", &[&[("{}", 14.4)], &[("{}", 21.6)]])];

/// Fails unless the queries show this of these counters, each with what it counts in a second, and
/// of these gauges.
fn assert_shows(counters: &[(&str, &str, u32)], gauges: &[(&str, &str, &str)], shown: &[Shown]) {
    let series = |metric: &str, labels: &str, values: String| {
        let series = format!(r#"{metric}{{job="larder", instance="a", {labels}}}"#);
        json!({"series": series.replace(", }", "}"), "values": values})
    };
    let counters = counters.iter();
    let counters =
        counters.map(|(metric, labels, each)| series(metric, labels, format!("0+{each}x20")));
    let gauges = gauges.iter();
    let gauges =
        gauges.map(|(metric, labels, values)| series(metric, labels, (*values).to_owned()));
    let input: Vec<Value> = counters.chain(gauges).collect();
    let written = fenced_as("promql").into_iter().map(|block| Query {
        place: block.document,
        text: block.text.replace("[5m]", "[$__rate_interval]"),
    });
    let mut queries = Dashboard::read().queries();
    queries.extend(written);
    let mut expected = Vec::new();
    for (place, shown) in shown {
        let own: Vec<_> = queries
            .iter()
            .filter(|query| query.place == *place)
            .collect();
        assert_eq!(own.len(), shown.len(), "{place}");
        for (query, samples) in own.iter().zip(*shown) {
            let samples = samples.iter();
            let samples: Vec<Value> = samples
                .map(|(labels, value)| json!({"labels": labels, "value": value}))
                .collect();
            expected.push(json!({
                "expr": query.asked(), "eval_time": "20s", "exp_samples": samples,
            }));
        }
    }
    let tests = json!({
        "evaluation_interval": "1s",
        "tests": [{
            "interval": "1s", "input_series": input, "promql_expr_test": expected,
        }],
    });
    let folder = tempfile::tempdir().unwrap();
    // YAML takes JSON.
    let file = folder.path().join("panels.yml");
    std::fs::write(&file, tests.to_string()).unwrap();
    promtool(&["test", "rules", file.to_str().unwrap()], "");
}

#[test]
fn a_hit_is_what_did_not_wait_and_no_load_counts_twice() {
    let gauges = [
        ("larder_resource_parts", r#"resource="person""#, "2x20"),
        ("larder_audits_waiting", "", "7x20"),
    ];
    assert_shows(EACH_SECOND, &gauges, SHOWN);
}

#[test]
fn what_questions_save_is_what_was_answered_without_a_call() {
    assert_shows(OF_QUESTIONS, &[], SHOWN_OF_QUESTIONS);
}
