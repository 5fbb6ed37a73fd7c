//! Where queries come from: the operator's folder, the queries shipped for resources, and larder's
//! own.
//!
//! Promise: the operator's file wins over a shipped one, and a file for this database
//! (`name.postgres.sql`, `name.sqlite.sql`) wins over one for both. A resource reaches the folder
//! and the shipped queries, never larder's own, with which it could delete API keys. Names that
//! could be paths are refused, and so are statements that do not read or write rows: a COMMIT would
//! end the transaction in which it runs.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use super::error::DatabaseError;
use super::query::Query;
use super::settings::DatabaseKind;

/// Queries compiled in: `name.sql` for both databases, or `name.sqlite.sql` and
/// `name.postgres.sql`.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../sql/queries/", $name, ".sql")))),*]
    };
}

/// The queries that a resource may name.
const SHIPPED: &[(&str, &str)] = files![
    "employee_delete",
    "employee_insert",
    "employee_profile",
    "employee_set_status.postgres",
    "employee_set_status.sqlite",
    "employee_status",
    "employee_update",
    "user_by_id",
    "user_delete",
    "user_insert",
    "user_update",
];

const OWN: &[(&str, &str)] = files![
    "api_key_bump",
    "api_key_bump_back",
    "api_key_bump_first",
    "api_key_changed",
    "api_key_changes",
    "api_key_changes_prune",
    "api_key_delete",
    "api_key_insert",
    "api_key_page",
    "api_key_touch",
    "api_key_version",
    "archive_newest",
    "archive_newest_of_all",
    "archive_prune",
    "archive_store.postgres",
    "archive_store.sqlite",
    "identity",
    "identity_make",
    "outbox_delivered",
    "outbox_hand_over",
    "outbox_leave",
];

static QUERIES: LazyLock<HashMap<&'static str, Result<Query, DatabaseError>>> =
    LazyLock::new(|| {
        OWN.iter()
            .map(|(name, text)| (*name, Query::parse(name, text)))
            .collect()
    });

/// Larder's own query `name`, for a database of `kind`.
pub(super) fn own(name: &str, kind: DatabaseKind) -> Result<&'static Query, DatabaseError> {
    let found = QUERIES
        .get(name)
        .or_else(|| QUERIES.get(format!("{name}.{kind}").as_str()));
    match found {
        Some(Ok(query)) => Ok(query),
        Some(Err(error)) => Err(error.clone()),
        None => Err(DatabaseError::Misconfigured(format!(
            "no query is called {name}"
        ))),
    }
}

/// All of larder's own queries for `kind`.
pub(super) fn all_own(
    kind: DatabaseKind,
) -> impl Iterator<Item = Result<&'static Query, DatabaseError>> {
    let other = match kind {
        DatabaseKind::Postgres => DatabaseKind::Sqlite,
        DatabaseKind::Sqlite => DatabaseKind::Postgres,
    };
    let names = OWN.iter().map(|(name, _)| *name);
    names
        .filter(move |name| !name.ends_with(&format!(".{other}")))
        // Only Postgres has an outbox.
        .filter(move |name| kind == DatabaseKind::Postgres || !name.starts_with("outbox_"))
        .map(move |name| own(name, kind))
}

/// The words with which an operator's statement may begin.
const FIRST_WORDS: [&str; 9] = [
    "SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE",
];

/// The query that a resource calls `name`, for a database of `kind`: from `folder`, else the one
/// that is shipped with larder. Errors with [`DatabaseError::Misconfigured`] if it is not found,
/// naming the places that were tried, and if it is not one statement that reads or writes rows.
pub fn load_query(
    folder: Option<&Path>,
    name: &str,
    kind: DatabaseKind,
) -> Result<Query, DatabaseError> {
    let wrong = |what: String| Err(DatabaseError::Misconfigured(what));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return wrong(format!(
            "query {name:?}: a name has letters, digits, _ and -, without .sql"
        ));
    }
    let names = [format!("{name}.{kind}"), name.to_owned()];
    let mut sought = Vec::new();
    for name in &names {
        let Some(folder) = folder else { break };
        let path = folder.join(format!("{name}.sql"));
        match std::fs::read(&path) {
            Ok(bytes) => {
                let Ok(text) = String::from_utf8(bytes) else {
                    return wrong(format!("{}: not valid UTF-8", path.display()));
                };
                // Some editors begin a file with a byte order mark, which no database understands.
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                return rows_only(Query::parse_for(kind, name, text)?, kind);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sought.push(path.display().to_string());
            }
            Err(error) => return wrong(format!("{}: {error}", path.display())),
        }
    }
    let shipped = names
        .iter()
        .find_map(|name| SHIPPED.iter().find(|(shipped, _)| shipped == name));
    if let Some((name, text)) = shipped {
        return rows_only(Query::parse_for(kind, name, text)?, kind);
    }
    sought.push("the queries shipped with larder".to_owned());
    wrong(format!(
        "query {name}: not found; looked in {}",
        sought.join(", ")
    ))
}

fn rows_only(query: Query, kind: DatabaseKind) -> Result<Query, DatabaseError> {
    let first = query.first_word(kind).to_ascii_uppercase();
    if FIRST_WORDS.contains(&first.as_str()) {
        return Ok(query);
    }
    let what = format_args!("it must begin with one of {}", FIRST_WORDS.join(", "));
    Err(query.misconfigured(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_that_is_compiled_in_parses() {
        for (name, text) in OWN {
            Query::parse(name, text).unwrap();
        }
        for (name, text) in SHIPPED {
            for kind in [DatabaseKind::Postgres, DatabaseKind::Sqlite] {
                rows_only(Query::parse_for(kind, name, text).unwrap(), kind).unwrap();
            }
        }
    }

    #[test]
    fn every_file_is_compiled_in() {
        let folder = format!("{}/sql/queries", env!("CARGO_MANIFEST_DIR"));
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().file_name().into_string().unwrap();
            let name = file.strip_suffix(".sql").unwrap();
            let listed = OWN.iter().chain(SHIPPED).filter(|(own, _)| *own == name);
            assert_eq!(listed.count(), 1, "{file}");
        }
    }

    fn load(folder: &Path, name: &str, kind: DatabaseKind) -> Result<String, String> {
        let query = load_query(Some(folder), name, kind).map_err(|error| error.to_string())?;
        Ok(query.text(kind).to_owned())
    }

    #[test]
    fn the_file_for_the_database_comes_before_the_one_for_both() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("q.sql", "SELECT 1");
        write("q.postgres.sql", "-- why\n/* and /* so */ */ ( select 2)");
        let load = |kind| load(folder.path(), "q", kind).unwrap();
        assert_eq!(load(DatabaseKind::Sqlite), "SELECT 1");
        assert!(load(DatabaseKind::Postgres).ends_with("( select 2)"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            std::fs::write(folder.path().join(format!("{name}.sql")), text).unwrap();
        };
        write("empty", b" -- nothing\n");
        write("two", b"SELECT 1; SELECT 2");
        write("latin", b"SELECT '\xe9'");
        write("commit", b"/* x */ COMMIT");
        write("attach", b"ATTACH 'x' AS y");
        std::fs::create_dir(folder.path().join("folder.sql")).unwrap();
        for (name, expected) in [
            ("nowhere", "nowhere.sqlite.sql"),
            ("nowhere", "shipped with larder"),
            ("api_key_list", "not found"),
            ("empty", "begin with one of"),
            ("two", "a second statement"),
            ("latin", "not valid UTF-8"),
            ("commit", "begin with one of"),
            ("attach", "begin with one of"),
            ("folder", "folder.sql"),
            ("../two", "letters, digits"),
            ("a/b", "letters, digits"),
            ("two.sql", "letters, digits"),
            ("", "letters, digits"),
        ] {
            let error = load(folder.path(), name, DatabaseKind::Sqlite).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
        let error = load_query(None, "nowhere", DatabaseKind::Postgres).unwrap_err();
        assert!(error.to_string().contains("shipped"), "{error}");
    }
}
