//! The sources of news: each upstream, or the sandbox instead of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::resource::{NewsSource, SourceSettings};
use crate::source::UpstreamSettings;
use crate::source::http::{HttpClient, HttpSettings};
use crate::source::news::{NewsFormat, NewsUpstream};
use crate::source::quota::{Quota, QuotaStore};

use super::sandbox;

/// The upstreams that resources name. The sandbox replaces an upstream that has neither a key nor
/// an address of its own.
pub(super) fn sources(config: &Config, quotas: &QuotaStore) -> Result<Vec<NewsSource>, String> {
    let mut sandbox_at = None;
    let mut sources = Vec::new();
    for settings in config.upstreams.iter().filter(|one| is_named(config, one)) {
        let UpstreamSettings { name, key_env, .. } = settings;
        let Some(format) = NewsFormat::of_upstream(name) else {
            continue;
        };
        let usual = UpstreamSettings::news(name);
        let official = usual.is_some_and(|usual| usual.base_url == settings.base_url);
        let is_sandbox = settings.key.is_none() && official;
        let (base_url, rates) = if is_sandbox {
            let at = match sandbox_at {
                Some(at) => at,
                None => {
                    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                    sandbox::spawn(anywhere, Duration::ZERO, 0.0)
                        .map_err(|error| format!("the sandbox cannot start: {error}"))?
                }
            };
            sandbox_at = Some(at);
            log::warn!("{key_env} is not set: the sandbox makes up the news of {name}");
            (sandbox::base_url(at, format), Vec::new())
        } else {
            if settings.key.is_none() {
                log::warn!("{key_env} is not set: {name} is asked without a key");
            }
            (settings.base_url.clone(), settings.quota.clone())
        };
        let calls = HttpSettings {
            max_pause: settings.max_pause,
            ..HttpSettings::new(name, settings.timeout)
        };
        sources.push(NewsSource {
            upstream: Arc::new(NewsUpstream {
                format,
                base_url,
                key: settings.key.clone(),
                http: HttpClient::new(calls),
                quota: Some(Arc::new(Quota::new(name, rates, Some(quotas.clone())))),
            }),
            is_sandbox,
        });
    }
    Ok(sources)
}

/// Whether a resource of `config` uses the news of `upstream`.
fn is_named(config: &Config, upstream: &UpstreamSettings) -> bool {
    let mut sources = config.resources.iter().map(|resource| &resource.source);
    sources.any(|source| match source {
        Some(SourceSettings::News(names)) => names.contains(&upstream.name),
        _ => false,
    })
}
