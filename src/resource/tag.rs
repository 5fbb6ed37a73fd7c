//! Tag templates: tags with places for values, `user:{id}`.

use std::fmt;

use crate::template::{Piece as Written, Syntax, TemplateError, pieces};
use larder_cache::{Tag, escape_into};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Literal text.
    Literal(String),
    /// The place of the parameter of this name.
    Param(String),
}

/// Why a text is not a tag template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagError {
    /// It is empty, or longer than [`TagTemplate::MAX_LENGTH`] bytes.
    Length,
    /// It is `*`, which means everything.
    Everything,
    /// It has a space or a control character.
    Character,
    /// It is not a template.
    Template(TemplateError),
}

impl TagTemplate {
    /// The longest template, in bytes.
    pub const MAX_LENGTH: usize = 200;
    /// The readings of one tag that are returned, at most.
    pub const MOST_READINGS: usize = 16;
    /// The steps of that search, at most. A tag with escaped values needs fewer.
    const MOST_STEPS: usize = 10_000;

    /// Parses a template.
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
        let own = |piece| match piece {
            Written::Text(text) => Ok(Piece::Literal(text.to_owned())),
            Written::Param(name) => Ok(Piece::Param(name.to_owned())),
            Written::Variable(name) => Err(TemplateError::Missing(name.to_owned())),
        };
        let all = pieces(text, Syntax::Params).map(|piece| own(piece?));
        let pieces = all.collect::<Result<_, _>>().map_err(TagError::Template)?;
        Ok(TagTemplate { pieces })
    }

    /// The tag with the text that `text_of` gives for each place. Texts are escaped, so no value
    /// can make another tag. `None` leaves a place empty, which no value does.
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

    /// Every way to read `tag` by this template, up to [`TagTemplate::MOST_READINGS`]: the name of
    /// each place and the text there. Empty if the template cannot make this tag. A tag with
    /// escaped values has one reading, unless two places touch.
    pub fn readings<'t>(&'t self, tag: &'t str) -> Vec<Vec<(&'t str, &'t str)>> {
        let mut readings = Vec::new();
        let mut steps = TagTemplate::MOST_STEPS;
        read(
            &self.pieces,
            tag,
            &mut Vec::new(),
            &mut steps,
            &mut readings,
        );
        readings
    }

    /// Pairs each place of this template with that of a template that makes the same tags. `None`:
    /// `other` makes other tags.
    pub fn places_beside<'t>(&'t self, other: &'t TagTemplate) -> Option<Vec<(&'t str, &'t str)>> {
        if self.pieces.len() != other.pieces.len() {
            return None;
        }
        let mut places = Vec::new();
        for pieces in self.pieces.iter().zip(&other.pieces) {
            match pieces {
                (Piece::Literal(one), Piece::Literal(two)) if one == two => {}
                (Piece::Param(one), Piece::Param(two)) => places.push((one.as_str(), two.as_str())),
                _ => return None,
            }
        }
        Some(places)
    }

    /// The parameters that it names.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Param(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }
}

/// Adds to `readings` every way in which `pieces` make `rest`, after the values so far. Ends early
/// if no `steps` are left.
fn read<'t>(
    pieces: &'t [Piece],
    rest: &'t str,
    values: &mut Vec<(&'t str, &'t str)>,
    steps: &mut usize,
    readings: &mut Vec<Vec<(&'t str, &'t str)>>,
) {
    if *steps == 0 || readings.len() == TagTemplate::MOST_READINGS {
        return;
    }
    *steps -= 1;
    match pieces.split_first() {
        None if rest.is_empty() => readings.push(values.clone()),
        None => {}
        Some((Piece::Literal(literal), others)) => {
            if let Some(rest) = rest.strip_prefix(literal.as_str()) {
                read(others, rest, values, steps, readings);
            }
        }
        Some((Piece::Param(name), others)) => {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            // The last place takes all that is left.
            for end in ends.filter(|end| !others.is_empty() || *end == rest.len()) {
                let (value, rest) = rest.split_at(end);
                values.push((name.as_str(), value));
                read(others, rest, values, steps, readings);
                values.pop();
            }
        }
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
            TagError::Everything => f.write_str("is \"*\", which means everything"),
            TagError::Character => f.write_str("has a space or a control character"),
            TagError::Template(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TagError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_in_every_way() {
        let readings = |template: &str, tag: &str| {
            let template = TagTemplate::parse(template).unwrap();
            let readings = template.readings(tag);
            let values = readings.iter().map(|reading| {
                let values: Vec<&str> = reading.iter().map(|(_, value)| *value).collect();
                values.join("|")
            });
            values.collect::<Vec<_>>()
        };
        assert_eq!(readings("city:{city}", "city:São Paulo"), ["São Paulo"]);
        assert_eq!(readings("city:{city}", "city:"), [""]);
        assert_eq!(readings("articles", "articles"), [""]);
        assert_eq!(readings("{a}:{b}x", "1:2x"), ["1|2"]);
        assert_eq!(readings("t:{a}:{b}", "t:1:2:3"), ["1|2:3", "1:2|3"]);
        assert_eq!(readings("{a}{b}", "12"), ["|12", "1|2", "12|"]);
        for (template, tag) in [
            ("city:{city}", "town:x"),
            ("articles", "article"),
            ("{a}x", "ay"),
        ] {
            assert!(readings(template, tag).is_empty(), "{template} {tag}");
        }
        let many = readings("{a}{b}{c}{d}", &"x".repeat(60_000));
        assert_eq!(many.len(), TagTemplate::MOST_READINGS, "and it ends");
    }

    #[test]
    fn templates_are_compared_by_the_tags_that_they_make() {
        let places = |one: &str, other: &str| {
            let (one, other) = (
                TagTemplate::parse(one).unwrap(),
                TagTemplate::parse(other).unwrap(),
            );
            let places = one.places_beside(&other)?;
            Some(
                places
                    .iter()
                    .map(|(a, b)| format!("{a}={b}"))
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        assert_eq!(places("p:{handle}", "p:{h}").as_deref(), Some("handle=h"));
        assert_eq!(places("all", "all").as_deref(), Some(""));
        assert_eq!(places("p:{h}", "q:{h}"), None);
        assert_eq!(places("p:{h}", "p:{h}x"), None);
    }

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
            ("a{", TagError::Template(TemplateError::Braces)),
            ("a}", TagError::Template(TemplateError::Braces)),
            ("a{}", TagError::Template(TemplateError::Braces)),
            ("{a{b}}", TagError::Template(TemplateError::Braces)),
        ] {
            assert_eq!(TagTemplate::parse(wrong), Err(why), "{wrong}");
        }
        assert_eq!(
            TagTemplate::parse(&"a".repeat(TagTemplate::MAX_LENGTH + 1)),
            Err(TagError::Length)
        );
    }
}
