//! Whether two URLs lead to one story: they are compared without the parts that do not matter.

/// The URL without its scheme, its fragment, its `utm_*` parameters, the case of its host and a
/// slash at its end. For comparing only: it is not a URL.
pub(crate) fn story(url: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let mut story = host.to_ascii_lowercase();
    story.push_str(path.trim_end_matches('/'));
    let mut mark = '?';
    for parameter in query.split('&') {
        let utm = parameter
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case("utm_"));
        if !utm && !parameter.is_empty() {
            story.push(mark);
            story.push_str(parameter);
            mark = '&';
        }
    }
    story
}

#[cfg(test)]
mod tests {
    use super::story;

    #[test]
    fn one_story() {
        let plain = story("https://a.example/x/y");
        for same in [
            "http://a.example/x/y",
            "HTTPS://A.Example/x/y/",
            "https://a.example/x/y#top",
            "https://a.example/x/y?utm_source=z&UTM_medium=rss",
            "https://a.example/x/y/?utm_source=z#top",
        ] {
            assert_eq!(story(same), plain, "{same}");
        }
        assert_eq!(
            story("https://a.example/?id=1&utm_a=b&p=2"),
            story("http://A.example?id=1&p=2")
        );
    }

    #[test]
    fn two_stories() {
        let plain = story("https://a.example/x");
        for other in [
            "https://a.example/X",
            "https://b.example/x",
            "https://a.example/x?id=1",
            "https://a.example/x/y",
            "https://a.example:81/x",
            "",
            "é://?#",
        ] {
            assert_ne!(story(other), plain, "{other}");
        }
    }
}
