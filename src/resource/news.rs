//! News: a composite with one part for each upstream.
//!
//! Each upstream's articles have an entry of their own in both tiers, so an upstream that fails or
//! has spent its quota causes no call to another one. The composite is the merged list; each
//! request gets its view of it. If no upstream answers and no copy is left, the last resort is the
//! archive in the database.

use std::sync::Arc;
use std::time::Duration;

use crate::database::Database;
use crate::source::TraceContext;
use crate::source::news::{Flags, Item, Listing, NewsUpstream};
use crate::source::quota::Quota;
use larder_cache::{
    CacheItem, Composition, Key, LastResort, Lifetime, Load, LoadContext, Loaded, LookupResult,
    Producer, Request, Tally, Value, escape_into,
};

use super::archivist::{Archivist, sandbox_category};
use super::argument::Argument;
use super::seals::Seals;

/// The category of a request without one.
const GENERAL: &str = "general";
/// Articles in an answer from the archive, at most: as many as both upstreams give in one load.
const ARCHIVED: u32 = 150;

/// One upstream to ask.
#[derive(Clone)]
pub struct NewsSource {
    /// The upstream.
    pub upstream: Arc<NewsUpstream>,
    /// Whether it is this process's own sandbox. All sandboxes give the same articles, whatever
    /// their address.
    pub is_sandbox: bool,
}

/// The news upstreams, and the database that archives their articles. Cheap to clone.
#[derive(Clone)]
pub struct News {
    sources: Vec<NewsSource>,
    /// For one resource: each source's identity, and the counters of its lookups.
    own: Vec<(String, Arc<Tally>)>,
    archivist: Archivist,
    database: Database,
}

/// Which articles a request selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewsView<'q> {
    /// Only articles of this source. `None`: of all sources.
    pub source: Option<std::borrow::Cow<'q, str>>,
    /// So many at most. `None`: all.
    pub limit: Option<usize>,
}

impl<'q> NewsView<'q> {
    pub(super) fn set(&mut self, name: &str, argument: Argument<'q>) {
        match (name, argument) {
            ("source", Argument::Text(source)) => self.source = Some(source),
            ("limit", Argument::Integer(limit)) => self.limit = usize::try_from(limit).ok(),
            // A valid configuration declares no other view of news.
            _ => {}
        }
    }

    /// The answer's JSON, cut from the bytes of an entry:
    /// `{"articles":[…],"total":N,…,"cached":…}`. Bytes that are not a listing give no articles.
    pub fn body(&self, bytes: &[u8], cached: bool) -> Vec<u8> {
        /// Bytes beside the articles, at most.
        const FRAME: usize = 128;
        let listing = Listing::read(bytes);
        let limit = self.limit.unwrap_or(usize::MAX);
        let room = listing.as_ref().map_or(0, |listing| listing.room(limit));
        let mut out = Vec::with_capacity(room + FRAME);
        out.extend_from_slice(b"{\"articles\":[");
        let total = listing.as_ref().map_or(0, |listing| {
            listing.view(self.source.as_deref(), limit, &mut out)
        });
        let flags = listing.map(|listing| listing.flags()).unwrap_or_default();
        out.extend_from_slice(b"],\"total\":");
        Argument::Integer(total as i64)
            .with_text(|digits| out.extend_from_slice(digits.as_bytes()));
        for (set, name) in [
            (flags.partial, "partial"),
            (flags.archived, "archived"),
            (flags.sandbox, "sandbox"),
        ] {
            if set {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":true");
            }
        }
        out.extend_from_slice(if cached {
            b",\"cached\":true}"
        } else {
            b",\"cached\":false}"
        });
        out
    }

    /// A hash of this view of an entry with the hash `hash`: different views have different ones.
    pub fn hash(&self, hash: u64) -> u64 {
        let mut mixed = hash;
        if let Some(source) = &self.source {
            mixed = mixed.rotate_left(7) ^ xxhash_rust::xxh3::xxh3_64(source.as_bytes());
        }
        mixed.rotate_left(9) ^ self.limit.map_or(0, |limit| limit as u64 + 1)
    }
}

impl News {
    /// News from `sources`, archived in `database`.
    pub fn new(sources: Vec<NewsSource>, archivist: Archivist, database: Database) -> News {
        News {
            sources,
            own: Vec::new(),
            archivist,
            database,
        }
    }

    /// News for one resource, from the upstreams of these names. `tally_of` gives the counters of
    /// an upstream's look-ups by the upstream's name.
    pub(super) fn of(
        &self,
        names: &[String],
        seals: &Seals,
        tally_of: &dyn Fn(&str) -> Arc<Tally>,
    ) -> Result<News, String> {
        let sources = names.iter().map(|name| {
            let known = self
                .sources
                .iter()
                .find(|source| source.upstream.name() == name);
            known
                .cloned()
                .ok_or_else(|| format!("upstream {name} is new, which requires a restart"))
        });
        let sources: Vec<NewsSource> = sources.collect::<Result<_, _>>()?;
        let own = sources.iter().map(|source| {
            let name = source.upstream.name();
            (identity(source, seals), tally_of(name))
        });
        Ok(News {
            own: own.collect(),
            sources,
            ..self.clone()
        })
    }

    /// The names of its upstreams.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.upstream.name())
    }

    /// The quotas of its upstreams, which count their calls.
    pub(super) fn quotas(&self) -> impl Iterator<Item = &Arc<Quota>> {
        let upstreams = self.sources.iter().map(|source| &source.upstream);
        upstreams.filter_map(|upstream| upstream.quota.as_ref())
    }

    /// What its values depend on, for the fingerprint.
    pub(super) fn identity(&self) -> String {
        let identities = self.own.iter().map(|(identity, _)| identity.as_str());
        identities.collect::<Vec<_>>().join(" ")
    }

    /// Each upstream's name and the counters of its look-ups.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, &Arc<Tally>)> {
        let names = self.sources.iter().map(|source| source.upstream.name());
        names.zip(self.own.iter().map(|(_, tally)| tally))
    }

    /// The timeout of its slowest upstream.
    pub(super) fn limit(&self) -> Duration {
        self.sources
            .iter()
            .map(|source| source.upstream.http.timeout())
            .max()
            .unwrap_or_default()
    }

    /// What produces the articles of `category` for the resource `name`.
    pub(super) fn producer(
        &self,
        item: &CacheItem,
        name: &str,
        fingerprint: u64,
        category: Option<String>,
        trace: Option<Arc<TraceContext>>,
    ) -> Producer {
        let category: Arc<str> = category.as_deref().unwrap_or(GENERAL).into();
        let parts = self
            .sources
            .iter()
            .zip(&self.own)
            .map(|(source, (_, tally))| {
                let upstream = &source.upstream;
                let mut key = format!("{name}.{}?category=", upstream.name());
                escape_into(&mut key, &category);
                let (loaded, archivist, category) =
                    (upstream.clone(), self.archivist.clone(), category.clone());
                let trace = trace.clone();
                let run = Box::new(move |context: LoadContext| {
                    let fetched = loaded.fetch(&category, context.deadline, trace.as_deref());
                    let listing = Value::present(fetched?);
                    archivist.keep(&category, listing.bytes().clone());
                    Ok(Loaded::new(listing, Lifetime::Policy))
                });
                Request {
                    item: CacheItem {
                        key: Key::new(fingerprint, &key),
                        policy: item.policy.clone(),
                        tags: item.tags.clone(),
                        share: upstream.name().into(),
                        label: upstream.name().into(),
                        note: item.note.clone(),
                        jitter: item.jitter,
                        tally: tally.clone(),
                    },
                    producer: Producer::Load(Load {
                        limit: upstream.http.timeout(),
                        run,
                    }),
                }
            });
        let parts = parts.collect();
        Producer::Compose(Composition {
            parts,
            compose: Arc::new(merge),
            last_resort: Some(archived(self.database.clone(), category)),
        })
    }
}

/// What the articles of `source` depend on: the format, the address and the account. All sandboxes
/// give the same articles, whatever their address, and have no accounts.
fn identity(source: &NewsSource, seals: &Seals) -> String {
    let upstream = &source.upstream;
    let name = upstream.name();
    match &upstream.key {
        _ if source.is_sandbox => format!("{name}@sandbox"),
        None => format!("{name}@{}", upstream.base_url),
        Some(key) => {
            let seal = seals.of(key.reveal());
            format!("{name}@{} as {seal:08x}", upstream.base_url)
        }
    }
}

fn merge(parts: &[LookupResult]) -> Option<Loaded> {
    let listings: Vec<Listing<'_>> = parts
        .iter()
        .filter_map(|part| part.as_ref().ok())
        .filter_map(|answer| Listing::read(answer.entry.value.bytes()))
        .collect();
    let flags = Flags {
        partial: listings.len() < parts.len(),
        ..Flags::default()
    };
    (!listings.is_empty()).then(|| {
        Loaded::new(
            Value::present(Listing::merge(&listings, flags)),
            Lifetime::Policy,
        )
    })
}

fn archived(database: Database, category: Arc<str>) -> LastResort {
    Box::new(move || {
        let newest = |category: &str| {
            let found = database.archive().newest(Some(category), ARCHIVED);
            found
                .map_err(|error| log::warn!("the archive cannot be read: {error}"))
                .unwrap_or_default()
        };
        let articles = newest(&category);
        let sandbox = articles.is_empty();
        let articles = if sandbox {
            newest(&sandbox_category(&category))
        } else {
            articles
        };
        if articles.is_empty() {
            return None;
        }
        let items = articles.iter().map(|article| Item {
            url: &article.url,
            source: &article.source,
            published_at: article.published_at,
            json: article.json.as_bytes(),
            fields: 0,
        });
        let listing = Listing::of_items(
            items,
            Flags {
                archived: true,
                sandbox,
                ..Flags::default()
            },
        );
        Some(Loaded::new(Value::present(listing), Lifetime::Policy))
    })
}
