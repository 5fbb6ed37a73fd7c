//! The pages in the binary: `/docs`, its files, and `/`.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use regex_lite::Regex;

use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::{SOON, until};

/// All files of the page, compressed. A page over a slow line stays quick below this.
const MOST_BYTES: usize = 300 * 1000;

/// Without resources.
fn empty() -> Larder {
    Larder::start(&LarderOptions::new("[server]\n"))
}

fn get(larder: &Larder, target: &str) -> Answer {
    larder.call("GET", target).send().expect(200)
}

/// A resource at `/` that anyone may read.
const AT_ROOT: &str = "[resource.root]\npath = \"/\"\nsource = { sql = \"root\" }\npublic = true\n\
                       ttl = { memory = \"1m\", redis = \"1m\" }\n";

fn with_root_statement(config: &str) -> LarderOptions {
    LarderOptions::new(config).statement("root", "SELECT 'declared' AS root")
}

/// The page and every file that it loads, by path. Follows links and imports as a browser does.
fn files(larder: &Larder) -> BTreeMap<String, Answer> {
    let reference = Regex::new(r##"(?:src|href)="([^"#]+)"|from '\./([^']+)'"##).unwrap();
    let mut found = BTreeMap::new();
    let mut wanted = vec!["/docs".to_owned()];
    while let Some(path) = wanted.pop() {
        if found.contains_key(&path) || path == "/openapi.json" {
            continue;
        }
        let answer = get(larder, &path);
        for captured in reference.captures_iter(&answer.text()) {
            wanted.push(match (captured.get(1), captured.get(2)) {
                // Links of the page are relative to `/docs`, imports to the script.
                (Some(link), _) => format!("/{}", link.as_str()),
                (_, Some(import)) => format!("/docs/{}", import.as_str()),
                _ => unreachable!("one of both matches"),
            });
        }
        found.insert(path, answer);
    }
    found
}

#[test]
fn the_page_and_its_files_are_served_to_anyone() {
    let larder = empty();
    let files = files(&larder);
    assert!(files.len() > 5, "{:?}", files.keys());
    for (path, answer) in &files {
        let expected = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.the("Content-Type"), expected, "{path}");
        let head = larder.call("HEAD", path).send().expect(200);
        for name in ["Content-Type", "Content-Length", "ETag", "Cache-Control"] {
            assert_eq!(head.the(name), answer.the(name), "{path}");
        }
        let refused = larder.call("POST", path).send();
        refused.problem(405);
        assert_eq!(refused.the("Allow"), "GET, HEAD", "{path}");
    }
    for path in ["/docs/none.js", "/docs/docs.js/x", "/docsx", "/docs/..%2f"] {
        larder.call("GET", path).send().problem(404);
    }
    let folder = larder.call("GET", "/docs/").send().expect(308);
    assert_eq!(folder.the("Location"), "../docs");
}

#[test]
fn a_page_may_load_and_call_its_own_server_only() {
    let larder = empty();
    let mut files = files(&larder);
    files.insert("/".to_owned(), get(&larder, "/"));
    for (path, answer) in &files {
        let policy = answer.the("Content-Security-Policy");
        let mut directives: Vec<_> = policy.split("; ").collect();
        assert_eq!(directives.remove(0), "default-src 'none'", "{path}");
        for directive in directives {
            let (name, sources) = directive.split_once(' ').unwrap();
            let allowed = match name {
                "script-src" | "style-src" | "img-src" | "connect-src" => "'self'",
                "base-uri" | "form-action" | "frame-ancestors" | "trusted-types" => "'none'",
                "require-trusted-types-for" => "'script'",
                _ => panic!("{path}: {directive}"),
            };
            assert_eq!(sources, allowed, "{path}: {directive}");
        }
        assert!(policy.contains("form-action 'none'; frame-ancestors 'none'"));
        assert_eq!(answer.the("X-Content-Type-Options"), "nosniff", "{path}");
        assert_eq!(answer.the("Referrer-Policy"), "no-referrer", "{path}");

        let text = answer
            .text()
            .replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        // The second half finds "//host" in a text or an attribute, and no comment.
        let elsewhere = Regex::new(r#"(?i)\b(?:https?|wss?|ftp):|["'`(=]//"#).unwrap();
        assert!(!elsewhere.is_match(&text), "{path} names another host");
        // The policy forbids these. Here the mistake is found without a browser.
        let inline = Regex::new(r#"<style|\sstyle=|\son\w+="|<script>|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"#).unwrap();
        assert!(
            !inline.is_match(&text),
            "{path} has {:?}",
            inline.find(&text)
        );
    }
}

#[test]
fn the_files_are_small_and_compressed_for_who_takes_it() {
    let larder = empty();
    let mut total = 0;
    for (path, plain) in files(&larder) {
        assert_eq!(plain.header("Content-Encoding"), None, "{path}");
        assert_eq!(plain.the("Vary"), "Accept-Encoding", "{path}");
        let asked = larder
            .call("GET", &path)
            .header("Accept-Encoding", "br, gzip;q=0.5");
        let packed = asked.send().expect(200);
        assert_eq!(packed.the("Content-Encoding"), "gzip", "{path}");
        assert_ne!(packed.the("ETag"), plain.the("ETag"), "other bytes: {path}");
        total += packed.body.len();
        let mut unpacked = Vec::new();
        let mut decoder = GzDecoder::new(packed.body.as_slice());
        decoder.read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain.body, "{path}");
        let refused = larder
            .call("GET", &path)
            .header("Accept-Encoding", "gzip;q=0");
        assert_eq!(refused.send().expect(200).body, plain.body, "{path}");
    }
    assert!(total < MOST_BYTES, "{total} bytes");
}

#[test]
fn a_browser_asks_whether_its_copy_is_current() {
    let larder = empty();
    for path in ["/docs", "/docs/docs.js", "/"] {
        let plain = get(&larder, path);
        assert_eq!(plain.the("Cache-Control"), "no-cache", "{path}");
        for (coding, tag) in [
            ("identity", plain.the("ETag").to_owned()),
            ("gzip", {
                let asked = larder.call("GET", path).header("Accept-Encoding", "gzip");
                asked.send().expect(200).the("ETag").to_owned()
            }),
        ] {
            let asked = larder.call("GET", path).header("Accept-Encoding", coding);
            let asked = asked.header("If-None-Match", &format!("\"other\", {tag}"));
            let unchanged = asked.send().expect(304);
            assert_eq!(unchanged.the("ETag"), tag, "{path}");
            assert_eq!(unchanged.the("Vary"), plain.the("Vary"), "{path}");
            assert!(unchanged.body.is_empty(), "{path}");
        }
    }
}

#[test]
fn the_root_leads_to_the_rest_as_a_page_or_as_json() {
    let larder = empty();
    let ask = |accept: &str| {
        let answer = larder.call("GET", "/").header("Accept", accept).send();
        let answer = answer.expect(200);
        assert!(answer.the("Vary").starts_with("Accept"), "{answer}");
        let is_json = answer.the("Content-Type") == "application/json";
        assert!(is_json || answer.the("Content-Type").starts_with("text/html"));
        (is_json, answer)
    };
    for (accept, json) in [
        ("*/*", false),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            false,
        ),
        ("text/html;q=0.5, application/json", true),
        ("application/json;q=0.5, text/html", false),
        ("application/json", true),
        ("application/json, text/plain, */*", true),
        ("application/*", true),
        ("application/json;q=0, */*", false),
        ("image/png", false),
        ("not a type", false),
    ] {
        assert_eq!(ask(accept).0, json, "{accept}");
    }
    assert!(get(&larder, "/").text().starts_with("<!doctype html>"));

    let page = ask("text/html").1.text();
    let links = ask("application/json").1.json()["links"].clone();
    let links: Vec<&str> = links
        .as_object()
        .unwrap()
        .values()
        .map(|link| link.as_str().unwrap())
        .collect();
    for path in ["/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"] {
        assert!(links.contains(&path), "{links:?}");
        assert!(page.contains(&format!("href=\"{}\"", &path[1..])), "{path}");
        let there = larder.call("GET", path).key(ADMIN_KEY).send();
        assert_eq!(there.status, 200, "{path}: {there}");
    }

    for accept in ["text/html", "application/json"] {
        let head = larder
            .call("HEAD", "/")
            .header("Accept", accept)
            .send()
            .expect(200);
        let body = ask(accept).1.body;
        assert_eq!(head.the("Content-Length"), body.len().to_string());
    }
    let refused = larder.call("PUT", "/").send();
    refused.problem(405);
    assert_eq!(refused.the("Allow"), "GET, HEAD");
}

#[test]
fn a_resource_may_have_the_root() {
    let larder = Larder::start(&with_root_statement(AT_ROOT));
    for accept in ["text/html", "application/json", "*/*"] {
        let answer = larder
            .call("GET", "/")
            .header("Accept", accept)
            .send()
            .expect(200);
        assert_eq!(answer.text(), r#"{"root":"declared"}"#);
    }
    get(&larder, "/docs");
}

#[test]
fn a_reload_gives_and_takes_the_root() {
    let larder = Larder::start(&with_root_statement("[server]\n"));
    let page = get(&larder, "/").text();
    larder.reload(AT_ROOT);
    until(SOON, "the resource has it", || {
        get(&larder, "/").text() == r#"{"root":"declared"}"#
    });
    get(&larder, "/docs");
    larder.reload("[server]\n");
    until(SOON, "the page is back", || {
        get(&larder, "/").text() == page
    });
}
