//! A list of articles as bytes. Each article is stored as JSON, so a view is a selection and a
//! copy, and nothing is parsed.
//!
//! Invariant of a written listing: newest first, articles of one time in the order of the input,
//! one article per story.
//!
//! Promise: reading never panics, whatever the bytes. It checks every length, not the JSON itself:
//! the cache's envelope has a checksum.
//!
//! The format, with little-endian numbers:
//!
//! 1. The head: magic (4 bytes), flags (1), zeros (3), number of articles (4), length of the JSON
//!    (4).
//! 2. A record for each article: time of publication (i64, Unix seconds), end of its JSON, end of
//!    its URL, end of its source, number of optional fields (u32 each). Ends count from the start
//!    of the JSON or of the names.
//! 3. The JSON: `{..},{..}`.
//! 4. The names: each URL followed by its source.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::article::{Article, source_name};
use super::same_story::story;

const MAGIC: &[u8; 4] = b"lrn1";
const HEAD: usize = 16;
const RECORD: usize = 24;

const PARTIAL: u8 = 1;
const ARCHIVED: u8 = 2;
const SANDBOX: u8 = 4;

/// Marks of a whole list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// An upstream of the list gave nothing.
    pub partial: bool,
    /// Some articles are from the archive, because no upstream answered.
    pub archived: bool,
    /// Some articles are from the sandbox.
    pub sandbox: bool,
}

impl Flags {
    /// The marks of a list made of two lists.
    pub fn or(self, other: Flags) -> Flags {
        Flags {
            partial: self.partial || other.partial,
            archived: self.archived || other.archived,
            sandbox: self.sandbox || other.sandbox,
        }
    }

    fn to_byte(self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.partial, PARTIAL) | bit(self.archived, ARCHIVED) | bit(self.sandbox, SANDBOX)
    }

    fn from_byte(byte: u8) -> Option<Flags> {
        (byte & !(PARTIAL | ARCHIVED | SANDBOX) == 0).then_some(Flags {
            partial: byte & PARTIAL != 0,
            archived: byte & ARCHIVED != 0,
            sandbox: byte & SANDBOX != 0,
        })
    }
}

/// One article of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its URL.
    pub url: &'a str,
    /// Its source, as [`source_name`] writes it.
    pub source: &'a str,
    /// The time of publication, in Unix seconds.
    pub published_at: i64,
    /// How many optional fields it has. Zero if that is not known.
    pub fields: u8,
    /// The article as a JSON object.
    pub json: &'a [u8],
}

/// One article of a listing. Its texts may not be UTF-8.
struct Raw<'a> {
    record: &'a [u8; RECORD],
    json: &'a [u8],
    url: &'a [u8],
    source: &'a [u8],
}

/// A listing whose lengths were checked.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    flags: Flags,
    records: &'a [[u8; RECORD]],
    json: &'a [u8],
    names: &'a [u8],
}

impl<'a> Listing<'a> {
    /// Writes a listing of articles in any order.
    pub fn encode(articles: &[Article], flags: Flags) -> Vec<u8> {
        let json: Vec<Vec<u8>> = articles
            .iter()
            // Serializing strings and a time does not fail. Empty JSON would be left out below.
            .map(|article| serde_json::to_vec(article).unwrap_or_default())
            .collect();
        let items = articles.iter().zip(&json).map(|(article, json)| Item {
            url: &article.url,
            source: &article.source,
            published_at: article.published_at.as_second(),
            fields: article.fields(),
            json,
        });
        Listing::of_items(items, flags)
    }

    /// Writes a listing of items in any order, such as those of the archive. Leaves out items with
    /// empty JSON.
    pub fn of_items<'i>(items: impl IntoIterator<Item = Item<'i>>, flags: Flags) -> Vec<u8> {
        let mut kept: Vec<Item<'i>> = Vec::new();
        let mut stories: HashMap<String, usize> = HashMap::new();
        for item in items.into_iter().filter(|item| !item.json.is_empty()) {
            match stories.entry(story(item.url)) {
                std::collections::hash_map::Entry::Occupied(at) => {
                    let first = &mut kept[*at.get()];
                    if item.fields > first.fields {
                        *first = item;
                    }
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(kept.len());
                    kept.push(item);
                }
            }
        }
        kept.sort_by_key(|item| std::cmp::Reverse(item.published_at));
        write(&kept, flags)
    }

    /// Merges listings. The result has `flags` and the marks of every part.
    pub fn merge(parts: &[Listing<'_>], flags: Flags) -> Vec<u8> {
        let flags = parts.iter().fold(flags, |flags, part| flags.or(part.flags));
        Listing::of_items(parts.iter().flat_map(Listing::items), flags)
    }

    /// Reads a listing. `None` if the bytes are not one.
    pub fn read(bytes: &'a [u8]) -> Option<Listing<'a>> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        if &head[..4] != MAGIC || head[5..8] != [0, 0, 0] {
            return None;
        }
        let flags = Flags::from_byte(head[4])?;
        let count = number(head, 8);
        let (records, rest) = rest.split_at_checked(count.checked_mul(RECORD)?)?;
        let (json, names) = rest.split_at_checked(number(head, 12))?;
        let (records, _) = records.as_chunks::<RECORD>();
        let listing = Listing {
            flags,
            records,
            json,
            names,
        };
        // The next article begins after a comma, as if one followed the last article too.
        let (mut json_start, mut name_start) = (0, 0);
        for record in records {
            let (json_end, url_end, source_end) = ends(record);
            if json_end <= json_start || url_end < name_start || source_end < url_end {
                return None;
            }
            (json_start, name_start) = (json_end + 1, source_end);
        }
        (json_start.saturating_sub(1) == json.len() && name_start == names.len()).then_some(listing)
    }

    /// Its marks.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// How many articles it has.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Its articles, newest first.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        self.raw().map(move |raw| Item {
            url: text(raw.url),
            source: text(raw.source),
            published_at: published_at(raw.record),
            fields: raw.record[20],
            json: raw.json,
        })
    }

    /// Its articles, without checking their texts for UTF-8. A view needs only bytes.
    fn raw(&self) -> impl Iterator<Item = Raw<'a>> + use<'a> {
        let Listing { json, names, .. } = *self;
        let (mut json_start, mut name_start) = (0, 0);
        self.records.iter().map(move |record| {
            let (json_end, url_end, source_end) = ends(record);
            let raw = Raw {
                record,
                json: json.get(json_start..json_end).unwrap_or_default(),
                url: names.get(name_start..url_end).unwrap_or_default(),
                source: names.get(url_end..source_end).unwrap_or_default(),
            };
            (json_start, name_start) = (json_end + 1, source_end);
            raw
        })
    }

    /// The first `limit` articles as `{..},{..}`.
    fn first(&self, limit: usize) -> &'a [u8] {
        let last = limit.min(self.records.len()).checked_sub(1);
        let end = last.map_or(0, |last| ends(&self.records[last]).0);
        self.json.get(..end).unwrap_or_default()
    }

    /// How many bytes [`Listing::view`] appends. With a source, the result is an estimate.
    pub fn room(&self, limit: usize) -> usize {
        self.first(limit).len()
    }

    /// Appends the first `limit` articles, or the first `limit` of `source`, as `{..},{..}`.
    /// Returns how many.
    pub fn view(&self, source: Option<&str>, limit: usize, out: &mut Vec<u8>) -> usize {
        let Some(source) = source else {
            out.extend_from_slice(self.first(limit));
            return limit.min(self.len());
        };
        let source = source_name(source);
        let of_source = self.raw().filter(|raw| raw.source == source.as_bytes());
        let mut count = 0;
        for article in of_source.take(limit) {
            if count > 0 {
                out.push(b',');
            }
            out.extend_from_slice(article.json);
            count += 1;
        }
        count
    }
}

/// Writes a listing. Leaves out items after the first 1 GiB, because an end must fit into a u32. An
/// upstream's answer is far smaller.
fn write(items: &[Item<'_>], flags: Flags) -> Vec<u8> {
    const MOST: usize = 1 << 30;
    let (mut json, mut names, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let mut count = 0_u32;
    for item in items {
        let name = item.url.len() + item.source.len();
        if json.len() + item.json.len() >= MOST || names.len() + name >= MOST {
            break;
        }
        if count > 0 {
            json.push(b',');
        }
        json.extend_from_slice(item.json);
        names.extend_from_slice(item.url.as_bytes());
        let url_end = names.len();
        names.extend_from_slice(item.source.as_bytes());
        records.extend_from_slice(&item.published_at.to_le_bytes());
        records.extend_from_slice(&end(json.len()));
        records.extend_from_slice(&end(url_end));
        records.extend_from_slice(&end(names.len()));
        records.extend_from_slice(&u32::from(item.fields).to_le_bytes());
        count += 1;
    }
    let mut bytes = Vec::with_capacity(HEAD + records.len() + json.len() + names.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[flags.to_byte(), 0, 0, 0]);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&end(json.len()));
    bytes.extend_from_slice(&records);
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(&names);
    bytes
}

fn end(at: usize) -> [u8; 4] {
    u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> usize {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
    four.map_or(0, |four| u32::from_le_bytes(*four) as usize)
}

fn ends(record: &[u8; RECORD]) -> (usize, usize, usize) {
    (number(record, 8), number(record, 12), number(record, 16))
}

fn published_at(record: &[u8; RECORD]) -> i64 {
    record
        .first_chunk::<8>()
        .map_or(0, |eight| i64::from_le_bytes(*eight))
}
