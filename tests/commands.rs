//! The commands, as a shell or a container runs them: what they print, and their exit codes.

use testkit::larder::{Larder, LarderOptions};
use testkit::news::{News, NewsConfig};
use testkit::redis::RedisServer;

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
    // Without a URL it asks the server of its own configuration. The container's health check runs
    // this.
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
    // `serve` refuses it, too.
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

/// The output of `check` and `serve` for a configuration, and their exit codes.
fn both(options: &LarderOptions) -> [(Option<i32>, String); 2] {
    let checked = options.run(&["check"]);
    let mut served = Larder::spawn(options);
    let code = served.ended().code();
    [
        (
            checked.status.code(),
            String::from_utf8(checked.stderr).unwrap(),
        ),
        (code, served.log()),
    ]
}

#[test]
fn check_refuses_a_database_with_which_serve_does_not_start() {
    let config = include_str!("../config.toml");
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let redis = RedisServer::start();
    let options = LarderOptions::new(config)
        .in_folder(&folder)
        .env("REDIS_URL", &redis.url());
    std::fs::write(path("text.db"), "these are a thousand words ".repeat(100)).unwrap();
    std::fs::create_dir(path("folder.db")).unwrap();
    let file = |name: &str, sql: &str| {
        let url = format!("sqlite://{}", path(name));
        drop(Larder::start(&options.clone().env("DATABASE_URL", &url)));
        rusqlite::Connection::open(path(name))
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        url
    };
    for (url, told) in [
        ("sqlite:///no/such/folder/larder.db".to_owned(), "folder"),
        ("sqlite:///proc/larder.db".to_owned(), "folder"),
        (format!("sqlite://{}", path("text.db")), "not a database"),
        (format!("sqlite://{}", path("folder.db")), "folder.db"),
        (
            file(
                "newer.db",
                "INSERT INTO larder_migrations VALUES (999, 'newer', 0)",
            ),
            "newer",
        ),
        (
            file("empty.db", "DELETE FROM api_keys_version"),
            "api_keys_version",
        ),
        (file("lost.db", "DROP TABLE users"), "users"),
        (file("lost_keys.db", "DROP TABLE api_keys"), "api_keys"),
    ] {
        let [(checked, said), (served, log)] = both(&options.clone().env("DATABASE_URL", &url));
        assert_eq!(checked, Some(2), "{url}: {said}");
        assert!(said.contains(told), "{url}: {said}");
        assert!(served == Some(1) || served == Some(2), "{url}: {log}");
        assert!(log.contains(told), "{url}: {log}");
    }
    // An unreachable server is not an error of the configuration.
    let nobody = options.env("DATABASE_URL", "postgres://larder@127.0.0.1:1/larder");
    let [(checked, said), (served, log)] = both(&nobody);
    assert_eq!((checked, served), (Some(1), Some(1)), "{said}{log}");
    assert!(said.contains("the database cannot be queried"), "{said}");
    assert!(
        said.contains("refused") && log.contains("refused"),
        "{said}{log}"
    );
}

#[test]
fn check_tells_every_kind_of_fault_in_one_run() {
    let config = "[memory]
max_size = \"much\"
[resource.a]
path = \"/a\"
source = { sql = \"no_such_column\" }
ttl = { memory = \"1s\", redis = \"1s\" }
[resource.b]
path = \"/b\"
source = { http = \"https://example.org/\", headers = { Authorization = \"Bearer ${NO_SUCH_SECRET}\" } }
ttl = { memory = \"1s\", redis = \"1s\" }
write.POST.sql = \"no_such_table\"
";
    let options = LarderOptions::new(config)
        .env("LARDER_ADMIN_KEY", "short")
        .statement("no_such_column", "SELECT nothing FROM users")
        .statement("no_such_table", "DELETE FROM nowhere");
    let checked = options.run(&["check"]);
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    let told = [
        "toml:2: memory.max_size",
        "toml:5: resource.a.source.sql: query no_such_column",
        "NO_SUCH_SECRET",
        "toml:11: resource.b.write.POST.sql: query no_such_table",
        "LARDER_ADMIN_KEY",
    ];
    let places: Vec<Option<usize>> = told.iter().map(|told| said.find(told)).collect();
    assert!(places.iter().all(Option::is_some), "{said}");
    assert!(places.is_sorted(), "in the order of the file: {said}");
    assert_eq!(said.lines().count(), told.len(), "{said}");

    // An invalid database is not asked.
    let unknown = options.env("DATABASE_URL", "mysql://host/name");
    let said = String::from_utf8(unknown.run(&["check"]).stderr).unwrap();
    assert!(
        said.contains("DATABASE_URL") && !said.contains("no_such_column"),
        "{said}"
    );
}

#[test]
fn check_names_the_new_key_for_an_old_one() {
    let config = "[coherence]
patience = \"1s\"
[resource.a]
path = \"/a\"
source = { http = \"https://example.org/\" }
ttl = { memory = \"1s\", redis = \"1s\" }
blind_ttl = \"0s\"
";
    let checked = LarderOptions::new(config).run(&["check"]);
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    for (line, part) in said.lines().zip([
        "toml:2: coherence.patience: was renamed to max_staleness",
        "toml:7: resource.a.blind_ttl: was renamed to disconnected_ttl",
    ]) {
        assert!(line.contains(part), "{said}");
    }
    assert_eq!(said.lines().count(), 2, "{said}");
}
