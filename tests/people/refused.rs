//! Refused writes of users and employees: by a precondition, a key's rights, or an invalid body.

use std::sync::Barrier;
use std::thread;

use serde_json::json;

use super::{Directory, on_each, put};
use testkit::client::Call;
use testkit::larder::{ADMIN_KEY, Larder};

#[test]
fn of_two_writers_with_the_same_etag_one_wins() {
    on_each(|directory| {
        let body = |name: &str| json!({"name": name, "email": "x@example.org"});
        let made = directory.near().post("/users", &body("0")).expect(201);
        let path = made.the("Location").to_owned();
        let mut last = made;
        for round in 1..=10 {
            let seen = directory.everywhere(&path, &last).expect(200);
            let together = Barrier::new(2);
            let write = |replica: &Larder, name: String| {
                let call = put(replica, &path, &body(&name)).header("If-Match", seen.the("ETag"));
                together.wait();
                call.send()
            };
            let answers = thread::scope(|scope| {
                let writers = directory.replicas.iter().zip(["a", "b"]);
                let writers: Vec<_> = writers
                    .map(|(replica, who)| {
                        scope.spawn(move || write(replica, format!("{round}{who}")))
                    })
                    .collect();
                let answers = writers.into_iter().map(|writer| writer.join().unwrap());
                answers.collect::<Vec<_>>()
            });
            let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
            assert_eq!(
                (won.len(), lost.len()),
                (1, 1),
                "round {round}: {won:?} {lost:?}"
            );
            lost[0].problem(412);
            let now = directory.everywhere(&path, &won[0]).expect(200);
            assert_eq!(now.text(), won[0].text(), "what the winner wrote stands");
            last = won[0].clone();
        }
        let call = |tag: &str| put(directory.near(), &path, &body("z")).header("If-Match", tag);
        call("\"0000000000000000\"").send().problem(412);
        call("*").send().expect(200);
        let seen = directory.near().get(&path);
        let weak = format!("W/{}", seen.the("ETag"));
        call(&weak).send().problem(412);
        call(&format!("\"x\", {}", seen.the("ETag")))
            .send()
            .expect(200);
        directory.near().delete(&path).expect(204);
        call("*").send().problem(412);
    });
}

#[test]
fn a_precondition_is_of_the_composite() {
    on_each(|directory| {
        let grace = json!({"name": "Grace", "title": "Admiral"});
        let made = directory.near().post("/employees", &grace).expect(201);
        let path = made.the("Location").to_owned();
        let seen = directory.everywhere(&path, &made).expect(200);
        let status = put(
            directory.far(),
            &format!("{path}/status"),
            &json!({"status": "in"}),
        );
        let came = status.send().expect(200);
        let rename = |tag: &str| {
            let call = put(directory.near(), &path, &json!({"name": "G", "title": "A"}));
            call.header("If-Match", tag).send()
        };
        rename(seen.the("ETag")).problem(412);
        let now = directory.everywhere(&path, &came).expect(200);
        rename(now.the("ETag")).expect(200);
    });
}

#[test]
fn a_reader_may_not_write() {
    let directory = Directory::on_sqlite();
    let (_, key) = directory.near().create_key(&json!({"name": "reader"}));
    let near = directory.near();
    let body = json!({"name": "A", "email": "a@example.org"});
    near.call("GET", "/users/1").send().problem(401);
    near.call("GET", "/users/1").key(&key).send().expect(200);
    for (method, path) in [
        ("POST", "/users"),
        ("PUT", "/users/1"),
        ("DELETE", "/users/1"),
        ("PUT", "/employees/1/status"),
    ] {
        near.call(method, path).json(&body).send().problem(401);
        near.call(method, path)
            .key(&key)
            .json(&body)
            .send()
            .problem(403);
    }
    for (method, path, allow) in [
        ("POST", "/users/1", "GET, HEAD, PUT, DELETE"),
        ("PATCH", "/users/1", "GET, HEAD, PUT, DELETE"),
        ("GET", "/users", "POST"),
        ("DELETE", "/employees/1/status", "GET, HEAD, PUT"),
    ] {
        let refused = near.call(method, path).key(ADMIN_KEY).json(&body).send();
        refused.problem(405);
        assert_eq!(refused.the("Allow"), allow, "{method} {path}");
    }
}

#[test]
fn an_invalid_body_is_named_and_writes_nothing() {
    on_each(|directory| {
        let near = directory.near();
        let good = json!({"name": "Ada", "email": "ada@example.org"});
        let made = near.post("/users", &good).expect(201);
        let path = made.the("Location").to_owned();
        for (body, field) in [
            (json!({"name": 5, "email": "a@example.org"}), "name"),
            (json!({"name": "", "email": "a@example.org"}), "name"),
            (json!({"name": null, "email": "a@example.org"}), "name"),
            (json!({"name": ["A"], "email": "a@example.org"}), "name"),
            (json!({"email": "a@example.org"}), "name"),
            (json!({"name": "A"}), "email"),
            (json!({"name": "A", "email": "nobody"}), "email"),
            (json!({"name": "A\u{0}", "email": "a@example.org"}), "name"),
            (
                json!({"name": "A", "email": "a@example.org", "admin": true}),
                "admin",
            ),
            (json!([1]), "body"),
            (json!({}), "name"),
        ] {
            for (method, target) in [("POST", "/users"), ("PUT", path.as_str())] {
                let answer = near.call(method, target).key(ADMIN_KEY).json(&body).send();
                answer.problem(422);
                assert_eq!(answer.json()["field"], field, "{body}: {answer}");
            }
        }
        let other = json!({"id": 999, "name": "A", "email": "a@example.org"});
        assert_eq!(put(near, &path, &other).send().json()["field"], "id");
        let call = |body: &str| near.call("PUT", &path).key(ADMIN_KEY).body(body);
        let is_json = |call: Call| call.header("Content-Type", "application/json");
        is_json(call("")).send().problem(400);
        is_json(call("{\"name\":")).send().problem(400);
        call("name=Ada").send().problem(415);
        near.call("PUT", &path).key(ADMIN_KEY).send().problem(415);
        let large = json!({"name": "x".repeat(100_000), "email": "a@example.org"});
        put(near, &path, &large).send().problem(413);
        for id in [
            "0",
            "-1",
            "x",
            "1.5",
            "99999999999999999999",
            "1%20OR%201=1",
            "1;DROP TABLE users",
        ] {
            let id = id.replace(' ', "%20");
            let answer = near.get(&format!("/users/{id}"));
            answer.problem(400);
            assert_eq!(answer.json()["parameter"], "id");
            put(near, &format!("/users/{id}"), &good)
                .send()
                .problem(400);
        }
        near.get("/users/9223372036854775807").problem(404);
        assert_eq!(
            directory.everywhere(&path, &made).text(),
            made.text(),
            "nothing was written"
        );
        // A client may send back what it has read.
        put(near, &path, &made.json()).send().expect(200);
        let status = "/employees/1/status";
        for wrong in ["maybe", "IN", ""] {
            let answer = put(near, status, &json!({"status": wrong})).send();
            answer.problem(422);
            assert_eq!(answer.json()["field"], "status");
        }
    });
}

#[test]
fn values_are_never_sql() {
    on_each(|directory| {
        for attempt in [
            "'; DROP TABLE users; --",
            "' OR '1'='1",
            "\"; DELETE FROM users; --",
            "Robert'); DELETE FROM users WHERE ('1'='1",
            "$1",
            ":id",
            "?1",
            "\\'; SELECT 1; --",
        ] {
            let body = json!({"name": attempt, "email": format!("{}@example.org", attempt.replace([' ', '@'], "_"))});
            let made = directory.near().post("/users", &body).expect(201);
            let read = directory
                .everywhere(made.the("Location"), &made)
                .expect(200);
            assert_eq!(read.json()["name"], attempt);
            let changed = put(directory.near(), made.the("Location"), &body)
                .send()
                .expect(200);
            let kept = directory
                .everywhere(made.the("Location"), &changed)
                .expect(200);
            assert_eq!(kept.json()["email"], body["email"]);
        }
    });
}
