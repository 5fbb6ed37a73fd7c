//! Named queries: the SQL of a file, with parameters written `:name`, readable by both databases.
//!
//! Promise: a `:name` inside a string, a quoted name, a comment or a dollar quote is left alone, and so is a `::cast`. What is
//! sent holds numbered places, never a value: nothing that a client sends becomes SQL. Refuses a text of two statements, a
//! place that is numbered already, and a call that leaves a parameter out or gives one that the text does not name.
//!
//! Invariant: parameter number n of the text, in either database's form, is `parameters()[n - 1]`, however often it occurs.

use super::DatabaseKind;
use super::error::DatabaseError;
use super::value::Value;

/// One statement, ready for both databases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    name: String,
    postgres: String,
    sqlite: String,
    parameters: Vec<String>,
}

/// A parameter and what stands for it in this call.
pub type Parameter<'a> = (&'a str, Value);

impl Query {
    /// Reads the text of a file. `name` is for error messages. Errors with [`DatabaseError::Misconfigured`].
    pub fn parse(name: &str, text: &str) -> Result<Query, DatabaseError> {
        let mut query = Query {
            name: name.to_owned(),
            postgres: String::with_capacity(text.len()),
            sqlite: String::with_capacity(text.len()),
            parameters: Vec::new(),
        };
        let mut rest = text;
        let mut ended = false;
        while let Some(next) = rest.chars().next() {
            let wrong = |what: &str| {
                let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
                Err(DatabaseError::Misconfigured(format!(
                    "query {name}, line {line}: {what}"
                )))
            };
            if let Some(length) = quiet_length(rest, &query.sqlite) {
                let Some(length) = length else {
                    return wrong("a quote or comment is not closed");
                };
                let comment = rest.starts_with("--") || rest.starts_with("/*");
                if ended && !comment {
                    return wrong("a second statement; one file holds one");
                }
                rest = query.copy(rest, length);
                continue;
            }
            if ended && !next.is_whitespace() && next != ';' {
                return wrong("a second statement; one file holds one");
            }
            if rest.starts_with("::") {
                rest = query.copy(rest, 2);
                continue;
            }
            let word = word_length(&rest[next.len_utf8()..]);
            match next {
                ';' => ended = true,
                ':' if word > 0 => {
                    query.place(&rest[1..=word]);
                    rest = &rest[1 + word..];
                    continue;
                }
                '$' if !ends_in_word(&query.sqlite)
                    && rest[1..].starts_with(|c: char| c.is_ascii_digit()) =>
                {
                    return wrong("a numbered place; write parameters as :name");
                }
                _ => {}
            }
            rest = query.copy(rest, next.len_utf8());
        }
        if query
            .sqlite
            .trim_matches(|c: char| c.is_whitespace() || c == ';')
            .is_empty()
        {
            return Err(DatabaseError::Misconfigured(format!(
                "query {name}: it is empty"
            )));
        }
        Ok(query)
    }

    /// What the query is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters that the text names, each once, in the order in which they first occur.
    pub fn parameters(&self) -> &[String] {
        &self.parameters
    }

    /// The statement as `kind` wants it.
    pub(super) fn text(&self, kind: DatabaseKind) -> &str {
        match kind {
            DatabaseKind::Postgres => &self.postgres,
            DatabaseKind::Sqlite => &self.sqlite,
        }
    }

    /// The word that the statement begins with, behind comments and brackets; empty if it begins with something else.
    pub(super) fn first_word(&self, kind: DatabaseKind) -> &str {
        let mut rest = self.text(kind);
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
            let comment = match kind {
                _ if rest.starts_with("--") => rest.find('\n'),
                DatabaseKind::Postgres if rest.starts_with("/*") => nested_comment(rest),
                DatabaseKind::Sqlite if rest.starts_with("/*") => rest.find("*/").map(|at| at + 2),
                _ => return &rest[..word_length(rest)],
            };
            rest = &rest[comment.unwrap_or(rest.len())..];
        }
    }

    /// The values in the order of the places. Errors with [`DatabaseError::Invalid`] unless the names are just those of the text.
    pub(super) fn bind<'a>(
        &self,
        given: &'a [Parameter<'_>],
    ) -> Result<Vec<&'a Value>, DatabaseError> {
        if let Some((extra, _)) = given
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
                let found = given.iter().find(|(name, _)| name == parameter);
                found.map(|(_, value)| value).ok_or_else(|| {
                    DatabaseError::Invalid(format!(
                        "query {} needs the parameter :{parameter}",
                        self.name
                    ))
                })
            })
            .collect()
    }

    fn copy<'a>(&mut self, rest: &'a str, length: usize) -> &'a str {
        self.postgres.push_str(&rest[..length]);
        self.sqlite.push_str(&rest[..length]);
        &rest[length..]
    }

    fn place(&mut self, name: &str) {
        let known = self.parameters.iter().position(|p| p == name);
        let index = known.unwrap_or_else(|| {
            self.parameters.push(name.to_owned());
            self.parameters.len() - 1
        });
        self.postgres.push_str(&format!("${}", index + 1));
        self.sqlite.push_str(&format!("?{}", index + 1));
    }
}

/// Whether the text so far ends in a name or a number, so that a `$` continues it: `x1$2` is one name to Postgres.
fn ends_in_word(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The length of the name that `text` begins with; 0 if it begins with none.
fn word_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len())
}

/// Where `rest` begins with something in which a `:name` means nothing, how long that is; `Some(None)` if it does not end.
fn quiet_length(rest: &str, before: &str) -> Option<Option<usize>> {
    let closed = |from: usize, end: &str| rest[from..].find(end).map(|at| from + at + end.len());
    if rest.starts_with("--") {
        return Some(Some(rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some(closed(2, "*/"));
    }
    // Postgres only: E'it\'s'. The E is a word of its own, unlike the one in LIKE'%'.
    let marked = before
        .strip_suffix(['e', 'E'])
        .is_some_and(|word| !ends_in_word(word));
    if rest.starts_with('\'') && marked {
        return Some(backslash_string(rest));
    }
    for quote in ['\'', '"', '`'] {
        if rest.starts_with(quote) {
            // A doubled quote ends one string and begins the next, which comes to the same.
            return Some(rest[1..].find(quote).map(|at| at + 2));
        }
    }
    if rest.starts_with('$') && !ends_in_word(before) {
        let tag = 2 + word_length(&rest[1..]);
        if rest.get(..tag).is_some_and(|tag| tag.ends_with('$')) {
            return Some(closed(tag, &rest[..tag]));
        }
    }
    None
}

/// How long the comment is that `text` begins with; in Postgres a comment holds comments.
fn nested_comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..) {
        let next = rest.chars().next()?;
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += next.len_utf8();
        }
    }
    None
}

fn backslash_string(rest: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(text: &str) -> String {
        Query::parse("q", text).unwrap().postgres
    }

    #[test]
    fn names_become_numbered_places() {
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
            "SELECT `:a` FROM t",
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
            let error = Query::parse("q", text).unwrap_err().to_string();
            assert!(
                error.contains(line) && error.contains("query q"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn binds_by_name_and_only_what_is_named() {
        let query = Query::parse("q", "SELECT :b, :a, :b").unwrap();
        let given = [("a", Value::Int(1)), ("b", Value::Int(2))];
        assert_eq!(
            query.bind(&given).unwrap(),
            [&Value::Int(2), &Value::Int(1)]
        );
        assert!(
            query
                .bind(&given[..1])
                .unwrap_err()
                .to_string()
                .contains(":b")
        );
        let extra = [("a", Value::Null), ("b", Value::Null), ("c", Value::Null)];
        assert!(query.bind(&extra).unwrap_err().to_string().contains(":c"));
    }

    proptest::proptest! {
        #[test]
        fn survives_any_text(text in r#"[-:;$'"`/*aeE1é\\ \n]{0,24}"#) {
            if let Ok(query) = Query::parse("q", &text) {
                // The place of the other kind differs in nothing but its sign.
                proptest::prop_assert_eq!(query.postgres.len(), query.sqlite.len());
            }
        }
    }
}
