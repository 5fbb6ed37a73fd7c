//! HTML to plain text, as a browser shows it.
//!
//! The tokenizer follows the HTML standard. It knows every character reference, including those
//! without a semicolon and the numbers of windows-1252, and it knows where a tag, a comment or a
//! script ends. The result is text, not safe HTML: `&lt;b&gt;` becomes `<b>`, so a page must escape
//! it like any other text.

use html5gum::{DefaultEmitter, Token, Tokenizer};

/// Elements whose content is not shown.
const HIDDEN: [&[u8]; 8] = [
    b"datalist",
    b"iframe",
    b"noembed",
    b"noframes",
    b"script",
    b"style",
    b"template",
    b"title",
];
/// Elements on a line or in a cell of their own. All others are shown within the line.
const APART: [&[u8]; 51] = [
    b"address",
    b"article",
    b"aside",
    b"blockquote",
    b"body",
    b"br",
    b"caption",
    b"center",
    b"dd",
    b"details",
    b"dialog",
    b"dir",
    b"div",
    b"dl",
    b"dt",
    b"fieldset",
    b"figcaption",
    b"figure",
    b"footer",
    b"form",
    b"h1",
    b"h2",
    b"h3",
    b"h4",
    b"h5",
    b"h6",
    b"header",
    b"hgroup",
    b"hr",
    b"html",
    b"legend",
    b"li",
    b"main",
    b"menu",
    b"nav",
    b"ol",
    b"optgroup",
    b"option",
    b"p",
    b"pre",
    b"search",
    b"section",
    b"summary",
    b"table",
    b"tbody",
    b"td",
    b"tfoot",
    b"th",
    b"thead",
    b"tr",
    b"ul",
];

/// The plain text of some HTML, with spaces around elements of [`APART`].
pub(crate) fn plain_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    // The open element of [`HIDDEN`], if there is one.
    let mut hidden: Option<Vec<u8>> = None;
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        let name = match token {
            Token::String(more) if hidden.is_none() => {
                text.push_str(&String::from_utf8_lossy(&more));
                continue;
            }
            Token::StartTag(tag) => {
                let opens = HIDDEN.contains(&tag.name.as_slice()) && hidden.is_none();
                if opens && !tag.self_closing {
                    hidden = Some(tag.name.to_vec());
                }
                tag.name
            }
            Token::EndTag(tag) => {
                if hidden.as_deref() == Some(tag.name.as_slice()) {
                    hidden = None;
                }
                tag.name
            }
            _ => continue,
        };
        if APART.contains(&name.as_slice()) && hidden.is_none() {
            text.push(' ');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::plain_text;
    use proptest::prelude::*;

    #[test]
    fn tags_go_and_references_are_decoded() {
        for (html, text) in [
            ("<p>One &amp; <strong>two</strong>.</p>", " One & two. "),
            ("a<br>b<br/>c</br>d", "a b c d"),
            ("<a href=\"x\">l</a>ink", "link"),
            (
                "<font color=red>r</font><custom-x>e</custom-x><wbr>d",
                "red",
            ),
            ("<ul><li>a<li>b</ul>c", "  a b c"),
            ("<TD>a</TD><TH>b", " a  b"),
            ("5 < 6 & 7 > 3, <3 you", "5 < 6 & 7 > 3, <3 you"),
            ("AT&T, R&D, a&b=c", "AT&T, R&D, a&b=c"),
            ("&lt;b&gt; &#39;x&#x27; &#X2014; &eacute;", "<b> 'x' — é"),
            (
                "&ocirc; &laquo;a&raquo; &fjlig; &NotEqualTilde;",
                "ô «a» fj ≂\u{338}",
            ),
            ("&eacute &copy 2026 &ampx", "é © 2026 &x"),
            ("&amp;lt; &amp;amp; &amp;hellip;", "&lt; &amp; &hellip;"),
            (
                "&ldquor;a&rdquo; &Scaron;i&hellip; &nbsp;&#8230;&#x2026;",
                "„a” Ši… \u{a0}……",
            ),
            ("&unknown; &; &#; &#x;", "&unknown; &; &#; &#x;"),
            ("<a title=\"a > b\">l</a> <a title='c>d'>m</a>", "l m"),
            ("before<!-- a > b -->after<!-->.", "beforeafter."),
            ("<!DOCTYPE html>a<?php b ?>c<![CDATA[d]]>", "ac"),
            ("cut <b", "cut "),
            ("cut <!-- ", "cut "),
            ("&ééééééé;", "&ééééééé;"),
            ("", ""),
        ] {
            assert_eq!(plain_text(html), text, "{html}");
        }
    }

    #[test]
    fn numbers_are_those_of_windows_1252_where_a_browser_reads_them_so() {
        for (html, text) in [
            ("&#145;&#146;&#147;&#148;&#151;", "‘’“”—"),
            ("&#128;&#133;&#159;", "€…Ÿ"),
            ("&#x92;s", "’s"),
            // Numbers without a character in windows-1252, and without one in Unicode.
            ("&#129;", "\u{81}"),
            ("&#0;&#xd800;&#x110000;", "\u{fffd}\u{fffd}\u{fffd}"),
            ("&#8217;&#39&#39;", "’''"),
        ] {
            assert_eq!(plain_text(html), text, "{html}");
        }
    }

    #[test]
    fn what_is_not_shown_is_left_out() {
        for (html, text) in [
            ("a<script>if (b < c) \"</b>\"</script>d", "ad"),
            ("a<SCRIPT type=x>b</script >c", "ac"),
            ("a<style>p > b { }</style>c", "ac"),
            ("a<title>b &amp; c</title>d", "ad"),
            ("a<template><p>b</p></template>c", "ac"),
            ("a<iframe>b</iframe>c", "ac"),
            ("a<script>b", "a"),
            ("a</script>b", "ab"),
            ("a<textarea><b></textarea>c", "a<b>c"),
        ] {
            assert_eq!(plain_text(html), text, "{html}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(html in ".*", pieces in proptest::collection::vec("(<|>|&|;|#|!--|/|é|b|script)", 0..30)) {
            plain_text(&html);
            plain_text(&pieces.concat());
        }

        #[test]
        fn text_without_markup_stays_as_it_is(text in "[^<&\r\0\u{1}-\u{8}]*") {
            prop_assert_eq!(plain_text(&text), text);
        }
    }
}
