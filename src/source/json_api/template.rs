//! Text with places in it: `{param}` for a parameter of the request, `${VAR}` for a variable of the environment.
//!
//! Promise: printed in any way it shows `${VAR}`, never what the variable holds. `{{` and `}}` stand for a brace.

use std::fmt;

use larder_cache::Secret;

/// See the module.
#[derive(Clone)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A piece of a [`Template`].
#[derive(Clone)]
pub(super) enum Piece {
    /// Stands as it is.
    Text(String),
    /// The value of the parameter of this name stands here.
    Param(String),
    /// What the environment variable of this name held.
    Filled(String, Secret),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// It has a `${` without its `}`.
    Unclosed,
    /// It has a `${}` around what is no variable's name.
    NoVariable,
    /// This variable is not in the environment, or empty.
    Missing(String),
    /// It has a brace without its other half, or with nothing between them.
    Braces,
}

impl Template {
    /// Takes `text` apart and fills in the variables, each of which `variable` looks up. A variable that is empty is one that is
    /// missing.
    ///
    /// # Errors
    /// The first [`TemplateError`] in `text`. None of them shows what a variable holds.
    pub fn parse(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Template, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let piece = if let Some(inside) = rest.strip_prefix("${") {
                let (name, after) = inside.split_once('}').ok_or(TemplateError::Unclosed)?;
                rest = after;
                if !is_variable(name) {
                    return Err(TemplateError::NoVariable);
                }
                let value = variable(name).filter(|value| !value.is_empty());
                let value = value.ok_or_else(|| TemplateError::Missing(name.to_owned()))?;
                Piece::Filled(name.to_owned(), Secret::new(value))
            } else if rest.starts_with("{{") || rest.starts_with("}}") {
                plain.push(first);
                rest = &rest[2..];
                continue;
            } else if let Some(inside) = rest.strip_prefix('{') {
                let (name, after) = inside.split_once('}').ok_or(TemplateError::Braces)?;
                rest = after;
                if name.is_empty() || name.contains('{') {
                    return Err(TemplateError::Braces);
                }
                Piece::Param(name.to_owned())
            } else if first == '}' {
                return Err(TemplateError::Braces);
            } else {
                plain.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template { pieces })
    }

    /// The parameters that it names, in order.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Param(name) => Some(name.as_str()),
            Piece::Text(_) | Piece::Filled(..) => None,
        })
    }

    /// What the environment filled in.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Filled(_, secret) => Some(secret),
            Piece::Text(_) | Piece::Param(_) => None,
        })
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Whether a shell could set a variable of this name.
pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Piece::Param(name) => write!(f, "{{{name}}}"),
            Piece::Filled(name, _) => write!(f, "${{{name}}}"),
        })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

// By what it shows: a secret is not compared.
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
            TemplateError::NoVariable => {
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
            ("${}", TemplateError::NoVariable),
            ("${1K}", TemplateError::NoVariable),
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
}
