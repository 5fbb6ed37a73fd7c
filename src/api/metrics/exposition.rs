//! Families of metrics as text: OpenMetrics 1.0, or the Prometheus text format 0.0.4.
//!
//! `prometheus-client` writes both. The series have the same names in both. The comment lines
//! differ: in the format 0.0.4 a counter's family has the name of its samples, with `_total`, and
//! there is no `# UNIT` and no `# EOF`.

use std::fmt;
use std::time::Duration;

use larder_cache::stats::Snapshot;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::format::Format;

/// The label pairs of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A metric: its name, what it tells, and its series.
#[derive(Debug)]
pub(super) struct Family {
    /// Without the suffix that follows from its kind or its unit.
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    kind: MetricType,
    series: Vec<(Labels, Sample)>,
}

/// The value of one series.
#[derive(Debug)]
enum Sample {
    Whole(u64),
    Real(f64),
    Histogram {
        /// Seconds.
        sum: f64,
        count: u64,
        /// Upper bounds in seconds, each with the number of values above the bound before it.
        buckets: Vec<(f64, u64)>,
    },
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Family {
        let series = Vec::new();
        Family {
            name,
            unit: None,
            help,
            kind,
            series,
        }
    }

    /// A counter without series. Its samples are called `name` with `_total`.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, MetricType::Counter)
    }

    /// A gauge without series.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, MetricType::Gauge)
    }

    /// A histogram of durations without series. It is called `name` with `_seconds`.
    pub(super) fn durations(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, MetricType::Histogram).in_seconds()
    }

    /// The name gets `_seconds`.
    pub(super) fn in_seconds(mut self) -> Family {
        self.unit = Some(Unit::Seconds);
        self
    }

    /// The name gets `_bytes`.
    pub(super) fn in_bytes(mut self) -> Family {
        self.unit = Some(Unit::Bytes);
        self
    }

    /// With one more series, of a whole number.
    pub(super) fn with(mut self, labels: Labels, value: u64) -> Family {
        self.series.push((labels, Sample::Whole(value)));
        self
    }

    /// With one more series.
    pub(super) fn with_real(mut self, labels: Labels, value: f64) -> Family {
        self.series.push((labels, Sample::Real(value)));
        self
    }

    /// With one more series, of the durations in `snapshot`, counted up to each of `bounds`.
    pub(super) fn with_durations(
        mut self,
        labels: Labels,
        snapshot: &Snapshot,
        bounds: &[Duration],
    ) -> Family {
        let mut below = 0;
        let cumulative = bounds.iter().zip(snapshot.cumulative(bounds));
        let mut buckets: Vec<(f64, u64)> = cumulative
            .map(|(bound, count)| {
                let bucket = count.saturating_sub(below);
                below = below.max(count);
                (bound.as_secs_f64(), bucket)
            })
            .collect();
        buckets.push((f64::INFINITY, snapshot.count().saturating_sub(below)));
        let sample = Sample::Histogram {
            sum: snapshot.sum().as_secs_f64(),
            count: snapshot.count(),
            buckets,
        };
        self.series.push((labels, sample));
        self
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = self.unit.as_ref();
        let mut encoder = encoder.encode_descriptor(self.name, self.help, unit, self.kind)?;
        for (labels, sample) in &self.series {
            sample.encode(&mut encoder.encode_family(labels)?, self.kind)?;
        }
        Ok(())
    }
}

impl Sample {
    fn encode(&self, encoder: &mut MetricEncoder<'_>, kind: MetricType) -> fmt::Result {
        match (self, kind) {
            (Sample::Whole(value), MetricType::Counter) => {
                encoder.encode_counter::<NoLabelSet, u64, f64>(value, None)
            }
            (Sample::Real(value), MetricType::Counter) => {
                encoder.encode_counter::<NoLabelSet, f64, f64>(value, None)
            }
            (Sample::Whole(value), _) => encoder.encode_gauge(value),
            (Sample::Real(value), _) => encoder.encode_gauge(value),
            (
                Sample::Histogram {
                    sum,
                    count,
                    buckets,
                },
                _,
            ) => encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None),
        }
    }
}

#[derive(Debug)]
struct Scrape(Vec<Family>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0
            .iter()
            .filter(|family| !family.series.is_empty())
            .try_for_each(|family| family.encode(&mut encoder))
    }
}

/// The families in this format. One without series is left out.
///
/// # Errors
/// If a value cannot be written, such as a gauge that is larger than an `i64`.
pub(super) fn write(families: Vec<Family>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(families)));
    let mut out = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
        Format::Text => prometheus_text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_cache::stats::Histogram;

    fn families() -> Vec<Family> {
        let durations = Histogram::default();
        for millis in [1, 30, 2_000] {
            durations.record(Duration::from_millis(millis));
        }
        let bounds = [Duration::from_micros(50), Duration::from_millis(500)];
        let named = |name: &str| vec![("resource", name.to_owned())];
        vec![
            Family::counter("larder_a", "As.")
                .with(named("x"), 3)
                .with(named("y"), 0),
            Family::gauge("larder_b", "Bs.")
                .in_bytes()
                .with(Vec::new(), 7),
            Family::counter("larder_nothing", "Has no series."),
            Family::counter("larder_c", "Cs.")
                .in_seconds()
                .with_real(Vec::new(), 1.5),
            Family::durations("larder_d", "Ds.").with_durations(
                named("x"),
                &durations.snapshot(),
                &bounds,
            ),
        ]
    }

    #[test]
    fn open_metrics_names_a_counter_without_total_and_has_units_and_an_end() {
        let text = write(families(), Format::OpenMetrics).unwrap();
        let expected = "\
# HELP larder_a As.
# TYPE larder_a counter
larder_a_total{resource=\"x\"} 3
larder_a_total{resource=\"y\"} 0
# HELP larder_b_bytes Bs.
# TYPE larder_b_bytes gauge
# UNIT larder_b_bytes bytes
larder_b_bytes 7
# HELP larder_c_seconds Cs.
# TYPE larder_c_seconds counter
# UNIT larder_c_seconds seconds
larder_c_seconds_total 1.5
# HELP larder_d_seconds Ds.
# TYPE larder_d_seconds histogram
# UNIT larder_d_seconds seconds
larder_d_seconds_sum{resource=\"x\"} 2.031
larder_d_seconds_count{resource=\"x\"} 3
larder_d_seconds_bucket{le=\"0.00005\",resource=\"x\"} 0
larder_d_seconds_bucket{le=\"0.5\",resource=\"x\"} 2
larder_d_seconds_bucket{le=\"+Inf\",resource=\"x\"} 3
# EOF
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_text_format_names_a_counter_with_total_and_has_neither_units_nor_an_end() {
        let text = write(families(), Format::Text).unwrap();
        let expected = "\
# HELP larder_a_total As.
# TYPE larder_a_total counter
larder_a_total{resource=\"x\"} 3
larder_a_total{resource=\"y\"} 0
# HELP larder_b_bytes Bs.
# TYPE larder_b_bytes gauge
larder_b_bytes 7
# HELP larder_c_seconds_total Cs.
# TYPE larder_c_seconds_total counter
larder_c_seconds_total 1.5
";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            !text.contains("# UNIT") && !text.contains("# EOF"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE larder_d_seconds histogram\n"),
            "{text}"
        );
    }
}
