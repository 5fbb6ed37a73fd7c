//! The fields that a listing keeps, and its behaviour for any bytes.

use super::*;
use jiff::Timestamp;
use proptest::prelude::*;

fn article(url: &str, source: &str, at: i64) -> Article {
    Article {
        title: format!("title of {url}"),
        description: None,
        url: url.to_owned(),
        image: None,
        author: None,
        source: source.to_owned(),
        published_at: Timestamp::from_second(at).unwrap(),
        category: "general".to_owned(),
    }
}

fn view(bytes: &[u8], source: Option<&str>, limit: usize) -> (usize, Vec<String>) {
    let mut out = b"[".to_vec();
    let count = Listing::read(bytes).unwrap().view(source, limit, &mut out);
    out.push(b']');
    let articles: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
    let urls = articles
        .iter()
        .map(|article| article["url"].as_str().unwrap().to_owned());
    (count, urls.collect())
}

#[test]
fn newest_first_and_cut_to_the_limit() {
    let bytes = Listing::encode(
        &[
            article("https://a/1", "x", 10),
            article("https://a/2", "y", 30),
            article("https://a/3", "x", 20),
            article("https://a/4", "y", 20),
        ],
        Flags::default(),
    );
    let all = ["https://a/2", "https://a/3", "https://a/4", "https://a/1"];
    for limit in 0..6 {
        let (count, urls) = view(&bytes, None, limit);
        assert_eq!(urls, all[..limit.min(4)]);
        assert_eq!(count, urls.len());
    }
    assert_eq!(view(&bytes, Some("x"), 9).1, ["https://a/3", "https://a/1"]);
    assert_eq!(
        view(&bytes, Some(" Y"), 1),
        (1, vec!["https://a/2".to_owned()])
    );
    assert_eq!(view(&bytes, Some("z"), 9), (0, vec![]));
    assert_eq!(view(&bytes, Some("x"), 0), (0, vec![]));
}

#[test]
fn an_empty_one() {
    let bytes = Listing::encode(&[], Flags::default());
    let listing = Listing::read(&bytes).unwrap();
    assert!(listing.is_empty());
    assert_eq!(view(&bytes, None, 5), (0, vec![]));
}

#[test]
fn one_article_per_story_the_fuller_one_else_the_first() {
    let mut fuller = article("http://A/1/?utm_source=rss", "second", 5);
    fuller.author = Some("someone".to_owned());
    let first = Listing::encode(
        &[
            article("https://a/1", "first", 5),
            article("https://a/2", "first", 9),
        ],
        Flags::default(),
    );
    let second = Listing::encode(
        &[fuller, article("https://a/2#x", "second", 1)],
        Flags::default(),
    );
    let parts = [
        Listing::read(&first).unwrap(),
        Listing::read(&second).unwrap(),
    ];
    let merged = Listing::merge(&parts, Flags::default());
    let kept: Vec<(&str, &str)> = Listing::read(&merged)
        .unwrap()
        .items()
        .map(|item| (item.url, item.source))
        .collect();
    assert_eq!(
        kept,
        [
            ("https://a/2", "first"),
            ("http://A/1/?utm_source=rss", "second")
        ]
    );
}

#[test]
fn a_merge_says_of_itself_what_holds_for_a_part() {
    let sandbox = Flags {
        sandbox: true,
        ..Flags::default()
    };
    let partial = Flags {
        partial: true,
        ..Flags::default()
    };
    let part = Listing::encode(&[], sandbox);
    let merged = Listing::merge(&[Listing::read(&part).unwrap()], partial);
    assert_eq!(Listing::read(&merged).unwrap().flags(), sandbox.or(partial));
}

#[test]
fn the_archive_can_give_items_back() {
    let bytes = Listing::encode(&[article("https://a/1", "x", 7)], Flags::default());
    let items: Vec<Item<'_>> = Listing::read(&bytes).unwrap().items().collect();
    let again = Listing::of_items(items.iter().copied(), Flags::default());
    assert_eq!(again, bytes);
    assert_eq!(items[0].published_at, 7);
}

#[test]
fn every_shortened_listing_is_refused() {
    let bytes = Listing::encode(
        &[
            article("https://a/1", "x", 1),
            article("https://a/2", "y", 2),
        ],
        Flags::default(),
    );
    for length in 0..bytes.len() {
        assert!(Listing::read(&bytes[..length]).is_none(), "{length}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(Listing::read(&longer).is_none());
}

#[test]
fn lengths_that_overlap_are_refused() {
    let bytes = Listing::encode(
        &[
            article("https://a/1", "x", 1),
            article("https://a/2", "y", 2),
        ],
        Flags::default(),
    );
    // In the first record and in the second: an end before its own start.
    for (record, end, wrong) in [(0, 8, 0), (0, 16, 3), (1, 8, 1), (1, 12, 5), (1, 16, 12)] {
        let mut bytes = bytes.clone();
        let at = HEAD + record * RECORD + end;
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(wrong));
        assert!(Listing::read(&bytes).is_none(), "{record} {end} {wrong}");
    }
}

/// Reads everything there is to read.
fn exercise(bytes: &[u8]) {
    if let Some(listing) = Listing::read(bytes) {
        let mut out = Vec::new();
        for limit in [0, 1, 2, usize::MAX] {
            listing.view(None, limit, &mut out);
            listing.view(Some("x"), limit, &mut out);
        }
        Listing::merge(&[listing, listing], Flags::default());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
        exercise(&[&b"lrn1\0\0\0\0"[..], &bytes].concat());
    }

    #[test]
    fn damage_is_survived(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Listing::encode(
            &[article("https://a/1", "x", 1), article("https://é/2", "y", 2)],
            Flags::default(),
        );
        let at = at.index(bytes.len());
        bytes[at] = byte;
        exercise(&bytes);
    }

    #[test]
    fn any_articles_come_back(
        articles in proptest::collection::vec(("[a-z]{1,3}", "[a-c]", -99_i64..99, ".*"), 0..20),
        limit in 0_usize..25,
    ) {
        let articles: Vec<Article> = articles
            .into_iter()
            .map(|(path, source, at, title)| Article {
                title,
                ..article(&format!("https://a/{path}"), &source, at)
            })
            .collect();
        let bytes = Listing::encode(&articles, Flags::default());
        let listing = Listing::read(&bytes).unwrap();
        let times: Vec<i64> = listing.items().map(|item| item.published_at).collect();
        prop_assert!(times.is_sorted_by(|newer, older| newer >= older));
        let stories: std::collections::HashSet<String> = articles.iter().map(|one| story(&one.url)).collect();
        prop_assert_eq!(listing.len(), stories.len());
        let (count, urls) = view(&bytes, None, limit);
        prop_assert_eq!(count, limit.min(stories.len()));
        let items: Vec<String> = listing.items().take(limit).map(|item| item.url.to_owned()).collect();
        prop_assert_eq!(urls, items);
    }
}
