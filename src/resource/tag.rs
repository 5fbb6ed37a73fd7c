//! Tags with places for values: `user:{id}`.

use std::fmt;

use crate::cache::{Tag, escape_into};

/// A tag with places for parameters: `category:{category}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Stands as it is.
    Literal(String),
    /// The value of the parameter of this name stands here.
    Param(String),
}

/// Why a text is no tag template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagError {
    /// It is empty, or longer than [`TagTemplate::MAX_LENGTH`] bytes.
    Length,
    /// It is `*`, the name of everything.
    Everything,
    /// It has a space or a control character.
    Character,
    /// It has a brace without its other half, or with nothing between them.
    Braces,
}

impl TagTemplate {
    /// The longest template, in bytes.
    pub const MAX_LENGTH: usize = 200;

    /// Takes a template apart.
    pub fn parse(text: &str) -> Result<TagTemplate, TagError> {
        if text.is_empty() || text.len() > TagTemplate::MAX_LENGTH {
            return Err(TagError::Length);
        }
        if text == "*" {
            return Err(TagError::Everything);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(TagError::Character);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal = rest.find(['{', '}']).unwrap_or(rest.len());
            let (before, braced) = rest.split_at(literal);
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            if braced.is_empty() {
                break;
            }
            let (name, after) = braced
                .strip_prefix('{')
                .and_then(|inside| inside.split_once('}'))
                .ok_or(TagError::Braces)?;
            if name.is_empty() || name.contains('{') {
                return Err(TagError::Braces);
            }
            pieces.push(Piece::Param(name.to_owned()));
            rest = after;
        }
        Ok(TagTemplate { pieces })
    }

    /// The tag in which `text_of` says what stands at each place. Values are escaped, so that none can be another's name; one that
    /// is not given leaves its place empty, which no value does.
    pub fn render(&self, text_of: impl Fn(&str) -> Option<String>) -> Tag {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Param(name) => {
                    if let Some(value) = text_of(name) {
                        escape_into(&mut text, &value);
                    }
                }
            }
        }
        Tag::new(&text)
    }

    /// The parameters that it names.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Param(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Literal(text) => f.write_str(text),
            Piece::Param(name) => write!(f, "{{{name}}}"),
        })
    }
}

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TagError::Length => write!(
                f,
                "is empty or longer than {} bytes",
                TagTemplate::MAX_LENGTH
            ),
            TagError::Everything => f.write_str("is \"*\", the name of everything"),
            TagError::Character => f.write_str("has a space or a control character"),
            TagError::Braces => f.write_str("has a brace without its other half, or an empty pair"),
        }
    }
}

impl std::error::Error for TagError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_apart_and_together() {
        let tag = TagTemplate::parse("category:{category}/{id}x").unwrap();
        assert_eq!(
            tag.pieces,
            [
                Piece::Literal("category:".to_owned()),
                Piece::Param("category".to_owned()),
                Piece::Literal("/".to_owned()),
                Piece::Param("id".to_owned()),
                Piece::Literal("x".to_owned()),
            ]
        );
        assert_eq!(tag.params().collect::<Vec<_>>(), ["category", "id"]);
        assert_eq!(tag.to_string(), "category:{category}/{id}x");
        for (wrong, why) in [
            ("", TagError::Length),
            ("*", TagError::Everything),
            ("a b", TagError::Character),
            ("a\u{7}", TagError::Character),
            ("a{", TagError::Braces),
            ("a}", TagError::Braces),
            ("a{}", TagError::Braces),
            ("{a{b}}", TagError::Braces),
        ] {
            assert_eq!(TagTemplate::parse(wrong), Err(why), "{wrong}");
        }
        assert_eq!(
            TagTemplate::parse(&"a".repeat(TagTemplate::MAX_LENGTH + 1)),
            Err(TagError::Length)
        );
    }
}
