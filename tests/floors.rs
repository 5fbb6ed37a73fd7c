//! The house has floors: an import never points to a higher one, and no two files import each other.
//!
//! Reads `use` items as text, in the form that rustfmt gives them. Unit tests are left out, and so
//! is what a module and the modules inside it take from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex_lite::Regex;

type Module = Vec<String>;

/// The floor of a module directly under `src`. `None`: nobody has decided where it belongs.
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

/// Every `.rs` file under `root`, by its module path.
fn read(root: &Path, inside: Module, into: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut module = inside.clone();
        if path.is_dir() && name != "tests" {
            module.push(name);
            read(&path, module, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            module.extend((!["mod", "lib"].contains(&name.as_str())).then_some(name));
            into.insert(module, program(&fs::read_to_string(path).unwrap()));
        }
    }
}

/// A file without its unit tests and comments.
fn program(text: &str) -> String {
    let tests = Regex::new(r"(?m)^#\[cfg\(test\)\]\n(pub(\(\w+\))? )?mod \w+ \{").unwrap();
    let comment = Regex::new(r"//[^\n]*").unwrap();
    let text = tests.splitn(text, 2).next().unwrap();
    comment.replace_all(text, "").into_owned()
}

/// The paths that a program imports: `use a::{b, c::d};` gives `a::b` and `a::c::d`.
fn imports(text: &str) -> Vec<String> {
    let item = Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?use ([^;]+);").unwrap();
    let mut paths = Vec::new();
    for item in item.captures_iter(text) {
        let (mut groups, mut path) = (Vec::new(), String::new());
        for c in item[1].chars().chain([',']) {
            match c {
                '{' => groups.push(path.clone()),
                '}' | ',' => {
                    paths.push(path.split(" as ").next().unwrap().to_owned());
                    groups.truncate(groups.len() - usize::from(c == '}'));
                    path = groups.last().cloned().unwrap_or_default();
                }
                ' ' if path.is_empty() || path.ends_with(':') => {}
                '\n' => {}
                c => path.push(c),
            }
        }
    }
    paths
}

/// The module of `files` that a path names, seen from `here`.
fn target(path: &str, here: &[String], files: &BTreeMap<Module, String>) -> Option<Module> {
    let mut names = path.trim().split("::").peekable();
    let mut base = match names.peek()? {
        &"crate" | &"larder" => Vec::new(),
        &"super" | &"self" => here.to_vec(),
        _ => return None,
    };
    while let Some(name) = names.next_if(|name| ["crate", "larder", "super", "self"].contains(name))
    {
        base.truncate(base.len() - usize::from(name == "super"));
    }
    let depth = base.len();
    base.extend(names.map(str::to_owned));
    while base.len() > depth && !files.contains_key(&base) {
        base.pop();
    }
    (base.len() > depth).then_some(base)
}

/// The modules that a program names: all that it imports, and every path from the crate's root.
fn named(text: &str, here: &[String], files: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let inline = Regex::new(r"\bcrate::[\w:]+").unwrap();
    let inline = inline.find_iter(text).map(|path| path.as_str().to_owned());
    let paths = imports(text).into_iter().chain(inline);
    paths
        .filter_map(|path| target(&path, here, files))
        .collect()
}

/// What points up, and what knows HTTP below the floor that serves it.
fn upward(files: &BTreeMap<Module, String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (here, text) in files.iter().filter(|(here, _)| !here.is_empty()) {
        let own = floor(&here[0]);
        if own.is_none() {
            faults.push(format!("{here:?} has no floor"));
        }
        let named = named(text, here, files);
        for up in named.iter().filter(|to| floor(&to[0]) > own) {
            faults.push(format!("{here:?} imports {up:?} of a higher floor"));
        }
        let served = Regex::new(r"\b(actix\w*|tokio|tokio_util)::").unwrap();
        if own < floor("api") && served.is_match(text) {
            faults.push(format!("{here:?} knows neither actix nor tokio"));
        }
    }
    faults
}

/// The files that import each other, over however many others.
fn circles(files: &BTreeMap<Module, String>) -> Vec<&Module> {
    let edges = |here: &Module| {
        let paths = imports(files.get(here).map_or("", String::as_str));
        let found = paths.iter().filter_map(|path| target(path, here, files));
        let found: Vec<Module> = found
            .filter(|to| !to.starts_with(here) && !here.starts_with(to))
            .collect();
        found
    };
    let edges: BTreeMap<&Module, Vec<Module>> =
        files.keys().map(|here| (here, edges(here))).collect();
    let circular = |here: &&Module| {
        let (mut seen, mut ahead) = (BTreeSet::new(), edges[*here].clone());
        while let Some(next) = ahead.pop() {
            if seen.insert(next.clone()) {
                ahead.extend(edges[&next].iter().cloned());
            }
        }
        seen.contains(*here)
    };
    files.keys().filter(circular).collect()
}

fn tree(root: &str) -> BTreeMap<Module, String> {
    let mut files = BTreeMap::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(root),
        Vec::new(),
        &mut files,
    );
    assert!(files.len() > 5, "{root}: {files:?}");
    files
}

#[test]
fn every_import_points_down() {
    let faults = upward(&tree("src"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_points_up_and_what_is_circular_is_found() {
    let files = |texts: &[(&str, &str)]| -> BTreeMap<Module, String> {
        let module = |path: &str| path.split('/').map(str::to_owned).collect();
        let files = texts
            .iter()
            .map(|(path, text)| (module(path), program(text)));
        files.collect()
    };
    let found = |path: &str, text: &str| {
        upward(&files(&[
            (path, text),
            ("api", ""),
            ("api/server", ""),
            ("quantity", ""),
        ]))
        .len()
    };
    assert_eq!(found("database/rows", "use crate::api::Server;"), 1);
    assert_eq!(
        found("database/rows", "fn f() {\n    crate::api::serve()\n}"),
        1
    );
    assert_eq!(found("database/rows", "use super::super::api::Server;"), 1);
    assert_eq!(
        found(
            "source",
            "use crate::{\n    quantity::{rate, a},\n    api::{b, server},\n};"
        ),
        2
    );
    assert_eq!(found("attic", ""), 1);
    assert_eq!(found("config", "use actix_web::web;"), 1);
    assert_eq!(found("database", "    tokio::spawn(x);"), 1);
    assert_eq!(
        found(
            "database/rows",
            "use super::entry::Entry;\n//! see [`crate::api`]"
        ),
        0
    );
    assert_eq!(
        found("cli", "use crate::{api, quantity};\nuse actix_web::web;"),
        0
    );

    let circle = files(&[
        ("api/a", "use super::b::B;"),
        ("api/b", "use crate::{\n    c::C,\n};"),
        ("c", "pub(crate) use crate::api::a::{self as other, A};"),
        (
            "d",
            "use crate::c;\n#[cfg(test)]\nmod tests {\n    use crate::e::E;\n}",
        ),
        ("e", "use crate::d::D;"),
    ]);
    assert_eq!(circles(&circle).len(), 3, "{:?}", circles(&circle));
}
