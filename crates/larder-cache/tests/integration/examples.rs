//! The examples, as a reader of the documentation would run them.

use std::path::PathBuf;
use std::process::Command;

use testkit::client::{Answer, Call};
use testkit::process::Process;
use testkit::redis::RedisServer;
use testkit::{SOON, free_address, until, until_some};

/// Builds the example of this name and returns its path.
///
/// `cargo test --examples` builds it under another name, and `cargo test --test integration` not at
/// all. Building with the features of the whole workspace reuses what is built already.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--offline",
            "--workspace",
            "--example",
            name,
        ])
        .arg("--target-dir")
        .arg(folder.parent().unwrap());
    // With Cargo's variables for this test, the build would start from scratch.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_") && name != "CARGO_HOME" {
            build.env_remove(name);
        }
    }
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let built = build.output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let path = folder.join("examples").join(name);
    assert!(path.exists(), "{} is not built", path.display());
    path
}

#[test]
fn embedded_loads_once_for_eight_threads() {
    let redis = RedisServer::start();
    let run = || {
        let mut command = Command::new(example("embedded"));
        command.env_clear().env("REDIS_URL", redis.url());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // On a busy machine trust may lapse for a moment. Then Redis answers instead of memory,
        // still without a load.
        let said = String::from_utf8(output.stdout).unwrap();
        said.replace("RedisHit", "MemoryHit")
    };
    let said = run();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "8 threads asked, 1 load was made",
            "then: 12 degrees, MemoryHit",
            "after the change: 7 degrees, Loaded",
            "known without a load: 1 of 2",
            "Atlantis: None, Loaded",
            "Atlantis: None, MemoryHit",
            "Nowhere: no station",
            "4 loads, 1 failed",
        ]
    );
    // Another process finds in Redis what the first one left there.
    let again = run();
    assert!(again.starts_with("8 threads asked, 0 load"), "{again}");
    assert!(again.contains("then: 7 degrees"), "{again}");
}

#[test]
fn actix_answers_from_memory_and_forgets() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let start = || {
        let at = free_address();
        let mut command = Command::new(example("actix"));
        let command_url = redis.url();
        command
            .env_clear()
            .env("REDIS_URL", command_url)
            .arg(at.to_string());
        let log = folder.path().join(at.port().to_string());
        let process = Process::spawn(command, &log, "cargo builds it");
        (at, process)
    };
    let (first, _one) = start();
    let (second, _two) = start();
    let get = |at, path: &str| -> Answer {
        until_some(SOON, "it answers", || {
            Call::new(at, "GET", path).try_send().ok()
        })
    };
    let outcome = |answer: &Answer| answer.the("X-Outcome").to_owned();
    let counted = get(first, "/primes/20000").expect(200);
    assert_eq!(
        (counted.text().as_str(), outcome(&counted).as_str()),
        ("2262\n", "Loaded")
    );
    // A value loaded before Redis was found is loaded again, once.
    until(SOON, "it answers from memory", || {
        let again = get(first, "/primes/20000").expect(200);
        assert_eq!(again.text(), "2262\n");
        outcome(&again) == "MemoryHit"
    });
    until(SOON, "the other one trusts what it hears", || {
        get(second, "/primes/20000").expect(200);
        outcome(&get(second, "/primes/20000")) == "MemoryHit"
    });
    get(first, "/primes/2000000").expect(502);
    Call::new(first, "POST", "/forget").send().expect(204);
    assert_eq!(outcome(&get(first, "/primes/20000")), "Loaded");
    until(SOON, "the other one has heard", || {
        outcome(&get(second, "/primes/20000")) == "RedisHit"
    });
}
