//! `larder key`: creates, lists and revokes API keys in the database, without a server.
//!
//! Promise: standard output has the new key and nothing else, for scripts. Everything else goes to
//! standard error. A revoked key stops working on every replica that uses the same database.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::database::{Database, DatabaseError, KeyCursor, KeyRate, KeyRow, NewKey};
use crate::quantity::Rate;

use super::columns::columns;

/// Keys that are read from the database at once.
const PAGE: u32 = 1_000;

/// The command.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make an API key and print it, this once
    Create(CreateKey),
    /// List the API keys, without the keys themselves
    List,
    /// Revoke an API key, on every replica
    Revoke {
        /// The id of the key, as `list` shows it
        id: String,
    },
}

/// The key to create.
#[derive(Args, Clone, Debug)]
pub struct CreateKey {
    /// Who or what the key is for
    #[arg(long)]
    pub name: String,
    /// How often it may be used, such as 600/1m [default: auth.rate of the configuration]
    #[arg(long, value_parser = rate, conflicts_with = "unlimited")]
    pub rate: Option<Rate>,
    /// Let it be used as often as one likes
    #[arg(long)]
    pub unlimited: bool,
    /// Let it do what admins may: write, invalidate, and manage keys
    #[arg(long)]
    pub admin: bool,
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse()
        .map_err(|()| format!("want {}", crate::quantity::RATE_FORM))
}

/// Runs one command on a migrated database. Returns the exit code: 0 done, 1 failed, 2 wrong usage.
pub fn run(
    database: &Database,
    command: &KeyCommand,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let result = match command {
        KeyCommand::Create(new) => create(database, new, out, err)?,
        KeyCommand::List => list(database, out, err)?,
        KeyCommand::Revoke { id } => match database.keys().revoke(id) {
            Ok(true) => {
                writeln!(err, "revoked {id}")?;
                Ok(())
            }
            Ok(false) => Err(DatabaseError::Failed(format!(
                "there is no key with the id {id:?}"
            ))),
            Err(error) => Err(error),
        },
    };
    out.flush()?;
    match result {
        Ok(()) => Ok(0),
        Err(error) => {
            writeln!(err, "larder: {error}")?;
            Ok(if matches!(error, DatabaseError::Invalid(_)) {
                2
            } else {
                1
            })
        }
    }
}

type Outcome = io::Result<Result<(), DatabaseError>>;

fn create(
    database: &Database,
    new: &CreateKey,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    let rate = match new.rate {
        Some(rate) => KeyRate::Limited(rate),
        None if new.unlimited => KeyRate::Unlimited,
        None => KeyRate::Configured,
    };
    let new = NewKey {
        name: new.name.clone(),
        rate,
        admin: new.admin,
    };
    let created = match database.keys().create(&new) {
        Ok(created) => created,
        Err(error) => return Ok(Err(error)),
    };
    let admin = if new.admin { "admin " } else { "" };
    writeln!(
        err,
        "created the {admin}key {} for {:?}, rate {rate}; it is shown only now:",
        created.id, new.name
    )?;
    if let Err(why) = writeln!(out, "{}", created.secret.reveal()).and_then(|()| out.flush()) {
        // Nobody knows the key, and it would stay valid.
        let kept = match database.keys().revoke(&created.id) {
            Ok(_) => "it is revoked".to_owned(),
            Err(error) => format!("it cannot be revoked either ({error})"),
        };
        let what = format!("the key cannot be printed to standard output ({why}): {kept}");
        return Ok(Err(DatabaseError::Failed(what)));
    }
    Ok(Ok(()))
}

fn list(database: &Database, out: &mut dyn Write, err: &mut dyn Write) -> Outcome {
    let mut place: Option<KeyCursor> = None;
    loop {
        let rows = match database.keys().page(place.as_ref(), PAGE) {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error)),
        };
        let Some(last) = rows.last() else {
            if place.is_none() {
                writeln!(
                    err,
                    "there are no keys; create one with: larder key create --name NAME"
                )?;
            }
            return Ok(Ok(()));
        };
        let text = table(&rows);
        let headings = text.find('\n').map_or(0, |end| end + 1);
        let from = if place.is_none() { 0 } else { headings };
        out.write_all(text.get(from..).unwrap_or_default().as_bytes())?;
        place = Some(KeyCursor::after(last));
    }
}

fn table(rows: &[KeyRow]) -> String {
    let headings = ["ID", "NAME", "RATE", "ADMIN", "CREATED", "LAST USED"];
    let row = |row: &KeyRow| {
        [
            row.id.clone(),
            row.name.clone(),
            row.rate.to_string(),
            if row.admin { "yes" } else { "no" }.to_owned(),
            time(row.created_at),
            row.last_used_at.map_or_else(|| "never".to_owned(), time),
        ]
    };
    columns(headings, rows.iter().map(row))
}

/// Milliseconds since 1970 as a time in UTC, to the second.
fn time(ms: i64) -> String {
    Timestamp::from_second(ms.div_euclid(1_000))
        .map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::fixture::Place;
    use crate::database::key_id;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: KeyCommand,
    }

    fn larder_key(database: &Database, line: &[&str]) -> (u8, String, String) {
        let line = Line::try_parse_from([&["key"], line].concat()).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(database, &line.command, &mut out, &mut err).unwrap();
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn a_key_is_made_listed_and_revoked() {
        let database = Place::sqlite().migrated();
        let (code, out, err) = larder_key(
            &database,
            &["create", "--name", "the web", "--rate", "600/1m", "--admin"],
        );
        let key = out.strip_suffix('\n').unwrap();
        let id = key_id(key).unwrap();
        assert_eq!(code, 0);
        assert!(err.contains(id) && !err.contains(key), "{err}");
        larder_key(&database, &["create", "--name", "batch", "--unlimited"]);
        larder_key(&database, &["create", "--name", "é"]);
        database.keys().touch(&[(id, 1_772_366_400_999)]).unwrap();

        let (code, out, err) = larder_key(&database, &["list"]);
        assert_eq!((code, err.as_str()), (0, ""));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 4);
        let used_at = lines[0].find("LAST USED").unwrap();
        let of = |name: &str| *lines.iter().find(|line| line.contains(name)).unwrap();
        assert!(
            of("the web").starts_with(id) && of("the web")[used_at..] == *"2026-03-01T12:00:00Z",
            "{out}"
        );
        assert!(
            of("the web").contains("600/1m") && of("the web").contains("yes"),
            "{out}"
        );
        assert!(
            of("batch").contains("unlimited") && of("batch")[used_at..] == *"never",
            "{out}"
        );
        assert!(of("é").contains("default"), "{out}");

        assert_eq!(larder_key(&database, &["revoke", id]).0, 0);
        let (code, out, err) = larder_key(&database, &["revoke", id]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(id), "{err}");
        assert_eq!(database.keys().list().unwrap().len(), 2);
    }

    #[test]
    fn a_key_that_nobody_gets_to_see_is_revoked() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let database = Place::sqlite().migrated();
        let line = Line::try_parse_from(["key", "create", "--name", "unseen"]).unwrap();
        let mut err = Vec::new();
        let code = run(&database, &line.command, &mut Full, &mut err).unwrap();
        let err = String::from_utf8(err).unwrap();
        assert!(code == 1 && err.contains("revoked"), "{err}");
        assert!(database.keys().list().unwrap().is_empty());
    }

    #[test]
    fn wrong_usage_is_said_and_makes_nothing() {
        let database = Place::sqlite().migrated();
        let (code, out, err) = larder_key(&database, &["create", "--name", "a\nb"]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains("control"), "{err}");
        for line in [
            vec!["key", "create"],
            vec!["key", "create", "--name", "a", "--rate", "often"],
            vec![
                "key",
                "create",
                "--name",
                "a",
                "--rate",
                "1/1s",
                "--unlimited",
            ],
            vec!["key", "revoke"],
        ] {
            assert!(Line::try_parse_from(&line).is_err(), "{line:?}");
        }
        assert!(database.keys().list().unwrap().is_empty());
    }
}
