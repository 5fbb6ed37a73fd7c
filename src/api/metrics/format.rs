//! The format of a scrape, by `Accept` (RFC 9110, section 12.5.1).

use actix_web::http::header::{ACCEPT, HeaderMap};

/// A format that a scrape can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Text,
}

impl Format {
    /// The format that the client prefers. Without a preference, and if it accepts neither, it is
    /// [`Format::Text`], which every client reads.
    pub(super) fn accepted(headers: &HeaderMap) -> Format {
        let lines = headers
            .get_all(ACCEPT)
            .filter_map(|line| line.to_str().ok());
        let ranges: Vec<Range<'_>> = lines
            .flat_map(|line| line.split(','))
            .filter_map(Range::parse)
            .collect();
        let quality = |format: Format| {
            let matching = ranges
                .iter()
                .filter_map(|range| Some((range.precision(format)?, range.quality)));
            // The most precise range decides.
            let best =
                matching.max_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            best.map_or(0.0, |(_, quality)| quality)
        };
        if quality(Format::OpenMetrics) > quality(Format::Text) {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Its type, subtype and version.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Format::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
            Format::Text => ("text", "plain", "0.0.4"),
        }
    }
}

/// A media range of an `Accept` header.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    /// From 0 to 1.
    quality: f32,
}

impl<'a> Range<'a> {
    /// `None`: it is malformed.
    fn parse(text: &'a str) -> Option<Range<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Range {
            kind,
            subtype,
            version: None,
            quality: 1.0,
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if name.eq_ignore_ascii_case("q") {
                range.quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q))?;
            } else if name.eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"'));
            }
        }
        Some(range)
    }

    /// How precisely it names the format. `None`: not at all.
    fn precision(&self, format: Format) -> Option<u8> {
        let (kind, subtype, version) = format.parts();
        let same_kind = self.kind.eq_ignore_ascii_case(kind);
        let same = same_kind && self.subtype.eq_ignore_ascii_case(subtype);
        match (same, self.version) {
            (true, Some(named)) => (named == version).then_some(3),
            (true, None) => Some(2),
            _ if self.subtype != "*" => None,
            _ if same_kind => Some(1),
            _ => (self.kind == "*").then_some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn the_client_decides() {
        let accepted = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(ACCEPT, HeaderValue::from_static(line));
            }
            Format::accepted(&headers)
        };
        for open in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=1.0.0",
            "application/openmetrics-text; version=\"1.0.0\"",
            // What Prometheus 2 and Prometheus 3 send.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/plain;q=0.5, application/*;q=0.6",
            "*/*, text/plain;q=0",
        ] {
            assert_eq!(accepted(&[open]), Format::OpenMetrics, "{open}");
        }
        for text in [
            "",
            "*/*",
            "text/plain",
            "text/html, */*;q=0.8",
            "application/json",
            "application/openmetrics-text, text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.3, text/plain;q=0.4",
            // Versions that larder does not write.
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0, */*;q=0.1",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=x, nonsense",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        ] {
            assert_eq!(accepted(&[text]), Format::Text, "{text}");
        }
        assert_eq!(accepted(&[]), Format::Text);
        let lines = ["text/plain;q=0.1", "application/openmetrics-text;q=0.2"];
        assert_eq!(accepted(&lines), Format::OpenMetrics);
    }
}
