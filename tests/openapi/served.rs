//! `GET /openapi.json`: its entity tag, and that it follows a reload.

use super::{SHIPPED, operation};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::{SOON, until};

#[test]
fn the_document_has_an_entity_tag_and_follows_a_reload() {
    let larder = Larder::start(&LarderOptions::new(SHIPPED));
    let get = || larder.call("GET", "/openapi.json");
    let first = get().send().expect(200);
    assert_eq!(first.the("Content-Type"), "application/json");
    assert_eq!(first.the("Cache-Control"), "no-cache");
    first.the("X-Request-Id");
    let tag = first.the("ETag").to_owned();
    let head = larder.call("HEAD", "/openapi.json").send().expect(200);
    assert_eq!(head.the("ETag"), tag);
    assert_eq!(head.the("Content-Length"), first.body.len().to_string());
    for tags in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let known = get().header("If-None-Match", &tags).send().expect(304);
        assert_eq!(
            (known.the("ETag"), known.body.len()),
            (tag.as_str(), 0),
            "{tags}"
        );
    }
    get().header("If-None-Match", "\"x\"").send().expect(200);
    let post = larder.call("POST", "/openapi.json").key(ADMIN_KEY).send();
    post.problem(405);
    assert_eq!(post.the("Allow"), "GET, HEAD");

    larder.reload(&SHIPPED.replace("summary = \"A user\"", "summary = \"Somebody\""));
    let changed = || get().header("If-None-Match", &tag).send();
    until(SOON, "the document is another", || changed().status == 200);
    let document = changed().json();
    assert_eq!(
        operation(&document, "get", "/users/{id}")["summary"],
        "Somebody"
    );
    assert_ne!(changed().the("ETag"), tag);
    // The same configuration has the same document.
    larder.reload(SHIPPED);
    until(SOON, "it is as it was", || changed().status == 304);
}
