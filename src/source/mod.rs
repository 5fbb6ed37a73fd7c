//! FLOOR 2: where a value comes from on a miss.

use std::time::Duration;

use crate::quantity::Rate;
use crate::secret::Secret;

/// The news upstreams that larder speaks to.
pub const NEWS_UPSTREAMS: [&str; 2] = ["newsapi", "guardian"];

/// How one upstream is asked.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// One of [`NEWS_UPSTREAMS`].
    pub name: String,
    /// What its requests' URLs begin with, without a slash at the end.
    pub base_url: String,
    /// The environment variable that its key is in.
    pub key_env: String,
    /// Its key; `None` if the environment has none.
    pub key: Option<Secret>,
    /// How long a request may take, to the last byte of its answer.
    pub timeout: Duration,
    /// How often it may be asked, by all replicas together. Empty: as often as one likes.
    pub quota: Vec<Rate>,
}

impl UpstreamSettings {
    /// The default settings of one of [`NEWS_UPSTREAMS`], without a key; `None` for any other.
    pub fn news(name: &str) -> Option<UpstreamSettings> {
        const SECOND: Duration = Duration::from_secs(1);
        const DAY: Duration = Duration::from_secs(86_400);
        let (base_url, key_env, quota) = match name {
            "newsapi" => (
                "https://newsapi.org/v2",
                "NEWSAPI_KEY",
                vec![Rate {
                    count: 100,
                    per: DAY,
                }],
            ),
            "guardian" => (
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
            _ => return None,
        };
        Some(UpstreamSettings {
            name: name.to_owned(),
            base_url: base_url.to_owned(),
            key_env: key_env.to_owned(),
            key: None,
            timeout: Duration::from_secs(5),
            quota,
        })
    }
}
