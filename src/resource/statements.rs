//! Whether the statements of a configuration fit the database: what only the database can tell.

use crate::database::{DatabaseError, Description, Query};

use super::settings::{ResourceSettings, SourceSettings, WriteSettings};

/// A statement that the database does not take, or that does not give what is declared around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementFault {
    /// The line of the configuration that names it.
    pub line: usize,
    /// The key of the configuration: `resource.user.source.sql`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub valid: String,
}

/// Every statement that `resources` name, in their order.
pub fn statements(resources: &[ResourceSettings]) -> Vec<&Query> {
    let mut all: Vec<&Query> = Vec::new();
    for resource in resources {
        if let Some(SourceSettings::Sql(sql)) = &resource.source {
            all.push(&sql.query);
        }
        all.extend(resource.writes.iter().map(|write| &*write.query));
    }
    all
}

/// What is wrong with the statements of `resources`, of which `described` says, in the order of [`statements`], what the database
/// makes of each.
pub fn statement_faults(
    resources: &[ResourceSettings],
    described: &[Result<Description, DatabaseError>],
) -> Vec<StatementFault> {
    let mut faults = Vec::new();
    let mut described = described.iter();
    for resource in resources {
        if let Some(SourceSettings::Sql(sql)) = &resource.source
            && let Some(found) = described.next()
            && let Some((problem, valid)) = reads(found)
        {
            faults.push(StatementFault {
                line: sql.line,
                key: format!("resource.{}.source.sql", resource.name),
                problem,
                valid,
            });
        }
        for write in &resource.writes {
            let Some(found) = described.next() else { break };
            let wrong = writes(resource, write, found).into_iter();
            faults.extend(wrong.map(|(part, problem, valid)| StatementFault {
                line: write.line,
                key: format!(
                    "resource.{}.write.{}.{part}",
                    resource.name,
                    write.method.name()
                ),
                problem,
                valid,
            }));
        }
    }
    faults
}

fn reads(found: &Result<Description, DatabaseError>) -> Option<(String, String)> {
    let valid = "a statement that only reads, and whose columns can be shown as JSON";
    let problem = match found {
        Err(error) => error.to_string(),
        Ok(description) if description.writes => "does more than read".to_owned(),
        Ok(description) if !description.returns_rows => "returns no columns".to_owned(),
        Ok(_) => return None,
    };
    Some((problem, valid.to_owned()))
}

fn writes(
    resource: &ResourceSettings,
    write: &WriteSettings,
    found: &Result<Description, DatabaseError>,
) -> Vec<(&'static str, String, String)> {
    let description = match found {
        Ok(description) => description,
        Err(error) => {
            let valid =
                "a statement that the database takes, and whose columns can be shown as JSON";
            return vec![("sql", error.to_string(), valid.to_owned())];
        }
    };
    let params = resource.params.iter().map(|param| param.name.as_str());
    let given = write.query.parameters().iter().map(String::as_str);
    let columns = description.columns.iter().map(String::as_str);
    let mut known: Vec<&str> = params.chain(given).chain(columns).collect();
    known.sort_unstable();
    known.dedup();
    let mut wrong = Vec::new();
    let templates = write
        .invalidates
        .iter()
        .flatten()
        .map(|tag| ("invalidates", tag));
    let location = write.location.iter().map(|path| ("location", path));
    for (part, template) in templates.chain(location) {
        for name in template.params().filter(|name| !known.contains(name)) {
            wrong.push((
                part,
                format!("has {template}, but {name} is neither a parameter, nor a field, nor a column that the statement returns"),
                format!("one of {}", known.join(", ")),
            ));
        }
    }
    wrong
}
