//! Watches: tables whose triggers write names into the outbox. Postgres only.

use super::error::DatabaseError;
use super::session::Session;

/// A template that `larder_watch` attached to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The table, with its schema if that is not on the search path.
    pub table: String,
    /// The template, as it was passed to `larder_watch`.
    pub template: String,
    /// The columns that the template names, each once.
    pub columns: Vec<WatchedColumn>,
}

/// A column in the template of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedColumn {
    /// Its name.
    pub name: String,
    /// Its type, as Postgres calls it. `None` if the column was dropped.
    pub of_type: Option<String>,
    /// The rule that makes its canonical texts, as `larder_kind` names it. `None` if its type has
    /// no canonical texts, so that each change invalidates everything.
    pub kind: Option<String>,
}

/// The watches that a session sees. None on SQLite.
pub(super) fn of_session(session: &mut Session<'_>) -> Result<Vec<Watch>, DatabaseError> {
    let Session::Postgres(connection) = session else {
        return Ok(Vec::new());
    };
    // Postgres stores each argument of a trigger with a NUL at its end.
    let sql = "SELECT watched::regclass::text, template, parts[1], format_type(atttypid, NULL), larder_kind(atttypid, attcollation)
               FROM (
                   SELECT tgrelid, convert_from(substr(tgargs, 1, length(tgargs) - 1), getdatabaseencoding())
                   FROM pg_trigger
                   WHERE tgfoid = to_regprocedure('larder_note()') AND starts_with(tgname, 'larder_insert_')
               ) AS watch (watched, template)
               LEFT JOIN LATERAL regexp_matches(template, '[{]([^{}]+)[}]', 'g') AS piece (parts) ON true
               LEFT JOIN pg_attribute ON attrelid = watched AND attname = parts[1] AND attnum > 0 AND NOT attisdropped
               ORDER BY 1, 2";
    let mut watches: Vec<Watch> = Vec::new();
    for row in connection.client.query(sql, &[])? {
        let (table, template): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let column: Option<String> = row.try_get(2)?;
        let of_type: Option<String> = row.try_get(3)?;
        let kind: Option<String> = row.try_get(4)?;
        let known = watches
            .last()
            .is_some_and(|last| last.table == table && last.template == template);
        if !known {
            watches.push(Watch {
                table,
                template,
                columns: Vec::new(),
            });
        }
        if let (Some(watch), Some(name)) = (watches.last_mut(), column)
            && !watch.columns.iter().any(|column| column.name == name)
        {
            watch.columns.push(WatchedColumn {
                name,
                of_type,
                kind,
            });
        }
    }
    Ok(watches)
}
