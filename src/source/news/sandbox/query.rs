//! The query of a request to the sandbox: decoded as a form, checked as the real APIs check it.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::invented::Story;

/// The decoded parameters of a query. An empty one counts as missing.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str) -> Query {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Query(
            pairs
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let pair = self
            .0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty());
        pair.map(|(_, value)| value.as_str())
    }

    /// The parts of a parameter that is a list.
    pub(super) fn list(&self, name: &str, separator: char) -> Option<Vec<&str>> {
        Some(self.get(name)?.split(separator).collect())
    }

    pub(super) fn number(&self, name: &str, default: usize, most: usize) -> Result<usize, String> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(format!("{name} is a number from 1 to {most}")),
            },
        }
    }

    /// Keeps the stories between two dates or times, including both.
    pub(super) fn keep_dates(
        &self,
        stories: &mut Vec<Story>,
        from: &str,
        to: &str,
    ) -> Result<(), String> {
        let (start, end) = (self.date(from, "T00:00:00Z")?, self.date(to, "T23:59:59Z")?);
        stories.retain(|story| {
            start.is_none_or(|start| story.published_at >= start)
                && end.is_none_or(|end| story.published_at <= end)
        });
        Ok(())
    }

    fn date(&self, name: &str, of_day: &str) -> Result<Option<Timestamp>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let zone = if text.contains('T') { "Z" } else { of_day };
        let time = text.parse().or_else(|_| format!("{text}{zone}").parse());
        time.map(Some)
            .map_err(|_| format!("{name} is a date such as 2026-03-01"))
    }
}

/// Decodes a text of a query (WHATWG URL, `application/x-www-form-urlencoded`). Invalid escapes
/// stay as they are.
fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8_lossy();
    decoded.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(decode("a%20b+c%2Cd%c3%A9"), "a b c,dé");
        assert_eq!(decode("%"), "%");
        assert_eq!(decode("%4"), "%4");
        assert_eq!(decode("%zz%é"), "%zz%é");
    }

    #[test]
    fn empty_parameters_are_not_given_and_the_first_counts() {
        let query = Query::parse("a=&b=1&b=2&c&=d");
        assert_eq!(
            (query.get("a"), query.get("b"), query.get("c")),
            (None, Some("1"), None)
        );
        assert_eq!(query.number("a", 7, 9), Ok(7));
        assert_eq!(query.number("b", 7, 9), Ok(1));
        assert!(Query::parse("n=10").number("n", 7, 9).is_err());
    }
}
