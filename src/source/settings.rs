//! The settings of a news upstream. The defaults are those of the documentation.

use std::time::Duration;

use super::http::HttpSettings;
use super::news::NewsFormat;
use crate::quantity::Rate;
use larder_cache::Secret;

/// The news upstreams. Each has a format of its own. Their defaults: [`UpstreamSettings::news`].
pub const NEWS_UPSTREAMS: [&str; 2] = {
    let [one, other] = NewsFormat::ALL;
    [one.name(), other.name()]
};

/// Where a news upstream is, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Its name in sources and errors.
    pub name: String,
    /// The URL to which its paths are added.
    pub base_url: String,
    /// The environment variable with its key.
    pub key_env: String,
    /// Its key, if the variable is set.
    pub key: Option<Secret>,
    /// The longest time that a call may take.
    pub timeout: Duration,
    /// Its rate limits. Every one of them holds.
    pub quota: Vec<Rate>,
    /// The longest pause that its own answer can cause.
    pub max_pause: Duration,
}

impl UpstreamSettings {
    /// The default settings of one of [`NEWS_UPSTREAMS`], without a key; `None` for any other.
    pub fn news(name: &str) -> Option<UpstreamSettings> {
        const SECOND: Duration = Duration::from_secs(1);
        const DAY: Duration = Duration::from_secs(86_400);
        let (base_url, key_env, quota) = match NewsFormat::of_upstream(name)? {
            NewsFormat::NewsApi => (
                "https://newsapi.org/v2",
                "NEWSAPI_KEY",
                vec![Rate {
                    count: 100,
                    per: DAY,
                }],
            ),
            NewsFormat::Guardian => (
                "https://content.guardianapis.com",
                "GUARDIAN_API_KEY",
                vec![
                    Rate {
                        count: 1,
                        per: SECOND,
                    },
                    Rate {
                        count: 500,
                        per: DAY,
                    },
                ],
            ),
        };
        Some(UpstreamSettings {
            name: name.to_owned(),
            base_url: base_url.to_owned(),
            key_env: key_env.to_owned(),
            key: None,
            timeout: Duration::from_secs(5),
            quota,
            max_pause: HttpSettings::MAX_PAUSE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_news_upstream_has_defaults() {
        assert_eq!(NEWS_UPSTREAMS, ["newsapi", "guardian"]);
        for name in NEWS_UPSTREAMS {
            assert_eq!(UpstreamSettings::news(name).unwrap().name, name);
        }
        let quota = UpstreamSettings::news("guardian").unwrap().quota;
        let quota: Vec<String> = quota.iter().map(Rate::to_string).collect();
        assert_eq!(quota, ["1/1s", "500/1d"]);
        assert!(UpstreamSettings::news("quotes").is_none());
    }
}
