//! The database, used from blocking threads and async workers at once.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use larder::database::{Database, DatabaseSettings};
use larder_cache::Secret;
use serde_json::json;

use testkit::client::Call;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::{SOON, until};

#[test]
fn the_last_owner_may_be_an_async_worker() {
    let server = PostgresServer::start();
    // A pool of one: while a thread of the pool opened one more, that thread would be the last
    // owner.
    let database = Database::open(&DatabaseSettings {
        url: Some(Secret::new(server.new_database())),
        pool: 1,
        archive: Duration::from_secs(60),
    })
    .unwrap();
    database.migrate().unwrap();
    database.ping().unwrap();
    actix_web::rt::System::new().block_on(async move { drop(database) });
}

#[test]
fn a_sqlite_file_that_is_removed_or_replaced_is_noticed() {
    let (redis, folder) = (RedisServer::start(), Arc::new(tempfile::tempdir().unwrap()));
    let options = LarderOptions::new(include_str!("../config.toml"))
        .in_folder(&folder)
        .env("REDIS_URL", &redis.url());
    let larder = Larder::start(&options);
    let (path, away) = (
        folder.path().join("larder.db"),
        folder.path().join("away.db"),
    );
    let named = json!({"name": "one"});
    let made = larder.post("/keys", &named).expect(201).json();
    for name in ["larder.db", "larder.db-wal", "larder.db-shm"] {
        let mode = folder
            .path()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let ready = || larder.call("GET", "/readyz").send().status;
    let key = format!("/keys/{}", made["id"].as_str().unwrap());
    let fails = |told: &str| {
        until(SOON, "it is not ready", || ready() == 503);
        let user = json!({"name": "Ada", "email": "a@example.org"});
        for call in [
            larder.call("POST", "/keys").json(&named),
            larder.call("POST", "/users").json(&user),
            larder.call("DELETE", &key),
        ] {
            let status = call.key(ADMIN_KEY).send().status;
            assert!(status >= 500, "{status}");
        }
        let log = larder.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("ERROR") && line.contains(told));
        assert_eq!(lines.count(), 1, "{log}");
    };
    std::fs::rename(&path, &away).unwrap();
    fails("was removed");
    assert!(!path.exists(), "no empty file is made in its place");
    // Put back, it is the file that it was.
    std::fs::rename(&away, &path).unwrap();
    until(SOON, "it is ready again", || ready() == 200);
    // An earlier key is still valid. The refused write created none.
    let with_key = |key: &str| {
        Call::new(larder.address(), "GET", "/users/1")
            .key(key)
            .send()
    };
    with_key(made["key"].as_str().unwrap()).expect(200);
    let keys = larder.get("/keys").expect(200).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "{keys}");
    // A copy is another database, like a restored backup.
    std::fs::copy(&path, &away).unwrap();
    std::fs::rename(&away, &path).unwrap();
    fails("was replaced");
}
