//! The house has floors: an import only ever points to a lower one, or stays on its own.
//!
//! It reads the source as text, line by line in the form that rustfmt gives it, so that it also sees code that is not compiled.

use std::fs;
use std::path::{Path, PathBuf};

/// The floor of a folder or file directly under `src`. `None`: nobody has decided where it belongs.
fn floor(module: &str) -> Option<u32> {
    Some(match module {
        "quantity" | "template" | "worker" => 0,
        "database" => 1,
        "source" => 2,
        "resource" | "auth" => 3,
        "config" => 4,
        "api" => 5,
        "cli" | "main" => 6,
        _ => return None,
    })
}

/// What is wrong with one file, given by its path under `src`.
fn faults(path: &Path, text: &str) -> Vec<String> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let module = parts[0].trim_end_matches(".rs");
    // The map of the crate stands above all floors and holds nothing but their names.
    if module == "lib" {
        return Vec::new();
    }
    let Some(own) = floor(module) else {
        return vec![format!("{}: no floor is decided for it", path.display())];
    };
    let name = parts.last().unwrap();
    let depth = parts.len() - usize::from(*name == "mod.rs");

    let mut faults = Vec::new();
    for (number, module) in crate_paths(text, depth) {
        let place = format!("{}:{number}", path.display());
        match floor(&module) {
            None => faults.push(format!("{place}: `{module}` has no floor")),
            Some(floor) if floor > own => {
                faults.push(format!(
                    "{place}: floor {own} imports `{module}` of floor {floor}"
                ));
            }
            Some(_) => {}
        }
    }
    for (number, line) in code_lines(text) {
        let place = format!("{}:{number}", path.display());
        let served = ["actix", "tokio::", "tokio_util::"];
        if own <= 4 && served.iter().any(|name| mentions(line, name)) {
            faults.push(format!(
                "{place}: floor {own} knows neither actix nor tokio"
            ));
        }
    }
    faults
}

/// Whether a word of `line` begins with `name`.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(name)
        .any(|(at, _)| !inside_word(line, at))
}

/// Whether the character before `at` belongs to the same word.
fn inside_word(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    before.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The lines that are not comments alone, numbered from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Each module directly under the crate's root that a path names, with its line.
///
/// `depth` is how many modules deep the file is: that many `super` lead to the root.
fn crate_paths(text: &str, depth: usize) -> Vec<(usize, String)> {
    // Comments become empty lines, so that a group of names over several lines can be read in one piece.
    let code: Vec<&str> = text
        .lines()
        .map(|line| {
            if line.trim_start().starts_with("//") {
                ""
            } else {
                line
            }
        })
        .collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    let mut add = |at: usize, rest: &str| {
        let line = code[..at].matches('\n').count() + 1;
        found.extend(first_names(rest).into_iter().map(|name| (line, name)));
    };
    for root in ["crate::", "larder::"] {
        for (at, _) in code.match_indices(root) {
            if !inside_word(&code, at) {
                add(at, &code[at + root.len()..]);
            }
        }
    }
    for (at, _) in code.match_indices("super::") {
        // Only the first of a chain.
        if inside_word(&code, at) || code[..at].ends_with("super::") {
            continue;
        }
        let rest = code[at..].trim_start_matches("super::");
        let levels = (code.len() - at - rest.len()) / "super::".len();
        // At the left margin a `use` is the file's own; an indented one may stand in a module inside it, one level deeper.
        let line_start = code[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let inner = usize::from(code[line_start..].starts_with(' '));
        if levels >= depth + inner {
            add(at, rest);
        }
    }
    found
}

/// The first name of each path in what follows `crate::`: `a::b`, or a group `{a, b::c, d::{e, f}}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return Vec::from([name(rest)]);
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_import_points_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.contains(&src.join("database/mod.rs")), "{files:?}");
    let faults: Vec<String> = files
        .iter()
        .flat_map(|file| {
            faults(
                file.strip_prefix(&src).unwrap(),
                &fs::read_to_string(file).unwrap(),
            )
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_points_up_is_found() {
    let found = |path: &str, text: &str| faults(Path::new(path), text).len();
    assert_eq!(found("database/rows.rs", "use crate::api::Server;"), 1);
    assert_eq!(
        found("database/rows.rs", "fn f() {\n    crate::config::load()\n}"),
        1
    );
    assert_eq!(
        found(
            "source/http.rs",
            "use crate::{\n    quantity::{rate, api},\n    config::Config,\n};"
        ),
        1
    );
    assert_eq!(
        found("database/rows.rs", "use super::super::api::Server;"),
        1
    );
    assert_eq!(found("database/mod.rs", "use super::api::Server;"), 1);
    assert_eq!(
        found(
            "database/rows.rs",
            "mod tests {\n    use super::super::super::api::Server;\n}"
        ),
        1
    );
    assert_eq!(found("api/mod.rs", "use larder::cli::run;"), 1);
    assert_eq!(found("attic/mod.rs", ""), 1);
    assert_eq!(found("database/mod.rs", "use crate::attic::Box;"), 1);
    assert_eq!(found("config/mod.rs", "use actix_web::web;"), 1);
    assert_eq!(found("auth/mod.rs", "use actix_web::http::header;"), 1);
    assert_eq!(found("auth/mod.rs", "use crate::api::Api;"), 1);
    assert_eq!(found("database/mod.rs", "    tokio::spawn(x);"), 1);
}

#[test]
fn what_points_down_is_allowed() {
    let found = |path: &str, text: &str| faults(Path::new(path), text);
    let none: [String; 0] = [];
    assert_eq!(
        found(
            "api/mod.rs",
            "use actix_web::web;\nuse crate::{quantity, resource};"
        ),
        none
    );
    assert_eq!(
        found(
            "database/rows.rs",
            "use super::entry::Entry;\n//! see [`crate::api`]"
        ),
        none
    );
    assert_eq!(
        found(
            "database/rows.rs",
            "mod tests {\n    use super::super::entry::Entry;\n}"
        ),
        none
    );
    assert_eq!(
        found("quantity.rs", "mod tests {\n    use super::*;\n}"),
        none
    );
    assert_eq!(
        found(
            "database/mod.rs",
            "use tokio_postgres_rustls::MakeRustlsConnect;"
        ),
        none
    );
    assert_eq!(
        found("main.rs", "use larder::cli;\nlet x = my_crate::api::x;"),
        none
    );
    assert_eq!(found("lib.rs", "pub mod api;"), none);
}
