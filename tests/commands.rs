//! The commands, as a shell or a container runs them: what they print, and their exit codes.

use crate::support::larder::{Larder, LarderOptions};
use crate::support::news::{News, NewsConfig};
use crate::support::redis::RedisServer;

#[test]
fn health_asks_whether_it_is_ready() {
    let (redis, news) = (RedisServer::start(), News::start());
    let mut larder = NewsConfig::default().start(&news, &redis);
    let url = format!("http://{}", larder.address());
    let health = |arguments: &[&str], bind: &str| {
        let options = LarderOptions::unconfigured().env("LARDER_BIND", bind);
        options.run(arguments).status.code()
    };
    let bind = larder.address().to_string();
    assert_eq!(health(&["health", "--url", &url], "127.0.0.1:1"), Some(0));
    // Without a URL it asks the larder of its own configuration: that is what a container's health check runs.
    assert_eq!(health(&["health"], &bind), Some(0));
    assert_eq!(
        health(&["health"], &format!("0.0.0.0:{}", larder.address().port())),
        Some(0)
    );
    assert_eq!(health(&["health", "--url", "nowhere"], &bind), Some(2));
    larder.stop();
    assert_eq!(health(&["health", "--url", &url], &bind), Some(1));
    assert_eq!(health(&["health"], &bind), Some(1));
}

#[test]
fn check_prints_what_is_declared_or_every_error() {
    let news = News::start();
    let config = NewsConfig::default().text(&news);
    let check = |text: &str| {
        let output = LarderOptions::new(text).run(&["check"]);
        let all = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(all).unwrap())
    };
    let (code, table) = check(&config);
    assert_eq!(code, Some(0), "{table}");
    for column in [
        "articles",
        "/articles",
        "30s",
        "5m",
        "newsapi",
        "guardian",
        "category",
    ] {
        assert!(table.contains(column), "{column}: {table}");
    }

    let wrong = config
        .replace("workers = 2", "wrokers = 2")
        .replace("memory = \"30s\"", "memory = \"10m\"")
        .replace("category:{category}", "category:{kind}");
    let (code, errors) = check(&wrong);
    assert_eq!(code, Some(2), "{errors}");
    for named in [
        "server.wrokers",
        "workers",
        "resource.articles.ttl.memory",
        "resource.articles.tags",
        "kind",
    ] {
        assert!(errors.contains(named), "{named}: {errors}");
    }
    // A server does not start with it either.
    let mut refuses = Larder::spawn(&LarderOptions::new(&wrong));
    assert_eq!(refuses.ended().code(), Some(2), "{}", refuses.log());
    assert!(
        refuses.log().contains("server.wrokers"),
        "{}",
        refuses.log()
    );
}

#[test]
fn the_command_line_is_checked() {
    let run = |arguments: &[&str]| LarderOptions::unconfigured().run(arguments);
    for fine in [
        &["--help"][..],
        &["--version"],
        &["serve", "--help"],
        &["key", "--help"],
    ] {
        let output = run(fine);
        assert_eq!(output.status.code(), Some(0), "{fine:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("larder"),
            "{fine:?}"
        );
    }
    for wrong in [
        &["sreve"][..],
        &["serve", "--no-such-thing"],
        &["serve", "--bind", "nowhere"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let missing = run(&["check", "--config", "/no/such/file.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/file.toml"));
}
