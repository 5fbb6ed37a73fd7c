//! An import never points to a higher floor, and no two files import each other.
//!
//! Reads the imports as text, as rustfmt formats them. Ignores unit tests, and imports between a
//! module and the modules inside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex_lite::Regex;

/// The text of each module, by its path from the crate's root: `api::edge::server`.
type Modules = BTreeMap<String, String>;

/// The floor of a module directly under `src`. `None`: it has no floor yet.
fn floor(module: &str) -> Option<u32> {
    Some(match module.split("::").next()? {
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

fn read(root: &Path, folder: &Path, modules: &mut Modules) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let place = path.strip_prefix(root).unwrap().with_extension("");
        let name = place.to_str().unwrap().replace('/', "::");
        let name = name.strip_suffix("::mod").unwrap_or(&name);
        if name == "lib" || name.ends_with("tests") {
            continue;
        } else if path.is_dir() {
            read(root, &path, modules);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            modules.insert(name.to_owned(), fs::read_to_string(path).unwrap());
        }
    }
}

/// The paths in `use` items, and the others that begin at the root: `use a::{b, c::d};` gives
/// `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let tests = Regex::new(r"(?m)^#\[cfg\(test\)\]\n(pub(\(\w+\))? )?mod \w+ \{").unwrap();
    let text = tests.splitn(text, 2).next().unwrap();
    let text = Regex::new(r"//[^\n]*").unwrap().replace_all(text, "");
    let inline = Regex::new(r"\b(crate::|tokio::|actix)[\w:]+").unwrap();
    let inline = inline.find_iter(&text).map(|path| path.as_str().to_owned());
    let mut paths: Vec<String> = inline.collect();
    let items = Regex::new(r"(?m)^\s*(?:pub(?:\(\w+\))? )?use ([^;]+);").unwrap();
    for item in items.captures_iter(&text) {
        let (mut path, mut groups) = (String::new(), Vec::new());
        for c in item[1]
            .replace(" as ", "::")
            .split_whitespace()
            .flat_map(str::chars)
            .chain([','])
        {
            match c {
                '{' => groups.push(path.clone()),
                '}' | ',' => {
                    paths.push(path);
                    groups.truncate(groups.len() - usize::from(c == '}'));
                    path = groups.last().cloned().unwrap_or_default();
                }
                c => path.push(c),
            }
        }
    }
    paths
}

fn is_within(path: &str, module: &str) -> bool {
    let rest = path.strip_prefix(module);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The modules that another one imports.
fn imports<'m>(modules: &'m Modules, here: &str) -> BTreeSet<&'m str> {
    let target = |path: String| {
        let (mut base, mut rest) = (here, path.as_str());
        if let Some(from_root) = rest
            .strip_prefix("crate::")
            .or(rest.strip_prefix("larder::"))
        {
            (base, rest) = ("", from_root);
        } else if !rest.starts_with("super::") {
            return None;
        }
        while let Some(above) = rest.strip_prefix("super::") {
            (base, rest) = (base.rsplit_once("::").map_or("", |(base, _)| base), above);
        }
        let full = format!("{base}::{rest}");
        let full = full.trim_start_matches("::");
        let found = modules.keys().filter(|module| is_within(full, module));
        let found = found.max_by_key(|module| module.len())?;
        (!is_within(here, found) && !is_within(found, here)).then_some(found.as_str())
    };
    paths(&modules[here])
        .into_iter()
        .filter_map(target)
        .collect()
}

/// Imports that point up, and modules below the HTTP floor that know HTTP.
fn upward(modules: &Modules) -> Vec<String> {
    let mut faults = Vec::new();
    for (here, text) in modules {
        let own = floor(here);
        let up = imports(modules, here)
            .into_iter()
            .filter(|to| floor(to) > own);
        faults.extend(up.map(|to| format!("{here} imports {to} of a higher floor")));
        let served = |path: &String| path.starts_with("actix") || path.starts_with("tokio::");
        if own.is_none() {
            faults.push(format!("{here} has no floor"));
        } else if own < floor("api") && paths(text).iter().any(served) {
            faults.push(format!("{here} knows neither actix nor tokio"));
        }
    }
    faults
}

/// The modules that import each other, directly or through others.
fn circles(modules: &Modules) -> Vec<&str> {
    let names = modules.keys().map(String::as_str);
    let edges: BTreeMap<&str, _> = names.map(|here| (here, imports(modules, here))).collect();
    let circular = |here: &&str| {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![*here]);
        while let Some(next) = ahead.pop() {
            ahead.extend(edges[next].iter().filter(|to| seen.insert(**to)));
        }
        seen.contains(here)
    };
    edges.keys().copied().filter(circular).collect()
}

#[test]
fn every_import_points_down() {
    let (mut modules, src) = (
        Modules::new(),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
    );
    read(&src, &src, &mut modules);
    assert!(modules.contains_key("database"), "{:?}", modules.keys());
    assert!(
        upward(&modules).is_empty(),
        "{}",
        upward(&modules).join("\n")
    );
}

#[test]
fn what_points_up_and_what_is_circular_is_found() {
    let modules = |texts: &[(&str, &str)]| -> Modules {
        texts
            .iter()
            .map(|(path, text)| ((*path).into(), (*text).into()))
            .collect()
    };
    let found = |path: &str, text: &str| {
        upward(&modules(&[
            (path, text),
            ("api", ""),
            ("api::server", ""),
            ("quantity", ""),
        ]))
        .len()
    };
    let up = [
        ("database::rows", "use crate::api::Server;"),
        ("database::rows", "    crate::api::serve()"),
        ("database::rows", "use super::super::api::Server;"),
        ("source", "use crate::{\n    a::{b, c},\n    api::d,\n};"),
        ("attic", ""),
        ("config", "use actix_web::web;"),
        ("database", "    tokio::spawn(x);"),
    ];
    for (path, text) in up {
        assert_eq!(found(path, text), 1, "{path}: {text}");
    }
    let entry = "use super::entry::Entry;\n//! see [`crate::api`]";
    assert_eq!(found("database::rows", entry), 0);
    assert_eq!(found("cli", "use crate::api;\nuse actix_web::web;"), 0);

    let circle = modules(&[
        ("api::a", "use super::b::B;"),
        ("api::b", "use crate::{\n    c::C,\n};"),
        ("c", "pub(crate) use crate::api::a::{self as other, A};"),
        (
            "d",
            "use crate::c;\n#[cfg(test)]\nmod tests {\n    use crate::e::E;\n}",
        ),
        ("e", "use crate::d::D;"),
    ]);
    assert_eq!(circles(&circle), ["api::a", "api::b", "c"]);
}

#[test]
fn no_two_files_import_each_other() {
    for root in [
        "src",
        "crates/larder-cache/src",
        "crates/testkit/src",
        "benches",
    ] {
        let (mut modules, root) = (
            Modules::new(),
            Path::new(env!("CARGO_MANIFEST_DIR")).join(root),
        );
        read(&root, &root, &mut modules);
        let circles = circles(&modules);
        assert!(
            circles.is_empty(),
            "{}: {}",
            root.display(),
            circles.join(", ")
        );
    }
}
