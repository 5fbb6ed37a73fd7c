//! The writes of resources.

use super::params;
use super::reader::Table;
use super::source::{SQL_FORM, Statements};
use super::tags;
use super::wording::unknown;
use crate::resource::{FieldSettings, Line, TagTemplate, WriteMethod, WriteSettings};

const WRITE_FORM: &str = "{ sql = \"user_update\", invalidates = [\"user:{id}\"] }";
const LOCATION_FORM: &str =
    "a path such as \"/users/{id}\", whose places are columns that the statement returns";

/// Reads the writes of `resource`. `in_path` are the parameters of its path.
pub(super) fn read(
    resource: &Table<'_>,
    in_path: &[&str],
    statements: Statements<'_>,
) -> Vec<WriteSettings> {
    let names = WriteMethod::ALL.map(WriteMethod::name);
    let mut writes = Vec::new();
    for (name, value) in resource.table("write").entries() {
        let Some(method) = WriteMethod::ALL
            .into_iter()
            .find(|method| method.name() == name)
        else {
            value.fault(unknown("method", name, &names), names.join(", "));
            continue;
        };
        if value.as_text().is_some() {
            value.wrong(WRITE_FORM);
            continue;
        }
        let Some(table) = value.table() else { continue };
        writes.extend(write(method, table, in_path, statements));
    }
    writes
}

fn write(
    method: WriteMethod,
    table: Table<'_>,
    in_path: &[&str],
    statements: Statements<'_>,
) -> Option<WriteSettings> {
    let sql = table.need("sql", SQL_FORM);
    let query = sql.as_ref().and_then(|value| statements.find(value));
    let fields = fields(&table, in_path);
    if let Some(query) = &query {
        for (name, value) in table.table("fields").entries() {
            if !query.parameters().iter().any(|known| known == name) {
                let known: Vec<&str> = query.parameters().iter().map(String::as_str).collect();
                value.fault(
                    unknown("parameter of the statement", name, &known),
                    known.join(", "),
                );
            }
        }
    }
    let invalidates = table.get("invalidates").map(|value| tags::list(&value));
    let location = table.get("location").and_then(|value| {
        value.parse(LOCATION_FORM, |text| {
            let path = TagTemplate::parse(text).ok();
            path.filter(|_| text.starts_with('/'))
        })
    });
    table.close();
    Some(WriteSettings {
        method,
        query: query?.into(),
        fields,
        invalidates,
        location,
        line: Line(sql?.line()),
    })
}

/// Reads the fields of the body. They are declared like parameters, but are required by default.
fn fields(table: &Table<'_>, in_path: &[&str]) -> Vec<FieldSettings> {
    let section = table.table("fields");
    let mut fields = Vec::new();
    for (name, value) in section.entries() {
        if in_path.contains(&name) {
            value.fault(
                "is a parameter of the path, so it cannot be a field of the body",
                "a field that is not a parameter of the path",
            );
        }
        let Some(table) = value.table() else { continue };
        let kind = params::kind_of(&table);
        let required = table.boolean("required", true);
        table.close();
        fields.extend(kind.map(|kind| FieldSettings {
            name: name.to_owned(),
            kind,
            required,
        }));
    }
    fields
}
