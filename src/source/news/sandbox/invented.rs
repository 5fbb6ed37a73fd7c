//! Invented news for the sandbox.
//!
//! Promise: the stories of an hour depend on the desk, the category and the hour only. So all
//! sandboxes have the same news, and new news every hour. Hosts end in `.example` (RFC 2606), so no
//! link leads to a real page, and nothing is attributed to a real newspaper.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use xxhash_rust::xxh3::xxh3_64;

/// The publisher of stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Desk {
    /// Many outlets, as in NewsAPI.
    Wire,
    /// One newspaper, as in The Guardian's API.
    Paper,
}

/// One story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) category: &'static str,
    /// The newspaper's section.
    pub(crate) section: &'static str,
    pub(crate) outlet: Outlet,
    pub(crate) title: String,
    pub(crate) summary: String,
    pub(crate) author: &'static str,
    pub(crate) url: String,
    pub(crate) image: String,
    pub(crate) published_at: Timestamp,
    /// A random number for anything else that differs between stories.
    pub(crate) seed: u64,
}

/// The publisher of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outlet {
    /// Some have no id, as in NewsAPI.
    pub(crate) id: Option<&'static str>,
    pub(crate) name: &'static str,
    pub(crate) host: &'static str,
}

const fn outlet(id: Option<&'static str>, name: &'static str, host: &'static str) -> Outlet {
    Outlet { id, name, host }
}

const PAPER: Outlet = outlet(None, "Guardian", "guardian.example");

pub(crate) const OUTLETS: [Outlet; 6] = [
    outlet(Some("daily-ledger"), "Daily Ledger", "daily-ledger.example"),
    outlet(Some("harbour-post"), "Harbour Post", "harbour-post.example"),
    outlet(
        Some("northern-wire"),
        "Northern Wire",
        "northern-wire.example",
    ),
    outlet(Some("the-signal"), "The Signal", "the-signal.example"),
    outlet(None, "Evening Courier", "evening-courier.example"),
    outlet(None, "Fieldnotes.example", "fieldnotes.example"),
];

/// A category: the newspaper's sections for it, and the parts of its headlines.
struct Beat {
    category: &'static str,
    sections: &'static [&'static str],
    subjects: [&'static str; 6],
    events: [&'static str; 6],
}

const BEATS: [Beat; 7] = [
    Beat {
        category: "business",
        sections: &["business"],
        subjects: [
            "Harbour Bank",
            "Northline Rail",
            "Veltra Foods",
            "Independent shops",
            "Steelmaker Orrin",
            "Two pension funds",
        ],
        events: [
            "agreed a merger in {place}",
            "to open a second plant near {place}",
            "warned of slower growth in {place}",
            "posted record sales in {place}",
            "settled a pay dispute in {place}",
            "to sell offices in {place}",
        ],
    },
    Beat {
        category: "entertainment",
        sections: &["culture", "film", "music", "tv-and-radio", "books", "stage"],
        subjects: [
            "A debut novelist",
            "The Lantern Quartet",
            "Director Mara Ellwood",
            "A cult radio drama",
            "The Tide festival",
            "Puppeteers",
        ],
        events: [
            "won the audience prize in {place}",
            "to return with a show about {place}",
            "sold out three nights in {place}",
            "found a lost recording in {place}",
            "to film a sequel in {place}",
            "moved the premiere to {place}",
        ],
    },
    Beat {
        category: "general",
        sections: &["world", "uk-news", "us-news"],
        subjects: [
            "Ministers",
            "Flood engineers",
            "Volunteers",
            "The coastguard",
            "City councillors",
            "Election observers",
        ],
        events: [
            "reached an agreement in {place}",
            "reopened the bridge at {place}",
            "called for calm in {place}",
            "to publish a long-awaited report on {place}",
            "praised the night's work in {place}",
            "voted to rebuild the market of {place}",
        ],
    },
    Beat {
        category: "health",
        sections: &["society", "lifeandstyle"],
        subjects: [
            "Nurses",
            "A ten-year study",
            "School cooks",
            "Sleep researchers",
            "A mobile clinic",
            "Pharmacists",
        ],
        events: [
            "cut waiting times in {place}",
            "to trial evening appointments in {place}",
            "linked quiet streets to better sleep in {place}",
            "reported fewer winter infections in {place}",
            "to screen a thousand volunteers in {place}",
            "changed what people eat in {place}",
        ],
    },
    Beat {
        category: "science",
        sections: &["science"],
        subjects: [
            "Astronomers",
            "A deep-sea survey",
            "Botanists",
            "A student's telescope",
            "Geologists",
            "The polar station",
        ],
        events: [
            "found a new species off {place}",
            "dated the oldest rocks of {place}",
            "to map the sea floor near {place}",
            "recorded a rare eclipse over {place}",
            "explained the lights above {place}",
            "measured the fastest ice near {place}",
        ],
    },
    Beat {
        category: "sports",
        sections: &["sport", "football"],
        subjects: [
            "Rowers",
            "The under-21s",
            "Captain Ines Okafor",
            "Underdogs United",
            "A teenage sprinter",
            "The home side",
        ],
        events: [
            "beat the champions in {place}",
            "to play the final in {place}",
            "held on for a draw in {place}",
            "broke a forty-year record in {place}",
            "signed a new coach in {place}",
            "lost in extra time at {place}",
        ],
    },
    Beat {
        category: "technology",
        sections: &["technology"],
        subjects: [
            "Open-source maintainers",
            "Chipmaker Corvid",
            "A four-person startup",
            "Browser makers",
            "Network operators",
            "Librarians",
        ],
        events: [
            "halved the energy use of servers in {place}",
            "to test a quieter drone over {place}",
            "fixed a flaw found in {place}",
            "opened a repair school in {place}",
            "released the maps of {place} for free",
            "restored the network of {place} in a day",
        ],
    },
];

const PLACES: [&str; 10] = [
    "Eastmere",
    "Port Calder",
    "Brightwater",
    "the Lowfen",
    "Saint Orla",
    "Kestrel Bay",
    "Ashdown Cross",
    "Tarn Hill",
    "Vale & Marsh",
    "Old Quay",
];
const AUTHORS: [&str; 8] = [
    "Ada Merrin",
    "Jonas Field",
    "Priya Castell",
    "Tomás Wren",
    "Lucy Abara and Jonas Field",
    "Noor Halloran",
    "Ben Ashgrove",
    "Mei Tanner",
];
const FOLLOW_UPS: [&str; 6] = [
    "Those involved say that it took months of quiet work.",
    "Neighbours had waited for it since the spring.",
    "Experts call it a small step with large consequences.",
    "A decision on what comes next is expected within weeks.",
    "It is the third time in as many years.",
    "Not everyone is convinced, and a review is under way.",
];

/// Stories of one hour in one category. On the wire, one of them is the newspaper's story, with a
/// tracking parameter in its URL.
const PER_HOUR: u64 = 4;
/// How many hours the news goes back.
const HOURS: i64 = 36;

/// All categories.
pub(crate) fn categories() -> impl Iterator<Item = &'static str> {
    BEATS.iter().map(|beat| beat.category)
}

/// The news of a category at the time `now`, newest first. The newest is of the last full hour. An
/// unknown category has no news.
pub(crate) fn stories(desk: Desk, category: &str, now: Timestamp) -> Vec<Story> {
    let hour = now.as_second().div_euclid(3600);
    let beat = BEATS.iter().find(|beat| beat.category == category);
    let hours = beat
        .into_iter()
        .flat_map(|beat| (hour - HOURS..hour).rev().map(move |hour| (beat, hour)));
    hours
        .flat_map(|(beat, hour)| {
            (0..PER_HOUR)
                .rev()
                .filter_map(move |slot| story(desk, beat, hour, slot))
        })
        .collect()
}

fn story(desk: Desk, beat: &Beat, hour: i64, slot: u64) -> Option<Story> {
    let seed = xxh3_64(format!("{desk:?} {} {hour} {slot}", beat.category).as_bytes());
    // Each choice uses other digits of the seed, so choices are independent.
    let pick = |salt: u64, of: usize| (seed.rotate_left(7 * salt as u32) % of as u64) as usize;
    if desk == Desk::Wire && slot == 1 {
        let copied = story(Desk::Paper, beat, hour, slot)?;
        return Some(Story {
            url: format!("{}?utm_source=wire", copied.url),
            ..copied
        });
    }
    let outlet = match desk {
        Desk::Wire => OUTLETS[pick(1, OUTLETS.len())],
        Desk::Paper => PAPER,
    };
    let place = PLACES[pick(2, PLACES.len())];
    let subject = beat.subjects[pick(3, beat.subjects.len())];
    let event = beat.events[pick(4, beat.events.len())].replace("{place}", place);
    let title = format!("{subject} {event}");
    let section = beat.sections[pick(5, beat.sections.len())];
    // Each slot is a quarter of the hour, so the stories of an hour are in the order of slots.
    let second = hour * 3600 + (slot * 900 + seed % 900) as i64;
    let published_at = Timestamp::from_second(second).ok()?;
    let date = published_at
        .to_zoned(TimeZone::UTC)
        .strftime("%Y/%m/%d")
        .to_string();
    Some(Story {
        category: beat.category,
        section,
        outlet,
        summary: format!("{title}. {}", FOLLOW_UPS[pick(6, FOLLOW_UPS.len())]),
        author: AUTHORS[pick(7, AUTHORS.len())],
        url: format!(
            "https://{}/{section}/{date}/{}-{:04x}",
            outlet.host,
            slug(&title),
            seed & 0xffff
        ),
        image: format!("https://images.example/{:08x}.jpg", seed >> 32),
        title,
        published_at,
        seed,
    })
}

fn slug(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn news_is_the_same_all_hour_and_new_the_next() {
        for desk in [Desk::Wire, Desk::Paper] {
            for category in categories() {
                let first = stories(desk, category, at("2026-03-01T10:00:00Z"));
                assert_eq!(first, stories(desk, category, at("2026-03-01T10:59:59Z")));
                let next = stories(desk, category, at("2026-03-01T11:00:00Z"));
                assert_ne!(first[0], next[0]);
                // Yesterday's news do not change.
                assert_eq!(
                    first[..100],
                    next[PER_HOUR as usize..100 + PER_HOUR as usize]
                );
            }
        }
        assert!(stories(Desk::Wire, "gossip", at("2026-03-01T10:00:00Z")).is_empty());
    }

    #[test]
    fn news_is_plenty_past_ordered_and_each_story_has_its_own_url() {
        let now = at("2026-03-01T10:20:00Z");
        let mut urls = HashSet::new();
        for category in categories() {
            let news = stories(Desk::Wire, category, now);
            assert!(news.len() > 100);
            assert!(news.is_sorted_by(|newer, older| newer.published_at > older.published_at));
            assert!(news[0].published_at < now);
            for story in news {
                assert!(story.url.split('/').nth(2).unwrap().ends_with(".example"));
                assert!(urls.insert(story.url.clone()), "{}", story.url);
            }
        }
    }

    #[test]
    fn some_stories_are_told_by_both() {
        let now = at("2026-03-01T10:20:00Z");
        let paper: HashSet<String> = stories(Desk::Paper, "science", now)
            .into_iter()
            .map(|story| story.url)
            .collect();
        let wire = stories(Desk::Wire, "science", now);
        let both = wire
            .iter()
            .filter(|story| paper.contains(story.url.trim_end_matches("?utm_source=wire")));
        assert_eq!(both.count(), HOURS as usize);
    }
}
