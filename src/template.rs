//! Templates: texts with places, `{name}` for a parameter and `${NAME}` for an environment
//! variable.
//!
//! There is one parser. A [`Syntax`] says which places a text may have, and whether `{{` and `}}`
//! stand for a brace. A character that begins no place stands for itself.
//!
//! Promise: a [`Template`] shows `${NAME}` when it is printed, never the variable's value.

use std::fmt;

use larder_cache::Secret;

/// Which places a text may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `{name}` only, as in tags. A brace is never literal.
    Params,
    /// `${NAME}` only, as in URLs of the configuration. Other braces are literal.
    Variables,
    /// Both, as in the requests of HTTP sources. `{{` and `}}` are literal braces.
    Both,
}

/// A piece of a text, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Literal text.
    Text(&'t str),
    /// The place of the parameter of this name.
    Param(&'t str),
    /// The place of the environment variable of this name.
    Variable(&'t str),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A `${` has no `}`.
    Unclosed,
    /// The name in a `${}` is not valid.
    VariableName,
    /// This variable is not set, or it is empty.
    Missing(String),
    /// A brace has no other half, or a pair has no name in it.
    Braces,
}

/// The pieces of a text, in order. After [`TemplateError::VariableName`] the iterator goes on with
/// the next piece; after any other error it ends.
pub struct Pieces<'t> {
    rest: &'t str,
    syntax: Syntax,
}

/// Takes `text` apart.
pub fn pieces(text: &str, syntax: Syntax) -> Pieces<'_> {
    Pieces { rest: text, syntax }
}

impl<'t> Pieces<'t> {
    /// The text that is not read yet.
    pub fn rest(&self) -> &'t str {
        self.rest
    }

    fn place(&mut self) -> Result<Piece<'t>, TemplateError> {
        let rest = self.rest;
        let (params, variables) = match self.syntax {
            Syntax::Params => (true, false),
            Syntax::Variables => (false, true),
            Syntax::Both => (true, true),
        };
        if variables && let Some(inside) = rest.strip_prefix("${") {
            let (name, after) = inside.split_once('}').ok_or(TemplateError::Unclosed)?;
            self.rest = after;
            return if is_variable_name(name) {
                Ok(Piece::Variable(name))
            } else {
                Err(TemplateError::VariableName)
            };
        }
        if self.syntax == Syntax::Both && (rest.starts_with("{{") || rest.starts_with("}}")) {
            self.rest = &rest[2..];
            return Ok(Piece::Text(&rest[..1]));
        }
        if params && rest.starts_with(['{', '}']) {
            let inside = rest.strip_prefix('{').ok_or(TemplateError::Braces)?;
            let (name, after) = inside.split_once('}').ok_or(TemplateError::Braces)?;
            if name.is_empty() || name.contains('{') {
                return Err(TemplateError::Braces);
            }
            self.rest = after;
            return Ok(Piece::Param(name));
        }
        // The first character begins no place: the text goes on to the next that may.
        let may_begin = |c: char| matches!(c, '{' | '}') && params || c == '$' && variables;
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..]
            .find(may_begin)
            .map_or(rest.len(), |at| first + at);
        let (text, after) = rest.split_at(end);
        self.rest = after;
        Ok(Piece::Text(text))
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Result<Piece<'t>, TemplateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let piece = self.place();
        if piece.is_err() && piece != Err(TemplateError::VariableName) {
            self.rest = "";
        }
        Some(piece)
    }
}

/// Whether a shell could set a variable of this name.
pub fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A text with its places, the variables filled in.
#[derive(Clone)]
pub struct Template {
    parts: Vec<Part>,
}

/// A part of a [`Template`]. No two literal texts stand side by side.
#[derive(Clone)]
pub enum Part {
    /// Literal text.
    Text(String),
    /// The place of the parameter of this name.
    Param(String),
    /// The environment variable of this name, and its value.
    Filled(String, Secret),
}

impl Template {
    /// Parses `text` by [`Syntax::Both`] and fills in its variables. `variable` looks one up; an
    /// empty one counts as missing.
    ///
    /// # Errors
    /// The first [`TemplateError`] in `text`. None shows a variable's value.
    pub fn parse(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Template, TemplateError> {
        let mut parts: Vec<Part> = Vec::new();
        for piece in pieces(text, Syntax::Both) {
            match piece? {
                Piece::Text(more) => match parts.last_mut() {
                    Some(Part::Text(text)) => text.push_str(more),
                    _ => parts.push(Part::Text(more.to_owned())),
                },
                Piece::Param(name) => parts.push(Part::Param(name.to_owned())),
                Piece::Variable(name) => {
                    let value = variable(name).filter(|value| !value.is_empty());
                    let value = value.ok_or_else(|| TemplateError::Missing(name.to_owned()))?;
                    parts.push(Part::Filled(name.to_owned(), Secret::new(value)));
                }
            }
        }
        Ok(Template { parts })
    }

    /// The parameters that it names, in order.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Param(name) => Some(name.as_str()),
            Part::Text(_) | Part::Filled(..) => None,
        })
    }

    /// The values of its variables.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.parts.iter().filter_map(|part| match part {
            Part::Filled(_, secret) => Some(secret),
            Part::Text(_) | Part::Param(_) => None,
        })
    }

    /// Its parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Param(name) => write!(f, "{{{name}}}"),
            Part::Filled(name, _) => write!(f, "${{{name}}}"),
        })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

// By its printed form, because a secret is not compared.
impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Template {}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::Unclosed => f.write_str("has a \"${\" without its \"}\""),
            TemplateError::VariableName => {
                f.write_str("has a \"${}\" around an invalid variable name")
            }
            TemplateError::Missing(name) => {
                write!(
                    f,
                    "names ${{{name}}}, which is missing from the environment"
                )
            }
            TemplateError::Braces => {
                f.write_str("has a brace without its other half, or an empty pair")
            }
        }
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text, &|name| match name {
            "KEY" => Some("s3cr3t".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn shows_what_was_written_and_never_what_was_filled_in() {
        for text in [
            "",
            "plain",
            "$5 and $",
            "https://h/{a}/x{b}?k=${KEY}&q={a}",
            "{{\"key\":\"${KEY}\"}}",
        ] {
            let template = parse(text).unwrap();
            assert_eq!(template.to_string(), text);
            assert!(!format!("{template:?}{template}").contains("s3cr3t"));
        }
        let template = parse("{a}-{b}-{a}").unwrap();
        assert_eq!(template.params().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    #[test]
    fn says_what_is_wrong_without_showing_it() {
        for (text, error) in [
            ("${KEY", TemplateError::Unclosed),
            ("${}", TemplateError::VariableName),
            ("${1K}", TemplateError::VariableName),
            ("${KEY}${NONE}", TemplateError::Missing("NONE".to_owned())),
            ("${EMPTY}", TemplateError::Missing("EMPTY".to_owned())),
            ("{a", TemplateError::Braces),
            ("a}", TemplateError::Braces),
            ("{}", TemplateError::Braces),
            ("{a{b}", TemplateError::Braces),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn each_syntax_has_its_own_places_and_literals() {
        use Piece::{Param, Text, Variable};
        let all = |text, syntax| -> Result<Vec<_>, _> { pieces(text, syntax).collect() };
        for (text, syntax, expected) in [
            // In a tag a dollar is a dollar, and no brace is literal.
            (
                "$a:${b}",
                Syntax::Params,
                Ok(vec![Text("$a:$"), Param("b")]),
            ),
            ("{{a}}", Syntax::Params, Err(TemplateError::Braces)),
            ("a}}", Syntax::Params, Err(TemplateError::Braces)),
            // In a URL of the configuration every other brace is literal.
            (
                "x{a}}${B}$",
                Syntax::Variables,
                Ok(vec![Text("x{a}}"), Variable("B"), Text("$")]),
            ),
            ("{${A", Syntax::Variables, Err(TemplateError::Unclosed)),
            // In a request two braces are one.
            (
                "{{{a}}}${B}",
                Syntax::Both,
                Ok(vec![Text("{"), Param("a"), Text("}"), Variable("B")]),
            ),
            (
                "é{é}$",
                Syntax::Both,
                Ok(vec![Text("é"), Param("é"), Text("$")]),
            ),
        ] {
            assert_eq!(all(text, syntax), expected, "{text}");
        }
    }

    #[test]
    fn the_pieces_go_on_after_an_invalid_name_and_end_after_another_error() {
        let all: Vec<_> = pieces("${1}a${B}${", Syntax::Variables).collect();
        let expected = [
            Err(TemplateError::VariableName),
            Ok(Piece::Text("a")),
            Ok(Piece::Variable("B")),
            Err(TemplateError::Unclosed),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn literal_texts_are_joined() {
        let template = parse("a{{b}}c").unwrap();
        assert!(matches!(template.parts(), [Part::Text(text)] if text == "a{b}c"));
    }
}
