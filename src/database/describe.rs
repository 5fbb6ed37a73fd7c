//! The parameters and columns of a query, as the database describes them without running it.
//!
//! Promise: nothing is changed. A query that passes can be run: the database understands it, and
//! each parameter and column has a JSON form. [`describe_all`] also describes against a schema that
//! is not in place yet: it runs the missing migrations in a transaction that is rolled back, or in
//! memory if the SQLite file does not exist. Errors hold the database's message and the line, never
//! the SQL.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::time::Duration;

use postgres::error::ErrorPosition;
use postgres::types::{ToSql, Type};
use postgres::{Column, Statement};
use rusqlite::{Connection, OpenFlags};

use super::canonical::{self, Canonical};
use super::error::DatabaseError;
use super::json_form::{ColumnForm, JsonForm};
use super::json_rows::{Columns, RawColumn};
use super::keys::Keys;
use super::postgres_pool::PostgresManager;
use super::query::Query;
use super::session::Session;
use super::settings::{DatabaseKind, DatabaseSettings};
use super::sql_value::SqlValue;
use super::transaction::Transaction;
use super::watches::{self, Watch};
use super::{
    STATEMENT, library, migration, postgres_error, rights, sqlite_columns, sqlite_pool, wire,
};

/// How long a description waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The parameters and columns of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Each parameter with the database's name of its type; on SQLite `any`.
    pub parameters: Vec<(String, String)>,
    /// How the values of each parameter become canonical texts, in the same order.
    pub parameter_texts: Vec<Canonical>,
    /// What each parameter takes, in the same order. A statement may refuse null.
    pub parameter_forms: Vec<JsonForm>,
    /// The columns, in order.
    pub columns: Vec<String>,
    /// How the values of each column become canonical texts, in the same order.
    pub column_texts: Vec<Canonical>,
    /// What each column is in JSON, in the same order.
    pub column_forms: Vec<ColumnForm>,
    /// Whether it returns rows.
    pub returns_rows: bool,
    /// Whether it is known to return exactly one row, if it does not fail: an INSERT of one row.
    pub returns_one_row: bool,
    /// Whether it writes, or locks rows as a writer does. A function that Postgres calls may write
    /// unseen; a transaction that is READ ONLY refuses that when it runs.
    pub writes: bool,
}

/// The description of each query, or its error, and every watch that the database has.
type Survey = (Vec<Result<Description, DatabaseError>>, Vec<Watch>);

/// Describes each query as [`Database::describe`](super::Database::describe) does, on the database
/// of these settings as if its schema were up to date, and lists the watches. Changes nothing there
/// and creates no file. Errors if opening or migrating the database would fail, and if larder's own
/// queries do not fit the schema.
pub fn describe_all(
    settings: &DatabaseSettings,
    queries: &[impl Borrow<Query>],
) -> Result<Survey, DatabaseError> {
    let url = settings.url();
    match DatabaseKind::of_url(url) {
        Some(DatabaseKind::Postgres) => {
            let mut connection = PostgresManager::new(url, STATEMENT)?.connect_first()?;
            rehearse(Session::Postgres(&mut connection), queries)
        }
        _ => {
            let path = sqlite_pool::parse(url)?;
            let explain = |error: DatabaseError| sqlite_pool::explain(error, &path);
            sqlite_pool::folder_takes_files(&path)?;
            let connection = if path.exists() {
                // As the pool opens it, but without a change of the journal mode.
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(&path, flags)
            } else {
                Connection::open_in_memory()
            };
            let connection = connection.map_err(|error| explain(error.into()))?;
            if connection.is_readonly("main")? {
                let what = "it is read-only".to_owned();
                return Err(explain(DatabaseError::Unavailable(what)));
            }
            connection.busy_timeout(LOCK_TIMEOUT)?;
            rehearse(Session::Sqlite(&connection), queries).map_err(explain)
        }
    }
}

/// Describes in a transaction that runs the missing migrations and is rolled back.
fn rehearse(session: Session<'_>, queries: &[impl Borrow<Query>]) -> Result<Survey, DatabaseError> {
    let mut tx = Transaction::begin(session, "BEGIN")?;
    migration::rehearse(&mut tx, LOCK_TIMEOUT)?;
    for own in library::all_own(tx.kind()) {
        describe(&mut tx, own?)?;
    }
    Keys::mark_in(&mut tx)?;
    let watches = watches::of_session(tx.session())?;
    let described = queries
        .iter()
        .map(|query| describe(&mut tx, query.borrow()))
        .collect();
    Ok((described, watches))
}

/// See [`Database::describe`](super::Database::describe).
pub(super) fn describe(
    tx: &mut Transaction<'_>,
    query: &Query,
) -> Result<Description, DatabaseError> {
    match tx.session() {
        Session::Postgres(connection) => {
            let client = &mut connection.client;
            // Without a savepoint an error would abort the transaction for the next queries.
            client.batch_execute("SAVEPOINT described")?;
            let described = describe_postgres(client, query);
            client.batch_execute("ROLLBACK TO SAVEPOINT described")?;
            match described {
                Err(DatabaseError::Misconfigured(what)) => {
                    let fix = rights::missing_grant(client, &what, query)?;
                    Err(DatabaseError::Misconfigured(what + &fix))
                }
                described => described,
            }
        }
        Session::Sqlite(connection) => describe_sqlite(connection, query),
    }
}

fn describe_postgres(
    client: &mut postgres::Client,
    query: &Query,
) -> Result<Description, DatabaseError> {
    let sql = query.text(DatabaseKind::Postgres);
    let statement = client
        .prepare(sql)
        .map_err(|error| refused(error, query, sql))?;
    let columns = Columns::of_statement(query, &statement)?;
    all_named(query, statement.params().len())?;
    let places = || query.parameters().iter().zip(statement.params());
    if let Some((name, ty)) = places().find(|(_, ty)| !wire::is_supported(ty)) {
        let ty = wire::type_name(ty);
        return Err(query.misconfigured(format_args!(
            "parameter :{name} is of type {ty}, which larder cannot encode: \
             write :{name}::text::{ty}"
        )));
    }
    let types = statement.columns().iter().map(|column| column.type_());
    let (parameter_texts, column_texts) = canonical_texts(client, statement.params(), types)?;
    let returns_rows = !columns.names().is_empty();
    Ok(Description {
        parameters: places()
            .map(|(name, ty)| (name.clone(), wire::type_name(wire::base(ty))))
            .collect(),
        parameter_texts,
        parameter_forms: statement.params().iter().map(wire::json_form).collect(),
        column_texts,
        column_forms: column_forms(client, query, &statement)?,
        returns_rows,
        returns_one_row: returns_rows && query.inserts_one(DatabaseKind::Postgres),
        columns: columns.names().to_vec(),
        writes: writes(client, query)?,
    })
}

/// Errors unless each of the `found` placeholders that the database found has a parameter. Any
/// other would be null.
fn all_named(query: &Query, found: usize) -> Result<(), DatabaseError> {
    let named = query.parameters().len();
    if named == found {
        return Ok(());
    }
    Err(query.misconfigured(format_args!(
        "the database finds {found} parameters in it, but only {named} are written as :name"
    )))
}

/// How the values of parameters and of columns of these types become canonical texts.
fn canonical_texts<'t>(
    client: &mut postgres::Client,
    parameters: &[Type],
    columns: impl Iterator<Item = &'t Type>,
) -> Result<(Vec<Canonical>, Vec<Canonical>), DatabaseError> {
    let columns: Vec<&Type> = columns.collect();
    let any = |test: &dyn Fn(&Type) -> bool| {
        let mut all = parameters.iter().chain(columns.iter().copied());
        all.any(|ty| test(wire::base(ty)))
    };
    let is_caseless = |ty: &Type| ty.name() == "citext";
    let letters = match any(&is_caseless) {
        true => canonical::letters(client)?,
        false => None,
    };
    // A statement does not tell which column a text is compared with, so any such column counts.
    let has_own_equality =
        any(&wire::is_text) && client.query_one(OWN_EQUALITY, &[])?.try_get(0)?;
    let text = |ty: &Type| {
        let base = wire::base(ty);
        match &letters {
            Some(letters) if is_caseless(base) => Canonical::Caseless(letters.clone()),
            None if is_caseless(base) => Canonical::Opaque,
            _ if wire::is_enum(base) => Canonical::Type(base.clone()),
            _ if wire::is_text(base) && has_own_equality => Canonical::Opaque,
            _ if wire::is_canonical(base) => Canonical::Type(base.clone()),
            _ => Canonical::Opaque,
        }
    };
    Ok((
        parameters.iter().map(text).collect(),
        columns.into_iter().map(text).collect(),
    ))
}

/// Whether any column of this database has a collation that treats different texts as equal.
const OWN_EQUALITY: &str = "SELECT EXISTS (
    SELECT FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE NOT collisdeterministic AND attnum > 0 AND NOT attisdropped)";

/// What each column of a statement is in JSON. A column of a table is not null if the table says so
/// and the query adds no rows without that table.
fn column_forms(
    client: &mut postgres::Client,
    query: &Query,
    statement: &Statement,
) -> Result<Vec<ColumnForm>, DatabaseError> {
    let columns = statement.columns();
    let tables: Vec<u32> = columns.iter().filter_map(Column::table_oid).collect();
    let mut filled: HashSet<(u32, i16)> = HashSet::new();
    if !tables.is_empty() && query.keeps_columns(DatabaseKind::Postgres) {
        for row in client.query(NOT_NULL, &[&tables])? {
            filled.insert((row.try_get(0)?, row.try_get(1)?));
        }
    }
    let column = |column: &Column| {
        let place = column.table_oid().zip(column.column_id());
        ColumnForm {
            form: wire::json_form(column.type_()),
            nullable: place.is_none_or(|place| !filled.contains(&place)),
        }
    };
    Ok(columns.iter().map(column).collect())
}

/// The columns of these tables that are declared NOT NULL.
const NOT_NULL: &str = "SELECT attrelid, attnum FROM pg_attribute
    WHERE attrelid = ANY ($1) AND attnotnull AND attnum > 0";

/// Whether the plan of a query writes or locks.
fn writes(client: &mut postgres::Client, query: &Query) -> Result<bool, DatabaseError> {
    let sql = query.text(DatabaseKind::Postgres);
    let explain = format!("EXPLAIN (FORMAT JSON, COSTS OFF) {sql}");
    let plan = client.prepare(&explain).and_then(|statement| {
        let places: Vec<&(dyn ToSql + Sync)> = vec![&SqlValue::Null; query.parameters().len()];
        client.query_one(&statement, &places)
    });
    match plan {
        Ok(plan) => {
            let RawColumn(plan) = plan.try_get(0)?;
            let plan = String::from_utf8_lossy(plan.unwrap_or_default());
            // Quotes within the plan's strings are escaped, so this matches no string.
            let node = |name: &str| plan.contains(&format!("\"Node Type\": \"{name}\""));
            Ok(node("ModifyTable") || node("LockRows"))
        }
        // For example a NULL that the query does not accept. A missing privilege is an error.
        Err(error) => match error.as_db_error() {
            Some(error) if !error.code().code().starts_with("42") => {
                let first = query.first_word(DatabaseKind::Postgres);
                let reads = ["SELECT", "VALUES", "TABLE"];
                Ok(!reads.iter().any(|word| first.eq_ignore_ascii_case(word)))
            }
            _ => Err(refused(error, query, &explain)),
        },
    }
}

/// The server's error about a statement that it did not prepare, with the line, and with the names
/// of parameters in place of their numbers.
fn refused(error: postgres::Error, query: &Query, sql: &str) -> DatabaseError {
    let Some(refused) = error.as_db_error() else {
        return error.into();
    };
    // The query is not at fault: connection lost, out of resources, shutting down.
    let unavailable = ["08", "53", "57", "58"];
    if unavailable.contains(&refused.code().code().get(..2).unwrap_or_default()) {
        return error.into();
    }
    let line = match refused.position() {
        Some(ErrorPosition::Original(at)) => {
            let before = sql.chars().take(*at as usize - 1);
            format!(", line {}", 1 + before.filter(|c| *c == '\n').count())
        }
        _ => String::new(),
    };
    // In errors about values the quotes hold values, in all others names.
    let mut what = match refused.code().code().starts_with("22") {
        true => postgres_error::without_quotes(refused.message()),
        false => refused.message().to_owned(),
    };
    // From the last one, because $12 begins with $1.
    for (at, name) in query.parameters().iter().enumerate().rev() {
        what = what.replace(&format!("${}", at + 1), &format!(":{name}"));
    }
    let hint = type_hint(refused.code().code(), refused.message(), query);
    DatabaseError::Misconfigured(format!("query {}{line}: {what}{hint}", query.name()))
}

/// What to write if the server found no type for a parameter, or two.
fn type_hint(code: &str, message: &str, query: &Query) -> String {
    // Ambiguous and indeterminate parameters, and functions or operators that fit several types.
    if !["42P08", "42P18", "42725"].contains(&code) || query.parameters().is_empty() {
        return String::new();
    }
    let number = message.rsplit_once('$').map(|(_, rest)| {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..digits].parse::<usize>().unwrap_or_default()
    });
    let parameters = query.parameters();
    let named = number.and_then(|number| parameters.get(number.checked_sub(1)?));
    let name = named.unwrap_or(&parameters[0]);
    format!("; write its type wherever it occurs, such as :{name}::text")
}

fn describe_sqlite(connection: &Connection, query: &Query) -> Result<Description, DatabaseError> {
    let sql = query.text(DatabaseKind::Sqlite);
    let statement = connection.prepare(sql).map_err(|error| match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => {
            let before = usize::try_from(offset).ok().and_then(|at| sql.get(..at));
            let line = before.map_or(String::new(), |before| {
                format!(", line {}", 1 + before.matches('\n').count())
            });
            DatabaseError::Misconfigured(format!("query {}{line}: {msg}", query.name()))
        }
        other => match other.into() {
            DatabaseError::Failed(what) => query.misconfigured(what),
            error => error,
        },
    })?;
    let columns = Columns::new(query, statement.column_names())?;
    all_named(query, statement.parameter_count())?;
    let returns_rows = !columns.names().is_empty();
    Ok(Description {
        parameters: query
            .parameters()
            .iter()
            .map(|name| (name.clone(), "any".to_owned()))
            .collect(),
        parameter_texts: vec![Canonical::Sqlite; query.parameters().len()],
        parameter_forms: vec![JsonForm::Stored { declared: None }; query.parameters().len()],
        column_texts: vec![Canonical::Sqlite; columns.names().len()],
        column_forms: sqlite_columns::column_forms(connection, query, &statement)?,
        returns_rows,
        returns_one_row: returns_rows && query.inserts_one(DatabaseKind::Sqlite),
        columns: columns.names().to_vec(),
        writes: !statement.readonly(),
    })
}
