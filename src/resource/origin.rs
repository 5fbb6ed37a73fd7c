//! Where the values of a resource come from: the one place that knows the kinds of source.

use std::sync::Arc;
use std::time::Duration;

use crate::database::{Database, DatabaseError, Transaction};
use crate::source::HttpUpstreams;
use crate::source::quota::Quota;
use larder_cache::{CacheItem, InvalidationTarget, Producer, Tally};

use super::Resource;
use super::canonical::ParamType;
use super::composite::Composite;
use super::http::HttpSource;
use super::news::News;
use super::request_context::RequestContext;
use super::seals::Seals;
use super::settings::SourceSettings;
use super::sql::Sql;
use super::values::{Values, text_of};
use super::view::View;

/// What the sources of all resources share. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    /// The news upstreams.
    pub news: News,
    /// The database of SQL sources.
    pub database: Database,
    /// The upstreams of HTTP sources.
    pub upstreams: HttpUpstreams,
}

impl Sources {
    /// The quota of each upstream that is or was used since the start. It counts their calls.
    pub fn quotas(&self) -> Vec<Arc<Quota>> {
        let news = self.news.quotas().cloned();
        news.chain(self.upstreams.quotas()).collect()
    }
}

/// See the module.
pub(super) enum Origin {
    News(News),
    Sql(Sql),
    Http(HttpSource),
    Composite(Composite),
}

impl Origin {
    /// `built` are the resources that a composite may have as parts. `tally_of` gives the counters
    /// of a part that is not a resource, by the part's name.
    pub(super) fn build(
        settings: &SourceSettings,
        sources: &Sources,
        built: &[Arc<Resource>],
        seals: &Seals,
        tally_of: &dyn Fn(&str) -> Arc<Tally>,
    ) -> Result<Origin, String> {
        Ok(match settings {
            SourceSettings::News(upstreams) => {
                Origin::News(sources.news.of(upstreams, seals, tally_of)?)
            }
            SourceSettings::Sql(sql) => Origin::Sql(Sql::new(sql, sources.database.clone())?),
            SourceSettings::Http(http) => {
                Origin::Http(HttpSource::new(http, &sources.upstreams, seals)?)
            }
            SourceSettings::Composite(parts) => Origin::Composite(Composite::new(parts, built)?),
        })
    }

    /// What the values depend on, for the fingerprint.
    pub(super) fn identity(&self) -> String {
        match self {
            Origin::News(news) => news.identity(),
            Origin::Sql(sql) => sql.identity(),
            Origin::Http(http) => http.identity().to_owned(),
            Origin::Composite(composite) => composite.identity(),
        }
    }

    /// The parts that are not resources, each with its counters.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, &Arc<Tally>)> {
        let news = match self {
            Origin::News(news) => Some(news.parts()),
            Origin::Sql(_) | Origin::Http(_) | Origin::Composite(_) => None,
        };
        news.into_iter().flatten()
    }

    /// How long a load may take.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Origin::News(news) => news.limit(),
            Origin::Sql(_) => Sql::LIMIT,
            Origin::Http(http) => http.limit(),
            Origin::Composite(composite) => composite.limit(),
        }
    }

    /// How the statements of a composite's parts take the parameter `name`.
    pub(super) fn sql_type(&self, name: &str) -> Option<&ParamType> {
        match self {
            Origin::Composite(composite) => composite.sql_type(name),
            Origin::News(_) | Origin::Sql(_) | Origin::Http(_) => None,
        }
    }

    /// What invalidates the entries of the parts.
    pub(super) fn targets_of_parts(
        &self,
        resource: &Resource,
        values: &Values<'_>,
    ) -> Vec<InvalidationTarget> {
        match self {
            Origin::Sql(_) | Origin::Http(_) => Vec::new(),
            Origin::Composite(composite) => composite.targets(values),
            Origin::News(_) => resource
                .request_of(values, 0, &RequestContext::default())
                .map_or(Vec::new(), |request| match request.producer {
                    Producer::Compose(news) => news
                        .parts
                        .iter()
                        .map(|part| InvalidationTarget::from(&part.item.key))
                        .collect(),
                    Producer::Load(_) => Vec::new(),
                }),
        }
    }

    /// Its name in log lines.
    pub(super) fn label(&self) -> &str {
        match self {
            Origin::News(_) => "news",
            Origin::Sql(sql) => sql.label(),
            Origin::Http(http) => http.label(),
            Origin::Composite(_) => "parts",
        }
    }

    /// The share of the load permits that it uses. Sources that are slow together have one share. A
    /// composite uses its share for its own work, beside its parts.
    pub(super) fn share(&self) -> &str {
        match self {
            // The last resort of news is the archive in the database.
            Origin::News(_) | Origin::Sql(_) => Sql::SHARE,
            Origin::Http(http) => http.label(),
            Origin::Composite(composite) => composite.share(),
        }
    }

    /// All shares that a look-up uses, except those of parts that are resources.
    pub(super) fn shares(&self) -> Vec<&str> {
        let upstreams = match self {
            Origin::News(news) => news.upstreams().collect(),
            Origin::Sql(_) | Origin::Http(_) | Origin::Composite(_) => Vec::new(),
        };
        [vec![self.share()], upstreams].concat()
    }

    /// The view of a request without view parameters.
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Origin::News(_) => View::News(Default::default()),
            Origin::Sql(_) | Origin::Http(_) | Origin::Composite(_) => View::Full,
        }
    }

    /// Whether the whole value comes from the database, so that [`Origin::current`] can read it.
    pub(super) fn is_sql(&self) -> bool {
        match self {
            Origin::Sql(_) => true,
            Origin::Composite(composite) => composite.is_sql(),
            Origin::News(_) | Origin::Http(_) => false,
        }
    }

    /// The value as `transaction` sees it. `None`: it is absent.
    ///
    /// # Errors
    /// Also if the value, or a part of it, does not come from the database.
    pub(super) fn current(
        &self,
        transaction: &mut Transaction<'_>,
        values: &Values<'_>,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        match self {
            Origin::Sql(sql) => sql.current(transaction, values),
            Origin::Composite(composite) => composite.current(transaction, values),
            Origin::News(_) | Origin::Http(_) => Err(DatabaseError::Misconfigured(
                "a precondition on a value that does not come from the database".to_owned(),
            )),
        }
    }

    /// What produces the value of `item`, an item of `resource` with these values, for the request
    /// of `context`.
    pub(super) fn producer(
        &self,
        resource: &Resource,
        item: &CacheItem,
        values: &Values<'_>,
        context: &RequestContext,
    ) -> Producer {
        match self {
            Origin::News(news) => {
                let category = text_of(values, "category");
                let trace = context.trace.clone();
                news.producer(item, resource.name(), resource.fingerprint, category, trace)
            }
            Origin::Sql(sql) => sql.producer(values, &item.note),
            Origin::Http(http) => http.producer(values, context.trace.clone()),
            Origin::Composite(composite) => composite.producer(item, values, context),
        }
    }
}
