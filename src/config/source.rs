//! The sources of resources, of any kind.

use std::path::Path;

use super::http::{self, Apis};
use super::news;
use super::params::Declared;
use super::reader::{Setting, Table};
use super::wording::{quoted, unknown};
use crate::database::{DatabaseKind, Query, Shape, load_query};
use crate::resource::{Line, SourceSettings, SqlSettings};

pub(super) const FORM: &str = "{ news = [\"newsapi\", \"guardian\"] }, { sql = \"user_by_id\" }, { http = \"https://host/path/{param}\" } or { parts = [\"profile\", \"status\"] }";
const KINDS: [&str; 4] = ["news", "sql", "http", "parts"];
pub(super) const SQL_FORM: &str = "the name of a file in sql/queries, without its \".sql\", that holds one statement which reads or writes rows";

/// Where to find statements.
#[derive(Clone, Copy)]
pub(super) struct Statements<'p> {
    /// The operator's own statements. They go before those that ship with larder.
    pub(super) folder: Option<&'p Path>,
    /// The database that runs them.
    pub(super) kind: DatabaseKind,
}

impl Statements<'_> {
    /// The statement that `value` names. Reports an error if there is none.
    pub(super) fn find(&self, value: &Setting<'_>) -> Option<Query> {
        let name = value.text(SQL_FORM)?;
        match load_query(self.folder, name, self.kind) {
            Ok(query) => Some(query),
            Err(error) => {
                value.fault(format!("is {}: {error}", quoted(name)), SQL_FORM);
                None
            }
        }
    }
}

/// What sources need beside their own table.
#[derive(Clone, Copy)]
pub(super) struct Context<'c> {
    pub(super) statements: Statements<'c>,
    pub(super) apis: Apis<'c, 'c>,
}

/// The kind of the source `value`, if it has exactly one, even if it is not valid.
pub(super) fn kind(value: &Setting<'_>) -> Option<&'static str> {
    let mut kinds = KINDS.into_iter().filter(|kind| value.inner(kind).is_some());
    kinds.next().filter(|_| kinds.next().is_none())
}

/// Reads the source `value` of `resource`, whose name is `name`. `None` if it is not valid.
pub(super) fn read(
    value: &Setting<'_>,
    resource: &Table<'_>,
    name: &str,
    params: &mut [Declared<'_>],
    context: Context<'_>,
) -> Option<SourceSettings> {
    if value.as_text().is_some() {
        value.wrong(FORM);
        return None;
    }
    let table = value.table()?;
    let entries = table.entries();
    let kinds: Vec<&str> = entries
        .iter()
        .map(|(key, _)| *key)
        .filter(|key| KINDS.contains(key))
        .collect();
    let source = match kinds.as_slice() {
        ["news"] => {
            let source = news::source(&table);
            if source.is_some() {
                news::judge(params);
            }
            source
        }
        ["sql"] => {
            no_views(params, "a query");
            sql(&table, params, context.statements)
        }
        ["http"] => {
            no_views(params, "an HTTP source");
            http::source(&table, name, params, http::ttl_from(resource), context.apis)
        }
        ["parts"] => {
            no_views(params, "parts");
            parts(&table)
        }
        [] => {
            match entries.first() {
                Some((key, value)) => value.fault(unknown("kind of source", key, &KINDS), FORM),
                None => value.fault("is empty", FORM),
            }
            return None;
        }
        _ => {
            value.fault(format!("has the kinds {}", kinds.join(" and ")), FORM);
            return None;
        }
    };
    table.close();
    source
}

/// Reports views of a source that has none. Only news has views.
fn no_views(params: &[Declared<'_>], kind: &str) {
    for param in params.iter().filter(|param| param.view) {
        param.value.fault(
            format!("is a view, but {kind} has no views"),
            "a parameter without view = true",
        );
    }
}

fn sql(
    table: &Table<'_>,
    params: &[Declared<'_>],
    statements: Statements<'_>,
) -> Option<SourceSettings> {
    let value = table.need("sql", SQL_FORM)?;
    let many = table.boolean("many", false);
    let query = statements.find(&value)?;
    let names: Vec<&str> = params.iter().map(|param| param.name).collect();
    for wanted in query.parameters() {
        if !names.contains(&wanted.as_str()) {
            let valid = match names.as_slice() {
                [] => "a statement without parameters, or params that declare them".to_owned(),
                some => format!(
                    "a statement with no other parameters than {}",
                    some.join(", ")
                ),
            };
            value.fault(
                format!("names :{wanted}, which is not a parameter of this resource"),
                valid,
            );
        }
    }
    Some(SourceSettings::Sql(SqlSettings {
        query: query.into(),
        shape: if many { Shape::Many } else { Shape::One },
        line: Line(value.line()),
    }))
}

fn parts(table: &Table<'_>) -> Option<SourceSettings> {
    const PARTS: &str = "an array of at least one name of a resource";
    let value = table.need("parts", PARTS)?;
    let mut names: Vec<String> = Vec::new();
    for item in value.nonempty_list(PARTS)? {
        let Some(name) = item.text(PARTS) else {
            continue;
        };
        if names.iter().any(|known| known == name) {
            item.fault(format!("names {} twice", item.quoted()), "each part once");
        } else {
            names.push(name.to_owned());
        }
    }
    Some(SourceSettings::Composite(names))
}
