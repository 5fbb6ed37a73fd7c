//! HTML to plain text: tags go, entities become what they stand for.
//!
//! The result is text, not safe HTML: `&lt;b&gt;` becomes `<b>`, and whoever shows it in a page escapes it as any text.

/// The text of a piece of HTML. Where a tag breaks the line there is a space.
pub(crate) fn plain_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = if rest.starts_with('<') {
            tag(rest, &mut text)
        } else {
            entity(rest, &mut text)
        };
        if taken == 0 {
            text.push_str(&rest[..1]);
            rest = &rest[1..];
        } else {
            rest = &rest[taken..];
        }
    }
    text.push_str(rest);
    text
}

/// The length of the tag that `html` begins with; zero if this is a `<` that stands for itself.
fn tag(html: &str, text: &mut String) -> usize {
    if let Some(comment) = html.strip_prefix("<!--") {
        return comment.find("-->").map_or(html.len(), |end| end + 7);
    }
    let name = html[1..].trim_start_matches('/');
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!') {
        return 0;
    }
    let name_end = name
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(name.len());
    let inline = [
        "a", "abbr", "b", "code", "em", "i", "mark", "s", "small", "span", "strong", "sub", "sup",
        "u",
    ];
    if !inline
        .iter()
        .any(|known| known.eq_ignore_ascii_case(&name[..name_end]))
    {
        text.push(' ');
    }
    html.find('>').map_or(html.len(), |end| end + 1)
}

/// The length of the entity that `html` begins with; zero if this is an `&` that stands for itself.
fn entity(html: &str, text: &mut String) -> usize {
    // The longest that is known is `&#1114111;`.
    let Some(end) = html.bytes().take(12).position(|byte| byte == b';') else {
        return 0;
    };
    let name = &html[1..end];
    let known = match name.strip_prefix('#') {
        Some(number) => numbered(number),
        None => named(name),
    };
    match known {
        Some(c) => {
            text.push(c);
            end + 1
        }
        None => 0,
    }
}

fn numbered(number: &str) -> Option<char> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => number.parse().ok()?,
    };
    char::from_u32(code).filter(|c| *c != '\0')
}

fn named(name: &str) -> Option<char> {
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "hellip" => '…',
        "bull" => '•',
        "middot" => '·',
        "pound" => '£',
        "euro" => '€',
        "cent" => '¢',
        "yen" => '¥',
        "deg" => '°',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "frac12" => '½',
        "times" => '×',
        "aacute" => 'á',
        "agrave" => 'à',
        "auml" => 'ä',
        "ccedil" => 'ç',
        "eacute" => 'é',
        "egrave" => 'è',
        "ecirc" => 'ê',
        "iacute" => 'í',
        "ntilde" => 'ñ',
        "oacute" => 'ó',
        "ouml" => 'ö',
        "szlig" => 'ß',
        "uacute" => 'ú',
        "uuml" => 'ü',
        _ => return None,
    };
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::plain_text;
    use proptest::prelude::*;

    #[test]
    fn tags_go_and_entities_are_decoded() {
        for (html, text) in [
            ("<p>One &amp; <strong>two</strong>.</p>", " One & two. "),
            ("a<br>b<br/>c", "a b c"),
            ("<a href=\"x\">l</a>ink", "link"),
            ("5 < 6 & 7 > 3", "5 < 6 & 7 > 3"),
            ("&lt;b&gt; &#39;x&#x27; &#X2014; &eacute;", "<b> 'x' — é"),
            ("&amp;lt;", "&lt;"),
            (
                "&unknown; &; &#; &#xffffffff; &#0; &#55296;",
                "&unknown; &; &#; &#xffffffff; &#0; &#55296;",
            ),
            ("before<!-- a > b -->after", "beforeafter"),
            ("cut <b", "cut "),
            ("cut <!-- ", "cut "),
            ("&ééééééé;", "&ééééééé;"),
            ("", ""),
        ] {
            assert_eq!(plain_text(html), text, "{html}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(html in ".*", pieces in proptest::collection::vec("(<|>|&|;|#|!--|/|é|b)", 0..30)) {
            plain_text(&html);
            plain_text(&pieces.concat());
        }
    }
}
