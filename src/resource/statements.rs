//! Checks of statements that need the database.

use crate::database::{DatabaseError, Description, Query};

use super::settings::{ParamKind, ParamSettings, ResourceSettings, SourceSettings, WriteSettings};

/// A statement that the database refuses, or that does not fit its declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementFault {
    /// The line of the configuration.
    pub line: usize,
    /// The key of the configuration, such as `resource.user.source.sql`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be valid.
    pub valid: String,
}

/// All statements of `resources`, in their order.
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

/// The faults in the statements of `resources`. `described` has the database's description of each,
/// in the order of [`statements`].
pub fn statement_faults(
    resources: &[ResourceSettings],
    described: &[Result<Description, DatabaseError>],
) -> Vec<StatementFault> {
    let mut faults = Vec::new();
    let mut described = described.iter();
    for resource in resources {
        if let Some(SourceSettings::Sql(sql)) = &resource.source
            && let Some(found) = described.next()
        {
            let unfit = found
                .iter()
                .flat_map(|found| unfit(&resource.params, found));
            let wrong = reads(found).into_iter().chain(unfit);
            faults.extend(wrong.map(|(problem, valid)| StatementFault {
                line: sql.line.0,
                key: format!("resource.{}.source.sql", resource.name),
                problem,
                valid,
            }));
        }
        for write in &resource.writes {
            let Some(found) = described.next() else { break };
            let wrong = writes(resource, write, found).into_iter();
            faults.extend(wrong.map(|(part, problem, valid)| StatementFault {
                line: write.line.0,
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

/// The faults of those `params` whose declared type never fits their place in the statement.
fn unfit<'a>(
    params: impl IntoIterator<Item = &'a ParamSettings>,
    description: &Description,
) -> Vec<(String, String)> {
    let wrong = |param: &ParamSettings| {
        let name = &param.name;
        let mut places = description.parameters.iter();
        let (_, expected) = places.find(|(known, _)| known == name)?;
        let (kind, fits) = match &param.kind {
            ParamKind::Text { .. } => ("string", true),
            ParamKind::Integer { .. } => ("integer", !NO_NUMBERS.contains(&expected.as_str())),
            ParamKind::Boolean => ("boolean", BOOLEANS.contains(&expected.as_str())),
        };
        let valid = match expected.strip_suffix("[]") {
            Some(element) => format!(
                "string_to_array(:{name}, ',')::{element}[] in the statement and {name} of type \"string\", which a request gives as {name}=1,2"
            ),
            None if fits => return None,
            None => format!("a cast of :{name} in the statement, or {name} of a type that fits"),
        };
        Some((
            format!(
                "needs :{name} as {expected}, but {name} is declared as {kind:?}, which never fits"
            ),
            valid,
        ))
    };
    params.into_iter().filter_map(wrong).collect()
}

/// Types of Postgres that accept no whole number.
const NO_NUMBERS: [&str; 15] = [
    "bool",
    "uuid",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "bit",
    "varbit",
    "bytea",
];

/// Types that accept `true` and `false`.
const BOOLEANS: [&str; 4] = ["any", "bool", "json", "jsonb"];

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
    let fields = write.query.parameters().iter().map(String::as_str);
    let columns = description.columns.iter().map(String::as_str);
    let mut known: Vec<&str> = params.chain(fields).chain(columns).collect();
    known.sort_unstable();
    known.dedup();
    // Only parameters of the path have a declared type. Any other may come from the body.
    let params = resource.params.iter();
    let of_path = params.filter(|param| resource.has_in_path(&param.name));
    let unfit = unfit(of_path, description).into_iter();
    let mut wrong: Vec<_> = unfit
        .map(|(problem, valid)| ("sql", problem, valid))
        .collect();
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
