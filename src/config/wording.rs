//! Words for errors: quoted values, and suggestions for unknown names. Which characters no word
//! has.

/// A text in quotes, cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Whether this character could move a terminal's cursor, break a line or reorder it (Unicode's
/// control characters, line separators, and marks of text direction that stay in force).
pub fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Says that `found` is not among the `known` names, and suggests the nearest of them.
pub(super) fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    // The comparison is letter by letter, so it is limited to what a person would write.
    const LONGEST: usize = 100;
    const MOST: usize = 1_000;
    let comparable = found.len() <= LONGEST && known.len() <= MOST;
    let near = known
        .iter()
        .filter(|_| comparable)
        .map(|name| (strsim::osa_distance(found, name), name))
        .min()
        .filter(|(distance, name)| {
            *distance <= 2.min(name.len() / 2) + usize::from(name.len() > 8)
        });
    match near {
        Some((_, name)) => format!("is an unknown {what}, did you mean {name:?}?"),
        None => format!("is an unknown {what}"),
    }
}
