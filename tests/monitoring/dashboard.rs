//! docs/monitoring/dashboard.json, read as Grafana reads it.

use serde_json::Value;

use super::text_of;

/// The interval of the test's scrapes, and Grafana's `$__rate_interval` for it: four times that.
pub const SCRAPE: &str = "1s";
const RATE_INTERVAL: &str = "4s";
/// How long the dashboard looks back.
const RANGE: &str = "5m";

pub struct Dashboard(Value);

/// A query of a panel, of a variable or of the annotations.
#[derive(Clone, Debug)]
pub struct Query {
    pub place: String,
    pub text: String,
}

impl Query {
    /// Its text as Grafana sends it, with `All` chosen in both variables.
    pub fn asked(&self) -> String {
        let text = self.text.replace("$__rate_interval", RATE_INTERVAL);
        let text = text.replace("$__range", RANGE);
        text.replace("$job", "larder").replace("$instance", ".+")
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

impl Dashboard {
    pub fn read() -> Dashboard {
        Dashboard(serde_json::from_str(&text_of("docs/monitoring/dashboard.json")).unwrap())
    }

    fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.0["panels"].as_array().unwrap().iter();
        panels.filter(|panel| panel["type"] != "row")
    }

    pub fn titles(&self) -> Vec<String> {
        self.panels().map(|panel| text(&panel["title"])).collect()
    }

    /// Every query that it sends to Prometheus.
    pub fn queries(&self) -> Vec<Query> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().unwrap() {
                queries.push(Query {
                    place: text(&panel["title"]),
                    text: text(&target["expr"]),
                });
            }
        }
        assert!(queries.len() > 40, "{queries:?}");
        queries
    }

    /// The variables, as queries: `label_values(METRIC, LABEL)` lists what this returns.
    pub fn variables(&self) -> Vec<Query> {
        let variables = self.0["templating"]["list"].as_array().unwrap();
        let queries = variables.iter().filter(|one| one["type"] == "query");
        let queries = queries.map(|one| {
            let query = text(&one["definition"]);
            let inner = query.strip_prefix("label_values(").unwrap();
            let (metric, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            Query {
                place: text(&one["name"]),
                text: format!("count by ({label}) ({metric})"),
            }
        });
        queries.collect()
    }

    /// Panics unless Grafana can show it: its version, the data source that is chosen at its top,
    /// and panels that have a place of their own, a unit, and a word on what they show.
    pub fn assert_form(&self) {
        assert!(self.0["schemaVersion"].as_u64().unwrap() >= 39);
        let variables = self.0["templating"]["list"].as_array().unwrap();
        let names: Vec<String> = variables.iter().map(|one| text(&one["name"])).collect();
        assert_eq!(names, ["datasource", "job", "instance"]);
        assert_eq!(variables[0]["type"], "datasource");
        let mut ids = Vec::new();
        let mut taken = std::collections::BTreeSet::new();
        for panel in self.0["panels"].as_array().unwrap() {
            ids.push(panel["id"].as_u64().unwrap());
            let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{panel}");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "two panels at {x}, {y}: {panel}");
                }
            }
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "two panels have one id");
        for panel in self.panels() {
            assert!(text(&panel["description"]).ends_with('.'), "{panel}");
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{panel}"
            );
            let mut targets = panel["targets"].as_array().unwrap().iter();
            assert!(
                targets.all(|target| target["datasource"]["uid"] == "${datasource}"),
                "{panel}"
            );
        }
    }
}
