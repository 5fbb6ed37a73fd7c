//! The archive: news articles as they were last fetched, to be served when every news source is
//! down.
//!
//! Promise: a batch is stored completely or not at all. Two replicas that store the same articles
//! at the same time delay each other by one statement at most. The JSON of an article is stored as
//! it is and never parsed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::DatabaseError;
use super::{Database, unix_ms};

/// An article and the columns by which it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedArticle {
    /// The article's own URL. The archive has one article per URL and category.
    pub url: String,
    /// Its publisher.
    pub source: String,
    /// When it was published, in seconds since 1970.
    pub published_at: i64,
    /// The article in the format that all sources share.
    pub json: String,
}

/// The archive of a database.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a>(pub(super) &'a Database);

impl Archive<'_> {
    /// Stores `articles` under `category`, in place of earlier versions of them. `None` means that
    /// they were fetched without a category. An article may be in several categories. Articles with
    /// a NUL character, which no database stores, are left out.
    pub fn store(
        &self,
        category: Option<&str>,
        articles: &[ArchivedArticle],
    ) -> Result<(), DatabaseError> {
        let has_nul = |article: &&ArchivedArticle| {
            [&article.url, &article.source, &article.json]
                .iter()
                .any(|text| text.contains('\0'))
        };
        // Each URL once, because one statement cannot store a row twice. In the order of URLs,
        // because two replicas that lock rows in different orders would deadlock.
        let articles: BTreeMap<&str, serde_json::Value> = articles
            .iter()
            .filter(|article| !has_nul(article))
            .map(|article| {
                let ArchivedArticle { url, source, published_at, json } = article;
                let row = serde_json::json!({"url": url, "source": source, "published_at": published_at, "json": json});
                (url.as_str(), row)
            })
            .collect();
        if articles.is_empty() {
            return Ok(());
        }
        let articles = serde_json::Value::Array(articles.into_values().collect()).to_string();
        let parameters = [
            ("category", category.unwrap_or_default().into()),
            ("articles", articles.into()),
            ("now", (unix_ms() / 1_000).into()),
        ];
        self.0.execute("archive_store", &parameters).map(drop)
    }

    /// The `limit` newest articles of `category`. `None` means all categories, with each URL once.
    pub fn newest(
        &self,
        category: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ArchivedArticle>, DatabaseError> {
        let rows = match category {
            Some(category) => self.0.query_as_load(
                "archive_newest",
                &[("category", category.into()), ("limit", limit.into())],
            )?,
            None => self
                .0
                .query_as_load("archive_newest_of_all", &[("limit", limit.into())])?,
        };
        rows.iter()
            .map(|row| {
                Ok(ArchivedArticle {
                    url: row.text("url")?.to_owned(),
                    source: row.text("source")?.to_owned(),
                    published_at: row.int("published_at")?,
                    json: row.text("json")?.to_owned(),
                })
            })
            .collect()
    }

    /// Removes the articles that no source has listed for longer than `keep`, and returns how many
    /// these were. Counts from when an article was last stored, not from its date: an article
    /// without a date would be removed at once.
    pub fn prune(&self, keep: Duration) -> Result<u64, DatabaseError> {
        let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        let before = (unix_ms() / 1_000).saturating_sub(keep);
        self.0
            .execute("archive_prune", &[("before", before.into())])
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn article(url: &str, published_at: i64) -> ArchivedArticle {
        ArchivedArticle {
            url: url.to_owned(),
            source: "bbc-news".to_owned(),
            published_at,
            json: format!(r#"{{"url":"{url}","title":"“it's” :a \"quoted\" \u0000"}}"#),
        }
    }

    #[test]
    fn the_newest_come_back_as_they_were_stored() {
        fixture::each(|database| {
            let archive = database.archive();
            let articles: Vec<_> = (1..=5)
                .map(|i| article(&format!("https://e.org/{i}"), i * 1_000))
                .collect();
            archive.store(Some("science"), &articles).unwrap();
            let newest = archive.newest(Some("science"), 3).unwrap();
            assert_eq!(
                newest,
                [
                    articles[4].clone(),
                    articles[3].clone(),
                    articles[2].clone()
                ]
            );
            assert_eq!(archive.newest(Some("sports"), 3).unwrap(), []);
        });
    }

    #[test]
    fn an_article_is_kept_once_per_category_as_it_was_last() {
        fixture::each(|database| {
            let archive = database.archive();
            let (old, mut new) = (article("https://e.org/1", 1), article("https://e.org/1", 2));
            new.source = "guardian".to_owned();
            archive
                .store(Some("science"), &[old.clone(), old.clone(), new.clone()])
                .unwrap();
            archive
                .store(Some("health"), std::slice::from_ref(&old))
                .unwrap();
            archive
                .store(None, &[new.clone(), article("https://e.org/2", 9)])
                .unwrap();
            archive.store(None, &[]).unwrap();
            assert_eq!(archive.newest(Some("science"), 10).unwrap(), [new.clone()]);
            assert_eq!(archive.newest(Some("health"), 10).unwrap(), [old]);
            let all = archive.newest(None, 10).unwrap();
            assert_eq!(all, [article("https://e.org/2", 9), new]);
        });
    }

    #[test]
    fn one_article_that_no_database_takes_does_not_cost_the_others() {
        fixture::each(|database| {
            let archive = database.archive();
            archive
                .store(
                    None,
                    &[
                        article("https://e.org/\0", 1),
                        article("https://e.org/2", 2),
                    ],
                )
                .unwrap();
            assert_eq!(
                archive.newest(None, 10).unwrap(),
                [article("https://e.org/2", 2)]
            );
        });
    }

    #[test]
    fn what_was_not_listed_for_long_is_forgotten() {
        fixture::each(|database| {
            let archive = database.archive();
            archive
                .store(Some("science"), &[article("https://e.org/1", 0)])
                .unwrap();
            assert_eq!(
                archive.prune(Duration::from_secs(3_600)).unwrap(),
                0,
                "its date is old, its listing is not"
            );
            fixture::batch(
                database,
                "UPDATE archived_articles SET stored_at = stored_at - 3700",
            );
            assert_eq!(archive.prune(Duration::from_secs(3_600)).unwrap(), 1);
            assert_eq!(archive.newest(None, 10).unwrap(), []);
        });
    }
}
