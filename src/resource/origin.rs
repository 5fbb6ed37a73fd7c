//! How the value of a resource comes to be: the one place that knows the kinds of source.

use std::sync::Arc;
use std::time::Duration;

use crate::database::{Database, DatabaseError, Transaction};
use crate::source::HttpUpstreams;
use larder_cache::{CacheItem, InvalidationTarget, Producer, Tally};

use super::Resource;
use super::api::Api;
use super::form::Taken;
use super::news::News;
use super::parts::Parts;
use super::seals::Seals;
use super::settings::{ParamValue, SourceSettings};
use super::sql::Sql;
use super::view::View;

/// What sources take; the same for all resources. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    /// The news upstreams.
    pub news: News,
    /// The database that SQL runs on.
    pub database: Database,
    /// The upstreams of HTTP sources.
    pub upstreams: HttpUpstreams,
}

/// The values of a request's parameters, but for views; each by its name.
pub(super) type Values<'r> = [(&'r str, ParamValue)];

/// See the module.
pub(super) enum Origin {
    News(News),
    Sql(Sql),
    Http(Api),
    Parts(Parts),
}

impl Origin {
    /// `built` are the resources that parts may name. `tally_of` gives what the look-ups of a part
    /// are counted in that is no resource of its own, by the part's own name.
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
            SourceSettings::Http(http) => Origin::Http(Api::new(http, &sources.upstreams, seals)?),
            SourceSettings::Parts(names) => Origin::Parts(Parts::of(names, built)?),
        })
    }

    /// What makes its values, for the fingerprint.
    pub(super) fn identity(&self) -> String {
        match self {
            Origin::News(news) => news.identity(),
            Origin::Sql(sql) => sql.identity(),
            Origin::Http(api) => api.identity().to_owned(),
            Origin::Parts(parts) => parts.identity(),
        }
    }

    /// Its parts that are no resources of their own, each with what its look-ups are counted in.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, &Arc<Tally>)> {
        let news = match self {
            Origin::News(news) => Some(news.parts()),
            Origin::Sql(_) | Origin::Http(_) | Origin::Parts(_) => None,
        };
        news.into_iter().flatten()
    }

    /// How long it may take.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Origin::News(news) => news.limit(),
            Origin::Sql(_) => Sql::LIMIT,
            Origin::Http(api) => api.limit(),
            Origin::Parts(parts) => parts.limit(),
        }
    }

    /// How the database takes a parameter, where it is the parts' statements that take it.
    pub(super) fn taken(&self, name: &str) -> Option<&Taken> {
        match self {
            Origin::Parts(parts) => parts.taken(name),
            Origin::News(_) | Origin::Sql(_) | Origin::Http(_) => None,
        }
    }

    /// The names of the entries that this one is made of.
    pub(super) fn names_of_parts(
        &self,
        resource: &Resource,
        values: &Values<'_>,
    ) -> Vec<InvalidationTarget> {
        match self {
            Origin::Sql(_) | Origin::Http(_) => Vec::new(),
            Origin::Parts(parts) => parts.own_names(values),
            Origin::News(_) => resource
                .request_of(values, 0, "")
                .map_or(Vec::new(), |request| match request.producer {
                    Producer::Compose(whole) => whole
                        .parts
                        .iter()
                        .map(|part| InvalidationTarget::from(&part.item.key))
                        .collect(),
                    Producer::Load(_) => Vec::new(),
                }),
        }
    }

    /// How log lines call it.
    pub(super) fn label(&self) -> &str {
        match self {
            Origin::News(_) => "news",
            Origin::Sql(sql) => sql.label(),
            Origin::Http(api) => api.label(),
            Origin::Parts(_) => "parts",
        }
    }

    /// The share of the loads that it draws on: what is slow together has one. That of a whole is
    /// for what it does beside its parts.
    pub(super) fn share(&self) -> &str {
        match self {
            // Its last resort is the archive.
            Origin::News(_) | Origin::Sql(_) => Sql::SHARE,
            Origin::Http(api) => api.label(),
            Origin::Parts(parts) => parts.share(),
        }
    }

    /// All shares that a look-up of it draws on, but for those of resources that are its parts.
    pub(super) fn shares(&self) -> Vec<&str> {
        let upstreams = match self {
            Origin::News(news) => news.upstreams().collect(),
            Origin::Sql(_) | Origin::Http(_) | Origin::Parts(_) => Vec::new(),
        };
        [vec![self.share()], upstreams].concat()
    }

    /// What a request sees of it that asks for nothing in particular.
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Origin::News(_) => View::News(Default::default()),
            Origin::Sql(_) | Origin::Http(_) | Origin::Parts(_) => View::Whole,
        }
    }

    /// Whether all of the value comes from the database, so that [`Origin::current`] can say what it is.
    pub(super) fn is_sql(&self) -> bool {
        match self {
            Origin::Sql(_) => true,
            Origin::Parts(parts) => parts.is_sql(),
            Origin::News(_) | Origin::Http(_) => false,
        }
    }

    /// The value for `values` as the database has it within `transaction`; `None` where there is no such thing.
    ///
    /// # Errors
    /// Also where it does not come from the database, or not all of it.
    pub(super) fn current(
        &self,
        transaction: &mut Transaction<'_>,
        values: &Values<'_>,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        match self {
            Origin::Sql(sql) => sql.current(transaction, values),
            Origin::Parts(parts) => parts.current(transaction, values),
            Origin::News(_) | Origin::Http(_) => Err(DatabaseError::Misconfigured(
                "a precondition on what does not come from the database".to_owned(),
            )),
        }
    }

    /// How the value for `values` is made, which `subject` of `resource` is about.
    pub(super) fn making(
        &self,
        resource: &Resource,
        subject: &CacheItem,
        values: &Values<'_>,
    ) -> Producer {
        match self {
            Origin::News(news) => {
                let category = values.iter().find(|(name, _)| *name == "category");
                let category = category.map(|(_, value)| value.to_string());
                news.making(subject, resource.name(), resource.fingerprint, category)
            }
            Origin::Sql(sql) => sql.making(values),
            Origin::Http(api) => api.making(values),
            Origin::Parts(parts) => parts.making(subject, values),
        }
    }
}
