//! The blocks and the commands that no test of this folder runs, each with the reason.

use super::blocks::all;

/// What happens in place of a block or a command.
#[derive(Clone, Copy, Debug)]
pub enum Instead {
    /// Nothing, for this reason.
    Nothing(&'static str),
    /// This command starts a server, for this reason.
    Command(&'static str, &'static str),
}

use Instead::{Command, Nothing};

/// The document, the beginning of the block or of the command, and what happens instead.
const REASONS: &[(&str, &str, Instead)] = &[
    (
        "README.md",
        "scripts/test",
        Nothing("it runs this very test"),
    ),
    (
        "README.md",
        "docker compose up --build",
        Command(
            "LARDER_ADMIN_KEY=an-admin-key-only-for-trying larder serve",
            "it needs Docker; one larder with the key of compose.yaml stands in",
        ),
    ),
    (
        "docs/metrics.md",
        "scrape_configs:",
        Nothing("it is a configuration of Prometheus, with hosts that do not exist"),
    ),
    (
        "docs/operations.md",
        "user larder on >PASSWORD",
        Nothing("tests/redis_states.rs gives a real Redis this user"),
    ),
];

/// What happens instead of this block or this command of `document`. `None`: it is run.
pub fn reason(document: &str, text: &str) -> Option<Instead> {
    let of_text = |(of, beginning, _): &&(&str, &str, Instead)| {
        *of == document && text.starts_with(beginning)
    };
    let found = REASONS.iter().find(of_text);
    found.map(|(_, _, instead)| *instead)
}

#[test]
fn every_reason_is_for_something_that_is_there() {
    let blocks = all();
    for (document, beginning, instead) in REASONS {
        let mut texts = blocks
            .iter()
            .filter(|block| block.document == *document)
            .flat_map(|block| block.text.lines());
        let is_there = texts.any(|line| line.trim_start_matches("$ ").starts_with(beginning));
        assert!(is_there, "{document}: nothing begins with {beginning}");
        let (Nothing(why) | Command(_, why)) = instead;
        assert!(!why.is_empty());
    }
}
