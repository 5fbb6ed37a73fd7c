//! The news: a whole of one part per upstream.
//!
//! Each upstream's articles are an entry of their own in both tiers, so that an upstream that fails, or has spent its quota, costs
//! no call to another one. The whole is their merge, and every view of it is cut on the way out. When no upstream answers and no
//! copy is left, the archive in the database is asked.

use std::sync::Arc;
use std::time::Duration;

use crate::database::Database;
use crate::source::news::{Flags, Item, Listing, NewsUpstream};
use larder_cache::{
    CacheItem, Composition, Key, LastResort, Lifetime, Load, LoadContext, Loaded, LookupResult,
    Producer, Request, Tally, Value, escape_into,
};

use super::archivist::Archivist;
use super::parameter::Argument;
use super::seals::Seals;

/// The category of a request that names none.
const GENERAL: &str = "general";
/// Articles that an answer from the archive is made of, at most: what one load brings from both upstreams.
const ARCHIVED: u32 = 150;

/// One upstream to ask.
#[derive(Clone)]
pub struct NewsSource {
    /// How it is asked.
    pub upstream: Arc<NewsUpstream>,
    /// Whether it is this process's own sandbox, which stands for the same everywhere, wherever it listens.
    pub made_up: bool,
}

/// Upstreams to ask, and the database that keeps what they said. Cheap to clone.
#[derive(Clone)]
pub struct News {
    sources: Vec<NewsSource>,
    /// Of a resource: what makes the values of each source, and where its look-ups are counted.
    own: Vec<(String, Arc<Tally>)>,
    archivist: Archivist,
    database: Database,
}

/// Which of the articles a request wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewsView<'q> {
    /// Those of this source; `None`: of any.
    pub source: Option<std::borrow::Cow<'q, str>>,
    /// So many at most; `None`: all.
    pub limit: Option<usize>,
}

impl<'q> NewsView<'q> {
    pub(super) fn set(&mut self, name: &str, argument: Argument<'q>) {
        match (name, argument) {
            ("source", Argument::Text(source)) => self.source = Some(source),
            ("limit", Argument::Integer(limit)) => self.limit = usize::try_from(limit).ok(),
            // A checked configuration declares no other view of news.
            _ => {}
        }
    }

    /// The answer's JSON, cut from the bytes of an entry: `{"articles":[…],"total":N,…,"cached":…}`. Bytes that are no listing
    /// show no articles.
    pub fn body(&self, bytes: &[u8], cached: bool) -> Vec<u8> {
        /// All that is not an article, at most.
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

    /// What tells this view's representation from those of other views of the same entry.
    pub fn etag_hash(&self, hash: u64) -> u64 {
        let mut told = hash;
        if let Some(source) = &self.source {
            told = told.rotate_left(7) ^ xxhash_rust::xxh3::xxh3_64(source.as_bytes());
        }
        told.rotate_left(9) ^ self.limit.map_or(0, |limit| limit as u64 + 1)
    }
}

impl News {
    /// The news of `sources`, kept in `database`.
    pub fn new(sources: Vec<NewsSource>, archivist: Archivist, database: Database) -> News {
        News {
            sources,
            own: Vec::new(),
            archivist,
            database,
        }
    }

    /// The news of the upstreams with these names, for one resource. `tally_of` gives what the
    /// look-ups of an upstream's part are counted in, by the upstream's name.
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
            known.cloned().ok_or_else(|| {
                format!("upstream {name}, which no resource named at the start, takes a restart")
            })
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

    /// What makes its values, for the fingerprint.
    pub(super) fn identity(&self) -> String {
        let identities = self.own.iter().map(|(identity, _)| identity.as_str());
        identities.collect::<Vec<_>>().join(" ")
    }

    /// Each upstream's name, with what its look-ups are counted in.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, &Arc<Tally>)> {
        let names = self.sources.iter().map(|source| source.upstream.name());
        names.zip(self.own.iter().map(|(_, tally)| tally))
    }

    /// How long its slowest upstream may take.
    pub(super) fn limit(&self) -> Duration {
        self.sources
            .iter()
            .map(|source| source.upstream.http.timeout())
            .max()
            .unwrap_or_default()
    }

    /// How the articles of `category` come to be, for the resource `name`.
    pub(super) fn making(
        &self,
        subject: &CacheItem,
        name: &str,
        fingerprint: u64,
        category: Option<String>,
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
                let (asked, archivist, wanted) =
                    (upstream.clone(), self.archivist.clone(), category.clone());
                let run = Box::new(move |attempt: LoadContext| {
                    let listing = Value::present(asked.fetch(&wanted, attempt.deadline)?);
                    archivist.keep(&wanted, listing.bytes().clone());
                    Ok(Loaded::new(listing, Lifetime::Policy))
                });
                Request {
                    subject: CacheItem {
                        key: Key::new(fingerprint, &key),
                        policy: subject.policy.clone(),
                        tags: subject.tags.clone(),
                        share: upstream.name().into(),
                        label: upstream.name().into(),
                        note: subject.note.clone(),
                        jitter: subject.jitter,
                        tally: tally.clone(),
                    },
                    making: Producer::Load(Load {
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

/// What makes the articles of `source`: whose format, from where, and whose account asks. The
/// sandbox makes the same ones up wherever it listens, and has no accounts.
fn identity(source: &NewsSource, seals: &Seals) -> String {
    let upstream = &source.upstream;
    let name = upstream.name();
    match &upstream.key {
        _ if source.made_up => format!("{name}@sandbox"),
        None => format!("{name}@{}", upstream.base_url),
        Some(key) => {
            let seal = seals.of(key.reveal());
            format!("{name}@{} as {seal:08x}", upstream.base_url)
        }
    }
}

/// Where the archive keeps what the sandbox made up for `category`: apart, so that it never stands beside real news.
pub(super) fn made_up_shelf(category: &str) -> String {
    format!("sandbox:{category}")
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
        let newest = |shelf: &str| {
            let found = database.archive().newest(Some(shelf), ARCHIVED);
            found
                .map_err(|error| log::warn!("the archive cannot be read: {error}"))
                .unwrap_or_default()
        };
        let articles = newest(&category);
        let sandbox = articles.is_empty();
        let articles = if sandbox {
            newest(&made_up_shelf(&category))
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
