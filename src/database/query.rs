//! Named queries: the SQL of a file with parameters written `:name`, for one database or for both.
//!
//! Promise: a `:name` inside a string, a quoted name, a comment or a dollar quote is left alone,
//! and so is a `::cast`. The SQL that is sent has numbered placeholders and never a value, so
//! nothing from a client becomes SQL. A text of two statements is refused, and so is a placeholder
//! in the database's own notation, which would get no value. A call has to pass exactly the
//! parameters that the text names.
//!
//! Invariant: placeholder number n, for either database, is `parameters()[n - 1]`, however often it
//! occurs.

use std::fmt;

use super::error::DatabaseError;
use super::settings::DatabaseKind;
use super::sql_value::SqlValue;
use super::token::{Token, token};

/// One statement, for one database or for both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    name: String,
    /// The SQL for Postgres. Empty if the text was read for SQLite only.
    postgres: String,
    /// The SQL for SQLite. Empty if the text was read for Postgres only.
    sqlite: String,
    parameters: Vec<String>,
}

/// The name of a parameter and its value in one call.
pub type Parameter<'a> = (&'a str, SqlValue);

impl Query {
    /// Reads a text that both databases understand, or only one of them. `name` is for error
    /// messages. Errors with [`DatabaseError::Misconfigured`].
    pub fn parse(name: &str, text: &str) -> Result<Query, DatabaseError> {
        let postgres = Query::parse_for(DatabaseKind::Postgres, name, text);
        let sqlite = Query::parse_for(DatabaseKind::Sqlite, name, text);
        match (postgres, sqlite) {
            (Ok(postgres), Ok(sqlite)) if postgres.parameters == sqlite.parameters => Ok(Query {
                sqlite: sqlite.sqlite,
                ..postgres
            }),
            (Ok(_), Ok(_)) => Err(DatabaseError::Misconfigured(format!(
                "query {name}: Postgres and SQLite find different parameters in it"
            ))),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Reads a text for a database of `kind`. `name` is for error messages. Errors with
    /// [`DatabaseError::Misconfigured`].
    pub fn parse_for(kind: DatabaseKind, name: &str, text: &str) -> Result<Query, DatabaseError> {
        let mut sent = String::with_capacity(text.len());
        let mut parameters: Vec<String> = Vec::new();
        let mut ended = false;
        let mut rest = text;
        while !rest.is_empty() {
            let wrong = |what: &str| {
                let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
                Err(DatabaseError::Misconfigured(format!(
                    "query {name}, line {line}: {what}"
                )))
            };
            if rest.starts_with('\0') {
                return wrong("a NUL character");
            }
            let Some((token, length)) = token(rest, kind) else {
                return wrong("a quote or comment is not closed");
            };
            let (piece, after) = rest.split_at(length);
            match token {
                Token::Space | Token::Comment => {}
                Token::End => ended = true,
                _ if ended => return wrong("a second statement; one file holds one"),
                Token::NativeParameter => {
                    let what = "larder gives it no value; \
                        write a parameter as :name, of letters, digits and _";
                    return wrong(&format!("the placeholder {piece}: {what}"));
                }
                Token::Parameter => {
                    let known = parameters.iter().position(|known| *known == piece[1..]);
                    let index = known.unwrap_or_else(|| {
                        parameters.push(piece[1..].to_owned());
                        parameters.len() - 1
                    });
                    sent.push_str(&kind.placeholder(index + 1));
                    rest = after;
                    continue;
                }
                Token::Word | Token::Other => {}
            }
            sent.push_str(piece);
            rest = after;
        }
        if sent
            .trim_matches(|c: char| c.is_whitespace() || c == ';')
            .is_empty()
        {
            return Err(DatabaseError::Misconfigured(format!(
                "query {name}: it is empty"
            )));
        }
        let (postgres, sqlite) = match kind {
            DatabaseKind::Postgres => (sent, String::new()),
            DatabaseKind::Sqlite => (String::new(), sent),
        };
        Ok(Query {
            name: name.to_owned(),
            postgres,
            sqlite,
            parameters,
        })
    }

    /// An error that an operator has to resolve, with the query's name.
    pub(super) fn misconfigured(&self, what: impl fmt::Display) -> DatabaseError {
        DatabaseError::Misconfigured(format!("query {}: {what}", self.name))
    }

    /// An error of one run, with the query's name.
    pub(super) fn failed(&self, what: impl fmt::Display) -> DatabaseError {
        DatabaseError::Failed(format!("query {}: {what}", self.name))
    }

    /// The query's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the parameters, each once, in the order of their first occurrence.
    pub fn parameters(&self) -> &[String] {
        &self.parameters
    }

    /// The SQL for a database of `kind`.
    pub(super) fn text(&self, kind: DatabaseKind) -> &str {
        match kind {
            DatabaseKind::Postgres => &self.postgres,
            DatabaseKind::Sqlite => &self.sqlite,
        }
    }

    /// The words of the statement: keywords, unquoted names and numbers.
    fn words(&self, kind: DatabaseKind) -> impl Iterator<Item = &str> {
        let mut rest = self.text(kind);
        std::iter::from_fn(move || {
            loop {
                let (token, length) = token(rest, kind)?;
                let (piece, after) = rest.split_at(length);
                rest = after;
                if token == Token::Word {
                    return Some(piece);
                }
            }
        })
    }

    fn has_word(&self, kind: DatabaseKind, any: &[&str]) -> bool {
        let is_one = |word: &str| any.iter().any(|one| word.eq_ignore_ascii_case(one));
        self.words(kind).any(is_one)
    }

    /// Whether a column that the result takes from a table has only values of that column. An outer
    /// join adds nulls, and the rows of a UNION come from several tables.
    pub(super) fn keeps_columns(&self, kind: DatabaseKind) -> bool {
        const ADDING: [&str; 12] = [
            "left",
            "right",
            "full",
            "union",
            "intersect",
            "except",
            "rollup",
            "cube",
            "grouping",
            "merge",
            "old",
            "new",
        ];
        !self.has_word(kind, &ADDING)
    }

    /// Whether the statement inserts exactly one row, or fails, by its text: an INSERT with one
    /// list of values.
    pub(super) fn inserts_one(&self, kind: DatabaseKind) -> bool {
        const OTHERS: [&str; 4] = ["select", "table", "conflict", "ignore"];
        let lists = |text: &str| {
            let spaceless: String = text.split_whitespace().collect();
            spaceless.contains("),(")
        };
        self.first_word(kind).eq_ignore_ascii_case("insert")
            && self.has_word(kind, &["values"])
            && !self.has_word(kind, &OTHERS)
            && !lists(self.text(kind))
    }

    /// The first word of the statement, after comments and brackets. Empty if it does not begin
    /// with a word.
    pub(super) fn first_word(&self, kind: DatabaseKind) -> &str {
        let mut rest = self.text(kind);
        while let Some((token, length)) = token(rest, kind) {
            let (piece, after) = rest.split_at(length);
            match token {
                Token::Space | Token::Comment => rest = after,
                Token::Other if piece == "(" => rest = after,
                Token::Word => return piece,
                _ => break,
            }
        }
        ""
    }

    /// The values in the order of the placeholders. Errors with [`DatabaseError::Invalid`] unless
    /// the names are exactly those of the text.
    pub(super) fn bind<'a>(
        &self,
        parameters: &'a [Parameter<'_>],
    ) -> Result<Vec<&'a SqlValue>, DatabaseError> {
        if let Some((extra, _)) = parameters
            .iter()
            .find(|(name, _)| !self.parameters.iter().any(|p| p == name))
        {
            return Err(DatabaseError::Invalid(format!(
                "query {} has no parameter :{extra}",
                self.name
            )));
        }
        self.parameters
            .iter()
            .map(|parameter| {
                let found = parameters.iter().find(|(name, _)| name == parameter);
                found.map(|(_, value)| value).ok_or_else(|| {
                    DatabaseError::Invalid(format!(
                        "query {} needs the parameter :{parameter}",
                        self.name
                    ))
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(text: &str) -> String {
        Query::parse("q", text).unwrap().postgres
    }

    #[test]
    fn names_become_numbered_placeholders() {
        let query = Query::parse("q", "SELECT :a, :b_2 + :a, x::int FROM t WHERE y=:c").unwrap();
        assert_eq!(
            query.postgres,
            "SELECT $1, $2 + $1, x::int FROM t WHERE y=$3"
        );
        assert_eq!(query.sqlite, "SELECT ?1, ?2 + ?1, x::int FROM t WHERE y=?3");
        assert_eq!(query.parameters(), ["a", "b_2", "c"]);
    }

    #[test]
    fn what_is_quoted_is_left_alone() {
        for text in [
            "SELECT ':a' FROM t",
            "SELECT 'it''s :a' FROM t",
            r"SELECT E'it\'s :a' FROM t",
            r"SELECT x LIKE'\' FROM t",
            r#"SELECT ":a" FROM t"#,
            "SELECT 1 -- :a\nFROM t",
            "SELECT 1 /* :a ' */ FROM t",
            "SELECT $$ :a $$ FROM t",
            "SELECT $x$ :a $$ ; $x$ FROM t",
            "SELECT x::text[1:2] FROM t",
            "SELECT 'é:a', ü FROM t -- :é",
            "SELECT 1; -- the end",
        ] {
            assert_eq!(postgres(text), text);
        }
        assert_eq!(
            postgres("SELECT :a::int, ':a', :a"),
            "SELECT $1::int, ':a', $1"
        );
        assert_eq!(
            postgres(r"SELECT '\', :a"),
            r"SELECT '\', $1",
            "a backslash is not special in a plain string"
        );
    }

    #[test]
    fn refuses_what_is_not_one_statement() {
        for (text, line) in [
            ("SELECT 1; SELECT 2", "line 1"),
            ("SELECT 1;\n'x'", "line 2"),
            ("SELECT $1", "line 1"),
            ("SELECT 1,\n 'x", "line 2"),
            ("SELECT /* x", "line 1"),
            ("SELECT $x$ a $y$", "line 1"),
            (" ;", "empty"),
            ("", "empty"),
        ] {
            let error = Query::parse_for(DatabaseKind::Postgres, "q", text);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains(line) && error.contains("query q"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn binds_by_name_and_only_what_is_named() {
        let query = Query::parse("q", "SELECT :b, :a, :b").unwrap();
        let given = [("a", SqlValue::Int(1)), ("b", SqlValue::Int(2))];
        assert_eq!(
            query.bind(&given).unwrap(),
            [&SqlValue::Int(2), &SqlValue::Int(1)]
        );
        assert!(
            query
                .bind(&given[..1])
                .unwrap_err()
                .to_string()
                .contains(":b")
        );
        let extra = [
            ("a", SqlValue::Null),
            ("b", SqlValue::Null),
            ("c", SqlValue::Null),
        ];
        assert!(query.bind(&extra).unwrap_err().to_string().contains(":c"));
    }

    #[test]
    fn a_place_of_the_databases_own_is_refused_by_name() {
        for (kind, text, place) in [
            (
                DatabaseKind::Sqlite,
                "SELECT 1 WHERE id = ?",
                "the placeholder ?:",
            ),
            (
                DatabaseKind::Sqlite,
                "SELECT 1\nWHERE id = ?1",
                "line 2: the placeholder ?1:",
            ),
            (
                DatabaseKind::Sqlite,
                "SELECT 1 WHERE id = @id",
                "the placeholder @id:",
            ),
            (
                DatabaseKind::Sqlite,
                "SELECT 1 WHERE id = $id",
                "the placeholder $id:",
            ),
            (
                DatabaseKind::Sqlite,
                "SELECT 1 WHERE id = :größe",
                "the placeholder :größe:",
            ),
            (
                DatabaseKind::Postgres,
                "SELECT 1 WHERE id = $1",
                "the placeholder $1:",
            ),
            (
                DatabaseKind::Postgres,
                "SELECT 1 WHERE id = 1$2",
                "the placeholder $2:",
            ),
            (
                DatabaseKind::Postgres,
                "SELECT 1 WHERE id = :größe",
                "the placeholder :größe:",
            ),
        ] {
            let error = Query::parse_for(kind, "q", text).unwrap_err().to_string();
            assert!(
                error.contains(place) && error.contains("write a parameter as :name"),
                "{error}"
            );
        }
        // These are operators of Postgres.
        let fine = "SELECT a ? 'b', a ?| b, a ?& b, @ -1, a #> b, a @> b, x$1 FROM t";
        assert_eq!(postgres(fine), fine);
    }
}
