//! docs/monitoring and what compose.yaml installs: `promtool` accepts the files, each name in them
//! is one that larder has, and a real Prometheus shows and reports each fault.

mod dashboard;
mod faults;
mod panels;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use regex_lite::Regex;

use self::dashboard::Dashboard;
use testkit::prometheus::promtool;

const ALERTS: &str = "docs/monitoring/alerts.yml";

/// The path of a file of this package.
fn path_of(file: &str) -> String {
    format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn text_of(file: &str) -> String {
    fs::read_to_string(path_of(file)).unwrap()
}

/// The text of each alert rule, by its name.
fn rules() -> BTreeMap<String, String> {
    let text = text_of(ALERTS);
    let rules = text.split("\n      - alert: ").skip(1);
    let rules: BTreeMap<String, String> = rules
        .map(|rule| {
            let (name, rule) = rule.split_once('\n').unwrap();
            (name.to_owned(), rule.to_owned())
        })
        .collect();
    assert!(rules.len() > 10, "{rules:?}");
    rules
}

/// The metrics whose names stand in a query.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(larder|process)_[a-z0-9_]+").unwrap();
    let names = name.find_iter(query).map(|name| name.as_str().to_owned());
    names.collect()
}

#[test]
fn promtool_accepts_the_rules_and_the_configurations() {
    let said = promtool(&["check", "rules", &path_of(ALERTS)], "");
    let count = rules().len();
    assert!(
        said.contains(&format!("SUCCESS: {count} rules found")),
        "{said}"
    );
    // The paths in them are those of another machine.
    let shipped = path_of("docker/prometheus.yml");
    promtool(&["check", "config", "--syntax-only", &shipped], "");
}

#[test]
fn alerts_fire_in_their_time_and_not_before() {
    promtool(
        &[
            "test",
            "rules",
            &path_of("tests/monitoring/alerts.test.yml"),
        ],
        "",
    );
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_do() {
    let readme = text_of("docs/monitoring/README.md");
    let tests = text_of("tests/monitoring/alerts.test.yml");
    for (name, rule) in rules() {
        let severity = ["critical", "warning"];
        let has = |line: &str| rule.contains(line);
        assert!(
            severity
                .iter()
                .any(|one| has(&format!("\n          severity: {one}\n"))),
            "{name}: {rule}"
        );
        for annotation in ["summary", "description", "action"] {
            assert!(
                has(&format!("\n          {annotation}: ")),
                "{name}: {rule}"
            );
        }
        let section = format!("docs/monitoring/README.md#{}", name.to_lowercase());
        assert!(
            has(&format!("\n          runbook: {section}\n")),
            "{name}: {rule}"
        );
        assert!(
            readme.contains(&format!("\n### {name}\n")),
            "README.md has no section {name}"
        );
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "{name} has no test"
        );
    }
    // A remedy that names a panel of the dashboard names one that exists.
    let panels = Dashboard::read().titles();
    let quoted = Regex::new("\"([A-Z][^\"\n]+)\"").unwrap();
    for text in [readme, text_of(ALERTS)] {
        for quote in quoted.captures_iter(&text) {
            let title = &quote[1];
            let is_known = title == "Targets" || panels.iter().any(|panel| panel == title);
            assert!(is_known, "no panel is called {title}");
        }
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = Dashboard::read();
    dashboard.assert_form();
    for query in dashboard.queries() {
        assert!(!query.asked().contains('$'), "{query:?}");
    }
}

#[test]
fn compose_names_files_that_exist() {
    let compose = text_of("compose.yaml");
    let mounted = Regex::new(r"(?m)^ +- \./([^:]+):").unwrap();
    let mounted: Vec<_> = mounted.captures_iter(&compose).collect();
    assert!(mounted.len() >= 7, "{mounted:?}");
    for file in mounted {
        assert!(
            fs::metadata(path_of(&file[1])).is_ok_and(|is| is.is_file()),
            "{}",
            &file[1]
        );
    }
    // What one file says, the others have to say as well.
    let prometheus = text_of("docker/prometheus.yml");
    for shared in ["/run/larder/admin-key", "/etc/prometheus/alerts.yml"] {
        assert!(
            compose.contains(shared) && prometheus.contains(shared),
            "{shared}"
        );
    }
    let provider = text_of("docker/grafana-dashboards.yml");
    assert!(provider.contains("path: /etc/grafana/dashboards\n"));
    assert!(compose.contains("dashboard.json:/etc/grafana/dashboards/"));
    let datasource = text_of("docker/grafana-datasource.yml");
    assert!(datasource.contains("timeInterval: 5s\n"));
    assert!(prometheus.contains("scrape_interval: 5s\n"));
}
