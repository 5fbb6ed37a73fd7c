//! What the columns of a statement on SQLite are in JSON, as far as the schema guarantees it.
//!
//! Promise: a form holds for every value that the column can have. SQLite enforces a declared type
//! in STRICT tables only. In other tables three things are certain: an `INTEGER PRIMARY KEY` is a
//! whole number, a column with TEXT affinity is a string, and NOT NULL holds.

use rusqlite::{Connection, OptionalExtension, Statement};

use super::error::DatabaseError;
use super::json_form::{ColumnForm, JsonForm};
use super::json_rows::DeclaredType;
use super::query::Query;
use super::settings::DatabaseKind;

/// What the schema says about a column of a table: whether the table is STRICT, and whether the
/// column is declared NOT NULL and is the table's row id. Only a primary key that is the row id has
/// no index of its own.
const COLUMN: &str = "
    SELECT l.strict, x.\"notnull\", x.pk > 0 AND upper(x.type) = 'INTEGER'
        AND (SELECT count(*) FROM pragma_table_xinfo(?1) WHERE pk > 0) = 1
        AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')
    FROM pragma_table_list AS l JOIN pragma_table_xinfo(?1) AS x
    WHERE l.schema = 'main' AND l.type = 'table' AND l.name = ?1 AND x.name = ?2";

struct Declared {
    strict: bool,
    not_null: bool,
    is_row_id: bool,
}

/// What each column of the statement of `query` is.
pub(super) fn column_forms(
    connection: &Connection,
    query: &Query,
    statement: &Statement<'_>,
) -> Result<Vec<ColumnForm>, DatabaseError> {
    // A view may have a join or a UNION of its own.
    let is_plain = query.keeps_columns(DatabaseKind::Sqlite) && !names_view(connection, query)?;
    let mut forms = Vec::new();
    let origins = statement.columns_with_metadata();
    for (column, origin) in statement.columns().iter().zip(origins) {
        let place = origin.table_name().zip(origin.origin_name());
        let known = match place.filter(|_| is_plain && origin.database_name() == Some("main")) {
            Some((table, name)) => connection
                .query_row(COLUMN, [table, name], |row| {
                    Ok(Declared {
                        strict: row.get(0)?,
                        not_null: row.get(1)?,
                        is_row_id: row.get(2)?,
                    })
                })
                .optional()?,
            None => None,
        };
        forms.push(ColumnForm {
            form: form(column.decl_type(), known.as_ref()),
            nullable: known.is_none_or(|known| !known.not_null && !known.is_row_id),
        });
    }
    Ok(forms)
}

/// Whether the text of `query` contains the name of a view.
fn names_view(connection: &Connection, query: &Query) -> Result<bool, DatabaseError> {
    let sql = query.text(DatabaseKind::Sqlite).to_lowercase();
    let mut views = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'view'")?;
    let names = views.query_map([], |row| row.get::<_, String>(0))?;
    for name in names {
        if sql.contains(&name?.to_lowercase()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn form(declared: Option<&str>, known: Option<&Declared>) -> JsonForm {
    let whole = JsonForm::Integer {
        min: i64::MIN,
        max: i64::MAX,
    };
    let text = JsonForm::Text { format: None };
    let stored = || JsonForm::Stored {
        declared: declared.map(str::to_owned),
    };
    let upper = declared.unwrap_or_default().to_ascii_uppercase();
    let says = |part: &str| upper.contains(part);
    match known {
        _ if DeclaredType::parse(declared) == DeclaredType::Json => JsonForm::Any,
        None => stored(),
        Some(Declared {
            is_row_id: true, ..
        }) => whole,
        Some(Declared { strict: true, .. }) => match upper.as_str() {
            "INT" | "INTEGER" => whole,
            "REAL" => JsonForm::Number { exact: false },
            "TEXT" => text,
            "BLOB" => JsonForm::Base64,
            _ => stored(),
        },
        // TEXT affinity: numbers become text when they are stored, and a BLOB is base64.
        Some(_) if !says("INT") && (says("CHAR") || says("CLOB") || says("TEXT")) => text,
        Some(_) => stored(),
    }
}
