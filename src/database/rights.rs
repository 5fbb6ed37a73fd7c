//! The privileges of larder's role in a Postgres database.
//!
//! Promise: if a privilege is missing that the start or a later statement needs, the start fails
//! with the list of all missing privileges, each with the statement that grants it. The check only
//! reads the catalog and changes nothing.

use postgres::Client;

use super::error::DatabaseError;
use super::query::Query;
use super::settings::DatabaseKind;
use super::transaction::Transaction;

/// The privileges that are missing on larder's own tables, and the statement that grants each.
/// `:behind` means that migrations are about to run.
const MISSING: &str = "
WITH here AS (
    SELECT quote_ident(current_user) AS role, current_schema()::text AS home,
        (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('larder_migrations')) AS place
),
needed (name, privileges) AS (
    VALUES ('larder_migrations', ARRAY['SELECT'] || CASE WHEN :behind::boolean THEN ARRAY['INSERT'] ELSE '{}' END),
        ('api_keys', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('api_keys_version', ARRAY['SELECT', 'UPDATE']),
        ('api_key_changes', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('archived_articles', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('larder_identity', ARRAY['SELECT', 'INSERT']),
        ('larder_outbox', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'])
),
tables AS (
    SELECT name, privileges, pg_class.oid, format('%I.%I', nspname, relname) AS called
    FROM needed JOIN pg_class ON pg_class.oid = to_regclass(name) JOIN pg_namespace ON pg_namespace.oid = relnamespace
),
functions AS (
    SELECT pg_proc.oid, proname, proowner,
        format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid)) AS called
    FROM here JOIN pg_proc ON pronamespace = place JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE proname LIKE 'larder\\_%'
)
SELECT what, cure FROM (
    SELECT 1 AS rank, 'the database can only be read' AS what,
        format('connect to the primary server, or ALTER ROLE %s SET default_transaction_read_only = off', role) AS cure
    FROM here WHERE current_setting('transaction_read_only')::boolean
    UNION ALL
    SELECT 2, format('no USAGE on any schema of its search_path (%s)', current_setting('search_path')),
        format('CREATE SCHEMA %s AUTHORIZATION %1$s; ALTER ROLE %1$s SET search_path = %1$s', role)
    FROM here WHERE home IS NULL
    UNION ALL
    SELECT 3, format('no CREATE on the schema %I', home), format('GRANT USAGE, CREATE ON SCHEMA %I TO %s', home, role)
    FROM here WHERE :behind AND NOT has_schema_privilege(home, 'CREATE')
    UNION ALL
    SELECT 4, format('its tables are in the schema %s, and new ones would go to %I', place::regnamespace, home),
        format('ALTER ROLE %s SET search_path = %s', role, place::regnamespace)
    FROM here WHERE :behind AND place <> to_regnamespace(quote_ident(home))
    UNION ALL
    SELECT 5, format('no %s on the table %s', string_agg(privilege, ', ' ORDER BY at), called),
        format('GRANT %s ON %s TO %s', string_agg(privilege, ', ' ORDER BY at), called, role)
    FROM here, tables, unnest(privileges) WITH ORDINALITY AS each (privilege, at)
    WHERE NOT has_table_privilege(oid, privilege) GROUP BY called, role
    UNION ALL
    SELECT 6, format('the function %s belongs to %s', called, proowner::regrole),
        format('ALTER FUNCTION %s OWNER TO %s', called, role)
    FROM here, functions WHERE :behind AND NOT pg_has_role(proowner, 'USAGE')
    UNION ALL
    SELECT 7, format('no EXECUTE on the function %s', called), format('GRANT EXECUTE ON FUNCTION %s TO %s', called, role)
    FROM here, functions
    WHERE NOT :behind AND proname = 'larder_take_back' AND NOT has_function_privilege(oid, 'EXECUTE')
    UNION ALL
    SELECT 8, format('%s, as which the function %s runs, has no INSERT on the table %s', proowner::regrole, f.called, t.called),
        format('GRANT SELECT, INSERT ON %s TO %s', t.called, proowner::regrole)
    FROM functions AS f, tables AS t
    WHERE proname = 'larder_note' AND name = 'larder_outbox' AND NOT has_table_privilege(proowner, t.oid, 'INSERT')
) AS missing ORDER BY rank, what";

/// Errors with [`DatabaseError::Misconfigured`] if the role lacks a privilege, and says how to
/// grant it. `behind` means that migrations are about to run.
pub(super) fn demand(tx: &mut Transaction<'_>, behind: bool) -> Result<(), DatabaseError> {
    let missing = tx.query_this(
        &Query::parse("rights", MISSING)?,
        &[("behind", behind.into())],
    )?;
    if missing.is_empty() {
        return Ok(());
    }
    let who = "SELECT current_user::text AS role, current_database()::text AS base";
    let who = tx.query_this(&Query::parse("role", who)?, &[])?;
    let (role, base) = match who.first() {
        Some(who) => (who.text("role")?, who.text("base")?),
        None => ("", ""),
    };
    let mut message =
        format!("the role {role:?} lacks rights that larder needs in the database {base:?}:");
    for row in &missing {
        message.push_str(&format!("\n  {}: {}", row.text("what")?, row.text("cure")?));
    }
    Err(DatabaseError::Misconfigured(message))
}

/// The statement that grants what the server denied `query` in the error `message`, after a colon.
/// Empty if the error is a different one.
pub(super) fn missing_grant(
    client: &mut Client,
    message: &str,
    query: &Query,
) -> Result<String, DatabaseError> {
    let denied = message.rsplit_once("permission denied for ");
    let Some((kind, name)) = denied.and_then(|(_, what)| what.rsplit_once(' ')) else {
        return Ok(String::new());
    };
    let verb = query
        .first_word(DatabaseKind::Postgres)
        .to_ascii_uppercase();
    let grant = match kind {
        "schema" => format!("USAGE ON SCHEMA {name}"),
        "sequence" => format!("USAGE ON SEQUENCE {name}"),
        "function" => format!("EXECUTE ON FUNCTION {name}"),
        // Most writes also read, for their WHERE or RETURNING.
        _ if ["INSERT", "UPDATE", "DELETE"].contains(&verb.as_str()) => {
            format!("SELECT, {verb} ON {name}")
        }
        _ => format!("SELECT ON {name}"),
    };
    let role: String = client
        .query_one("SELECT quote_ident(current_user)", &[])?
        .try_get(0)?;
    Ok(format!(": GRANT {grant} TO {role}"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Place;
    use super::*;

    #[test]
    fn every_table_of_larders_own_is_looked_at() {
        let tables = "SELECT relname::text AS name FROM pg_class
            WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
                AND relname NOT IN ('users', 'employees')";
        let tables = Query::parse("tables", tables).unwrap();
        let database = Place::postgres().migrated();
        let found = database
            .transaction(|tx| tx.query_this(&tables, &[]))
            .unwrap();
        assert!(!found.is_empty());
        for table in found {
            let name = table.text("name").unwrap();
            assert!(MISSING.contains(&format!("('{name}', ARRAY")), "{name}");
        }
    }
}
