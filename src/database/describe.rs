//! What a query takes and gives, asked of the database without running it.
//!
//! Promise: nothing is changed, and a query that passes can be run: the database understands it, and each parameter and column
//! has a form in JSON. [`describe_all`] also describes against a schema that is not there yet: what is missing is put in place in
//! a transaction that is rolled back, or in memory for a SQLite file that does not exist. Errors hold the database's message
//! and the line, never the SQL.

use std::borrow::Borrow;
use std::time::Duration;

use postgres::error::ErrorPosition;
use postgres::types::{ToSql, Type};
use rusqlite::{Connection, OpenFlags};

use super::canonical::{self, Canonical};
use super::error::DatabaseError;
use super::keys::Keys;
use super::postgres_pool::PostgresManager;
use super::query::Query;
use super::refusal;
use super::rows::{Columns, Unread};
use super::session::Session;
use super::transaction::{READ_ONLY, Transaction};
use super::value::Value;
use super::watches::{self, Watch};
use super::{
    DEFAULT_URL, Database, DatabaseKind, DatabaseSettings, STATEMENT, library, migration, rights,
    sqlite_pool, wire,
};
use larder_cache::Secret;

/// How long a description waits for a lock that somebody else holds.
const LOCK: Duration = Duration::from_secs(2);

/// What a query takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Each parameter with the type that its place wants, as the database calls it; SQLite takes `any`.
    pub parameters: Vec<(String, String)>,
    /// What the canonical texts of the parameters are, in the same order.
    pub parameter_texts: Vec<Canonical>,
    /// The columns, in their order.
    pub columns: Vec<String>,
    /// What the canonical texts of the columns are, in the same order.
    pub column_texts: Vec<Canonical>,
    /// Whether it returns rows.
    pub returns_rows: bool,
    /// Whether it writes, or locks rows as for writing. What a function does that Postgres calls on the way is not seen; a
    /// transaction that is READ ONLY refuses it when it runs.
    pub writes: bool,
}

impl Database {
    /// What a query takes and gives. It is not run. Errors with [`DatabaseError::Misconfigured`] if the database refuses it, if two
    /// columns have one name, or if a column or a parameter is of a type that has no form in JSON.
    pub fn describe(&self, query: &Query) -> Result<Description, DatabaseError> {
        self.with(|session| match session.kind() {
            DatabaseKind::Postgres => describe(&mut session.begin(READ_ONLY)?, query),
            DatabaseKind::Sqlite => describe(&mut session.begin("BEGIN")?, query),
        })
    }
}

/// What each of the queries takes and gives, as [`Database::describe`] says it, on the database of
/// these settings once its schema is up to date; nothing is changed there, and no file is made.
/// Errors as a start does that opens this database and brings its schema up to date, and if
/// larder's own queries do not fit the schema.
pub fn describe_all(
    settings: &DatabaseSettings,
    queries: &[impl Borrow<Query>],
) -> Result<Vec<Result<Description, DatabaseError>>, DatabaseError> {
    describe_with_watches(settings, queries).map(|(described, _)| described)
}

/// As [`describe_all`], and every watch that the database has.
pub fn describe_with_watches(
    settings: &DatabaseSettings,
    queries: &[impl Borrow<Query>],
) -> Result<Surveyed, DatabaseError> {
    let url = settings.url.as_ref().map_or(DEFAULT_URL, Secret::reveal);
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
                // As the pool opens it, but for the mode of its journal, which would be a change.
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(&path, flags)
            } else {
                Connection::open_in_memory()
            };
            let connection = connection.map_err(|error| explain(error.into()))?;
            if connection.is_readonly("main")? {
                let what = "it can only be read".to_owned();
                return Err(explain(DatabaseError::Unavailable(what)));
            }
            connection.busy_timeout(LOCK)?;
            rehearse(Session::Sqlite(&connection), queries).map_err(explain)
        }
    }
}

/// What becomes of each query, and the watches.
type Surveyed = (Vec<Result<Description, DatabaseError>>, Vec<Watch>);

/// Describes in a transaction that puts in place what is missing and is never committed.
fn rehearse(
    session: Session<'_>,
    queries: &[impl Borrow<Query>],
) -> Result<Surveyed, DatabaseError> {
    let mut tx = session.begin("BEGIN")?;
    migration::rehearse(&mut tx, LOCK)?;
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

fn describe(tx: &mut Transaction<'_>, query: &Query) -> Result<Description, DatabaseError> {
    match tx.session() {
        Session::Postgres(connection) => {
            let client = &mut connection.client;
            // An error would end the transaction for those that come after.
            client.batch_execute("SAVEPOINT described")?;
            let described = describe_postgres(client, query);
            client.batch_execute("ROLLBACK TO SAVEPOINT described")?;
            match described {
                Err(DatabaseError::Misconfigured(what)) => {
                    let cure = rights::cure(client, &what, query)?;
                    Err(DatabaseError::Misconfigured(what + &cure))
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
    if let Some((name, ty)) = places().find(|(_, ty)| !wire::is_known(ty)) {
        return Err(DatabaseError::Misconfigured(format!(
            "query {}: parameter :{name} has to be of type {}, which cannot be given: write :{name}::text::{}",
            query.name(),
            wire::type_name(ty),
            wire::type_name(ty)
        )));
    }
    let types = statement.columns().iter().map(|column| column.type_());
    let (parameter_texts, column_texts) = canonical_texts(client, statement.params(), types)?;
    Ok(Description {
        parameters: places()
            .map(|(name, ty)| (name.clone(), wire::type_name(wire::base(ty))))
            .collect(),
        parameter_texts,
        column_texts,
        returns_rows: !columns.names().is_empty(),
        columns: columns.names().to_vec(),
        writes: writes(client, query)?,
    })
}

/// Errors unless each of the places that the database finds in the statement has a parameter: what
/// has none would be null.
fn all_named(query: &Query, places: usize) -> Result<(), DatabaseError> {
    let named = query.parameters().len();
    if named == places {
        return Ok(());
    }
    Err(DatabaseError::Misconfigured(format!(
        "query {}: the database finds {places} parameters in it, but only {named} are written as :name",
        query.name()
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
    // Which column a text is compared with no statement tells.
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

/// Whether a column of this database has a collation that calls different texts equal.
const OWN_EQUALITY: &str = "SELECT EXISTS (
    SELECT FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE NOT collisdeterministic AND attnum > 0 AND NOT attisdropped)";

/// Whether the plan of a query writes or locks.
fn writes(client: &mut postgres::Client, query: &Query) -> Result<bool, DatabaseError> {
    let sql = query.text(DatabaseKind::Postgres);
    let explain = format!("EXPLAIN (FORMAT JSON, COSTS OFF) {sql}");
    let plan = client.prepare(&explain).and_then(|statement| {
        let places: Vec<&(dyn ToSql + Sync)> = vec![&Value::Null; query.parameters().len()];
        client.query_one(&statement, &places)
    });
    match plan {
        Ok(plan) => {
            let Unread(plan) = plan.try_get(0)?;
            let plan = String::from_utf8_lossy(plan.unwrap_or_default());
            // A quote within a text of the plan is escaped, so this is no text.
            let node = |name: &str| plan.contains(&format!("\"Node Type\": \"{name}\""));
            Ok(node("ModifyTable") || node("LockRows"))
        }
        // A NULL where the query can have none, for example; what it may not do is an error.
        Err(error) => match error.as_db_error() {
            Some(refusal) if !refusal.code().code().starts_with("42") => {
                let first = query.first_word(DatabaseKind::Postgres);
                let reads = ["SELECT", "VALUES", "TABLE"];
                Ok(!reads.iter().any(|word| first.eq_ignore_ascii_case(word)))
            }
            _ => Err(refused(error, query, &explain)),
        },
    }
}

/// The server's word about a statement that it would not prepare, with the line, and with names where it has numbers.
fn refused(error: postgres::Error, query: &Query, sql: &str) -> DatabaseError {
    let Some(refused) = error.as_db_error() else {
        return error.into();
    };
    let ended = ["08", "53", "57", "58"];
    if ended.contains(&refused.code().code().get(..2).unwrap_or_default()) {
        return error.into();
    }
    let line = match refused.position() {
        Some(ErrorPosition::Original(at)) => {
            let before = sql.chars().take(*at as usize - 1);
            format!(", line {}", 1 + before.filter(|c| *c == '\n').count())
        }
        _ => String::new(),
    };
    // What is wrong with a value is said with the value; elsewhere quotes hold names.
    let mut what = match refused.code().code().starts_with("22") {
        true => refusal::without_quotes(refused.message()),
        false => refused.message().to_owned(),
    };
    // From the last, since $1 begins $12.
    for (at, name) in query.parameters().iter().enumerate().rev() {
        what = what.replace(&format!("${}", at + 1), &format!(":{name}"));
    }
    let cure = untyped(refused.code().code(), refused.message(), query);
    DatabaseError::Misconfigured(format!("query {}{line}: {what}{cure}", query.name()))
}

/// What to write where the server could not tell the type of a parameter, or found two for it.
fn untyped(code: &str, message: &str, query: &Query) -> String {
    // Ambiguous or indeterminate parameters, and operators or functions that several types fit.
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
    format!("; say its type wherever it stands, such as :{name}::text")
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
            DatabaseError::Failed(what) => {
                DatabaseError::Misconfigured(format!("query {}: {what}", query.name()))
            }
            error => error,
        },
    })?;
    let columns = Columns::new(query, statement.column_names())?;
    all_named(query, statement.parameter_count())?;
    Ok(Description {
        parameters: query
            .parameters()
            .iter()
            .map(|name| (name.clone(), "any".to_owned()))
            .collect(),
        parameter_texts: vec![Canonical::Sqlite; query.parameters().len()],
        column_texts: vec![Canonical::Sqlite; columns.names().len()],
        returns_rows: !columns.names().is_empty(),
        columns: columns.names().to_vec(),
        writes: !statement.readonly(),
    })
}
