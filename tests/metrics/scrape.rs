//! A scrape, read back.

use std::collections::BTreeMap;

use testkit::larder::Larder;

/// What Prometheus 3 sends.
pub const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

type Labels = BTreeMap<String, String>;

/// The series of a scrape.
#[derive(Clone, Debug)]
pub struct Scrape {
    series: BTreeMap<(String, Labels), f64>,
    /// The type of each family.
    pub kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// A scrape of this replica, in the text format 0.0.4.
    #[track_caller]
    pub fn of(larder: &Larder) -> Scrape {
        Scrape::read(&larder.get("/metrics").expect(200).text())
    }

    /// A scrape of this replica, in OpenMetrics.
    #[track_caller]
    pub fn open(larder: &Larder) -> Scrape {
        let call = larder
            .call("GET", "/metrics")
            .header("Accept", OPEN_METRICS);
        let text = call
            .key(testkit::larder::ADMIN_KEY)
            .send()
            .expect(200)
            .text();
        let body = text
            .strip_suffix("# EOF\n")
            .expect("OpenMetrics has an end");
        Scrape::read(body)
    }

    /// Reads either text. Panics if a line is malformed or a series stands twice.
    #[track_caller]
    pub fn read(text: &str) -> Scrape {
        let (mut series, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let words: Vec<&str> = comment.splitn(3, ' ').collect();
                if let ["TYPE", name, kind] = words[..] {
                    let twice = kinds.insert(name.to_owned(), kind.to_owned());
                    assert_eq!(twice, None, "{line}");
                }
                continue;
            }
            let (series_of, value) = line.rsplit_once(' ').expect(line);
            let (name, labels) = match series_of.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
                None => (series_of, ""),
            };
            let label = |pair: &str| {
                let (label, value) = pair.split_once('=').expect(line);
                let value = value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'));
                let value = value.expect(line);
                // The two formats write numbers differently.
                let bound = value.parse().ok().filter(|_| label == "le");
                let value = bound.map_or(value.to_owned(), |bound: f64| bound.to_string());
                (label.to_owned(), value)
            };
            let labels = labels.split(',').filter(|pair| !pair.is_empty());
            let labels: Labels = labels.map(label).collect();
            let value = value.parse().expect(line);
            let twice = series.insert((name.to_owned(), labels), value);
            assert_eq!(twice, None, "{line}");
        }
        Scrape { series, kinds }
    }

    /// The sum of the series of this name that have these labels. Panics if there is none.
    #[track_caller]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.labels(name, labels);
        assert!(!found.is_empty(), "no {name} with {labels:?}");
        found.into_iter().map(|(_, value)| value).sum()
    }

    /// The one series of this name that has these labels.
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.labels(name, labels);
        assert_eq!(found.len(), 1, "{name} with {labels:?}: {found:?}");
        found[0].1
    }

    /// The series of this name that have these labels.
    pub fn labels(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(&Labels, f64)> {
        let has = |own: &Labels| {
            let mut wanted = labels.iter();
            wanted.all(|(label, value)| own.get(*label).is_some_and(|own| own == value))
        };
        let named = self.series.iter().filter(|((own, _), _)| own == name);
        named
            .filter(|((_, own), _)| has(own))
            .map(|((_, own), value)| (own, *value))
            .collect()
    }

    /// What the series of this name that have these labels grew by since `before`. One that was not
    /// there before began at zero.
    #[track_caller]
    pub fn grown(&self, before: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
        let earlier: f64 = before
            .labels(name, labels)
            .iter()
            .map(|(_, value)| value)
            .sum();
        self.sum(name, labels) - earlier
    }

    /// Panics if a histogram's counts do not agree with each other, or if anything that only grows
    /// is less than it was `before`.
    #[track_caller]
    pub fn check(&self, before: Option<&Scrape>) {
        for ((name, labels), value) in &self.series {
            let Some(family) = name.strip_suffix("_count") else {
                continue;
            };
            let bucket = format!("{family}_bucket");
            let own = |other: &Labels| labels.iter().all(|(label, value)| other[label] == *value);
            let buckets = self.series.iter().filter(|((name, _), _)| *name == bucket);
            let mut buckets: Vec<(f64, f64)> = buckets
                .filter(|((_, labels), _)| own(labels))
                .map(|((_, labels), count)| (labels["le"].parse().unwrap(), *count))
                .collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name} {labels:?}");
            assert_eq!(
                buckets.last(),
                Some(&(f64::INFINITY, *value)),
                "{name} {labels:?}"
            );
        }
        for ((name, labels), value) in before.iter().flat_map(|before| &before.series) {
            let grows = ["_total", "_count", "_sum", "_bucket"];
            if grows.iter().any(|suffix| name.ends_with(suffix)) {
                let now = self.series.get(&(name.clone(), labels.clone()));
                // A resource that was never asked for is gone with its declaration.
                let now = now.or(Some(&0.0).filter(|_| *value == 0.0));
                assert!(
                    now.is_some_and(|now| now >= value),
                    "{name} {labels:?}: {now:?}"
                );
            }
        }
    }

    /// The names and labels of all series.
    pub fn shape(&self) -> Vec<&(String, Labels)> {
        self.series.keys().collect()
    }
}
