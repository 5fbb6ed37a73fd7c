//! The tokens of SQL in the dialects of the two databases.
//!
//! Promise: a string, quoted name, comment or dollar quote of the database is one token here, so a
//! `:name` inside it is left alone. Follows the lexer of Postgres (`scan.l`, with
//! `standard_conforming_strings` on) and SQLite's `sqlite3GetToken`.

use super::settings::DatabaseKind;

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// White space.
    Space,
    /// A comment, which the database treats as white space.
    Comment,
    /// A keyword, an unquoted name or a number.
    Word,
    /// `:name`, larder's notation of a parameter.
    Parameter,
    /// A parameter in a notation of the database.
    NativeParameter,
    /// `;`
    End,
    /// Everything else: strings, quoted names, operators, brackets.
    Other,
}

/// The token at the beginning of `rest`, and its length. `None` if the token is not closed, or if
/// `rest` is empty.
pub(super) fn token(rest: &str, kind: DatabaseKind) -> Option<(Token, usize)> {
    let first = rest.chars().next()?;
    let found = match first {
        c if is_space(c) => (Token::Space, run(rest, is_space)),
        ';' => (Token::End, 1),
        _ if rest.starts_with("--") => (Token::Comment, line_comment(rest, kind)),
        _ if rest.starts_with("/*") => (Token::Comment, block_comment(rest, kind)?),
        '\'' => (Token::Other, quoted(rest, '\'')?),
        '"' => (Token::Other, quoted(rest, '"')?),
        'e' | 'E' if kind == DatabaseKind::Postgres && rest[1..].starts_with('\'') => {
            (Token::Other, escape_string(rest)?)
        }
        c if c.is_ascii_digit() => (
            Token::Word,
            run(rest, |c| begins_name(c) || c.is_ascii_digit()),
        ),
        c if begins_name(c) => (Token::Word, run(rest, is_in_name)),
        _ => match kind {
            DatabaseKind::Postgres => of_postgres(rest, first)?,
            DatabaseKind::Sqlite => of_sqlite(rest, first)?,
        },
    };
    Some(found)
}

fn of_postgres(rest: &str, first: char) -> Option<(Token, usize)> {
    Some(match first {
        ':' if rest.starts_with("::") || rest.starts_with(":=") => (Token::Other, 2),
        ':' => parameter(rest),
        '$' => {
            let digits = run(&rest[1..], |c| c.is_ascii_digit());
            match dollar_tag(rest) {
                _ if digits > 0 => (Token::NativeParameter, 1 + digits),
                Some(tag) => (Token::Other, closed(rest, tag.len(), tag)?),
                None => (Token::Other, 1),
            }
        }
        other => (Token::Other, other.len_utf8()),
    })
}

fn of_sqlite(rest: &str, first: char) -> Option<(Token, usize)> {
    Some(match first {
        '`' => (Token::Other, quoted(rest, '`')?),
        '[' => (Token::Other, closed(rest, 1, "]")?),
        '?' => (
            Token::NativeParameter,
            1 + run(&rest[1..], |c| c.is_ascii_digit()),
        ),
        ':' | '@' | '$' | '#' => match (variable_of_sqlite(rest), parameter(rest)) {
            (Some(length), ours @ (Token::Parameter, named)) if length == named => ours,
            (Some(length), _) => (Token::NativeParameter, length),
            (None, _) if rest.starts_with("::") => (Token::Other, 2),
            (None, _) => (Token::Other, 1),
        },
        other => (Token::Other, other.len_utf8()),
    })
}

/// The length of the variable at the beginning of `rest`. As in Tcl, it may contain `::` and end
/// with brackets.
fn variable_of_sqlite(rest: &str) -> Option<usize> {
    let (mut length, mut is_named) = (1, false);
    loop {
        let next = &rest[length..];
        let named = run(next, is_in_name);
        is_named |= named > 0;
        length += named;
        let next = &rest[length..];
        if next.starts_with("::") {
            length += 2;
        } else if named == 0 {
            break;
        }
    }
    if is_named && rest[length..].starts_with('(') {
        let inside = &rest[length + 1..];
        let end = run(inside, |c| c != ')' && !is_space(c));
        length += 1 + end + usize::from(inside[end..].starts_with(')'));
    }
    is_named.then_some(length)
}

/// The parameter, or the lone colon, at the beginning of `rest`.
fn parameter(rest: &str) -> (Token, usize) {
    let name = rest.strip_prefix(':').unwrap_or_default();
    if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let plain = run(name, |c| c.is_ascii_alphanumeric() || c == '_');
        let whole = run(name, is_in_name);
        let token = match plain == whole {
            true => Token::Parameter,
            false => Token::NativeParameter,
        };
        return (token, 1 + whole);
    }
    (Token::Other, 1)
}

/// White space in both databases.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn begins_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_in_name(c: char) -> bool {
    begins_name(c) || c.is_ascii_digit() || c == '$'
}

/// The length of the prefix of `text` in which all characters are `such`.
fn run(text: &str, such: impl Fn(char) -> bool) -> usize {
    text.find(|c| !such(c)).unwrap_or(text.len())
}

/// The length up to and including the first `end` after `from`.
fn closed(rest: &str, from: usize, end: &str) -> Option<usize> {
    rest[from..].find(end).map(|at| from + at + end.len())
}

/// The length of a string or quoted name, in which a doubled quote stands for a quote.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut length = 1;
    loop {
        length += rest[length..].find(quote)? + 1;
        if !rest[length..].starts_with(quote) {
            return Some(length);
        }
        length += 1;
    }
}

/// The length of a line comment. Only in Postgres does a carriage return end it.
fn line_comment(rest: &str, kind: DatabaseKind) -> usize {
    let ends = |c| c == '\n' || (c == '\r' && kind == DatabaseKind::Postgres);
    rest.find(ends).unwrap_or(rest.len())
}

/// The length of a block comment. In Postgres comments nest. In SQLite they do not, and the end of
/// the text ends them.
fn block_comment(rest: &str, kind: DatabaseKind) -> Option<usize> {
    if kind == DatabaseKind::Sqlite {
        return Some(closed(rest, 2, "*/").unwrap_or(rest.len()));
    }
    let (mut depth, mut length) = (1, 2);
    while depth > 0 {
        let inside = &rest[length..];
        let next = inside.find("*/")?;
        match inside.find("/*").filter(|opens| *opens < next) {
            Some(opens) => {
                depth += 1;
                length += opens + 2;
            }
            None => {
                depth -= 1;
                length += next + 2;
            }
        }
    }
    Some(length)
}

/// The length of `E'…'`, in which a backslash escapes. After its closing quote and a line end,
/// another quote may continue it.
fn escape_string(rest: &str) -> Option<usize> {
    let mut length = 2;
    loop {
        match rest[length..].chars().next()? {
            '\\' => length += 1 + rest[length + 1..].chars().next()?.len_utf8(),
            '\'' if rest[length + 1..].starts_with('\'') => length += 2,
            '\'' => match continues(&rest[length + 1..]) {
                Some(gap) => length += 1 + gap,
                None => return Some(length + 1),
            },
            other => length += other.len_utf8(),
        }
    }
}

/// The length up to and including the quote that continues a string: white space and line comments,
/// with at least one line end.
fn continues(rest: &str) -> Option<usize> {
    let (mut length, mut has_line_end) = (0, false);
    loop {
        let next = &rest[length..];
        let space = run(next, is_space);
        has_line_end |= next[..space].contains(['\n', '\r']);
        length += space;
        let next = &rest[length..];
        if next.starts_with("--") {
            length += line_comment(next, DatabaseKind::Postgres);
        } else {
            return (has_line_end && next.starts_with('\'')).then_some(length + 1);
        }
    }
}

/// The `$tag$` at the beginning of `rest`.
fn dollar_tag(rest: &str) -> Option<&str> {
    let name = run(&rest[1..], |c| begins_name(c) || c.is_ascii_digit());
    let tag = rest.get(..name + 2)?;
    (tag.ends_with('$') && !rest[1..].starts_with(|c: char| c.is_ascii_digit())).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str, kind: DatabaseKind) -> Option<Vec<(Token, &str)>> {
        let mut found = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (token, length) = token(rest, kind)?;
            assert!(length > 0);
            found.push((token, &rest[..length]));
            rest = &rest[length..];
        }
        Some(found)
    }

    #[test]
    fn each_database_has_its_own_parameters_beside_ours() {
        let own = |text, kind| {
            let own = tokens(text, kind).unwrap().into_iter();
            own.filter(|(token, _)| *token == Token::NativeParameter)
                .map(|(_, text)| text)
                .collect::<Vec<_>>()
        };
        let text = "? ?1 @a $b $1 #c :é :x$ :1 :ok a$1 @ # :a::b :a(b) ::c";
        assert_eq!(
            own(text, DatabaseKind::Sqlite),
            [
                "?", "?1", "@a", "$b", "$1", "#c", ":é", ":x$", ":1", ":a::b", ":a(b)"
            ]
        );
        assert_eq!(own(text, DatabaseKind::Postgres), ["$1", ":x$"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in r#"[-:;$'"`\[\]/*aeE1é\\?@ \n\r]{0,32}"#) {
            for kind in [DatabaseKind::Postgres, DatabaseKind::Sqlite] {
                if let Some(found) = tokens(&text, kind) {
                    let whole: String = found.iter().map(|(_, text)| *text).collect();
                    proptest::prop_assert_eq!(&whole, &text);
                }
            }
        }
    }
}
