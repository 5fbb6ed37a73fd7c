//! Requests with a body: what is sent, redirects, and that no POST is sent twice.

use super::*;
use testkit::upstream::{Behaviour, Request, Response};

const BODY: &[u8] = br#"{"q":"a \u0000 b"}"#;
const METHODS: [SourceMethod; 2] = [SourceMethod::Post, SourceMethod::Query];

fn ask(
    client: &HttpClient,
    server: &FakeUpstream,
    method: SourceMethod,
) -> Result<HttpAnswer, LoadError> {
    let url = server.base_url();
    let request = HttpRequest {
        method,
        headers: &[("Content-Type", "application/json")],
        body: BODY,
        ..HttpRequest::get(&url)
    };
    client.ask(&request, Instant::now() + PATIENT)
}

fn is_whole(request: &Request, method: SourceMethod) -> bool {
    let length = BODY.len().to_string();
    request.method == method.name()
        && request.body == BODY
        && request.header("Content-Length") == Some(&length)
        && request.header("Content-Type") == Some("application/json")
        && request.header("Transfer-Encoding").is_none()
        && request.header("Expect").is_none()
}

#[test]
fn a_body_arrives_with_its_method_and_its_length() {
    let server = FakeUpstream::start(Behaviour::always(Response::text(200, "[]")));
    for method in METHODS {
        let answer = ask(&client(PATIENT), &server, method).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"[]"[..]));
        let request = server.requests().pop().unwrap();
        assert!(is_whole(&request, method), "{request:?}");
    }
    // A GET has none, whatever it is given.
    ask(&client(PATIENT), &server, SourceMethod::Get).unwrap();
    let request = server.requests().pop().unwrap();
    assert_eq!((&*request.method, &*request.body), ("GET", &b""[..]));
    assert_eq!(request.header("Content-Length"), None);
}

#[test]
fn a_redirect_is_followed_where_its_status_keeps_the_body() {
    let redirect = |status: u16, location: &str| {
        let location = location.to_owned();
        FakeUpstream::start(Behaviour::answer(move |request| {
            if request.path == "/" {
                Response::text(status, "moved").with("Location", &location)
            } else {
                Response::text(200, "there")
            }
        }))
    };
    for (method, statuses) in [
        (SourceMethod::Post, &[307, 308][..]),
        (SourceMethod::Query, &[301, 302, 307, 308]),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let server = redirect(status, "/there");
            let outcome = ask(&client(PATIENT), &server, method);
            let requests = server.requests();
            if statuses.contains(&status) {
                assert_eq!(outcome.unwrap().body, b"there");
                assert_eq!(requests.len(), 2);
                assert_eq!(requests[1].path, "/there");
                assert!(requests.iter().all(|request| is_whole(request, method)));
            } else {
                let name = method.name();
                assert_eq!(
                    outcome.unwrap_err().to_string(),
                    format!(
                        "newsapi redirects ({status}) a {name}, which is not followed: this status does not keep its body"
                    )
                );
                assert_eq!(requests.len(), 1);
            }
            // The body is for this origin alone.
            let other = FakeUpstream::start(Behaviour::always(Response::text(200, "")));
            let server = redirect(status, &other.base_url());
            ask(&client(PATIENT), &server, method).unwrap_err();
            assert_eq!((server.calls(), other.calls()), (1, 0));
        }
        // Without a target, the status is the answer.
        let server = FakeUpstream::start(Behaviour::always(Response::text(302, "")));
        assert_eq!(ask(&client(PATIENT), &server, method).unwrap().status, 302);
        let circle = redirect(307, "/");
        assert_eq!(
            ask(&client(PATIENT), &circle, method)
                .unwrap_err()
                .to_string(),
            "newsapi redirects in circles"
        );
        assert_eq!(circle.calls(), 1 + REDIRECTS);
    }
}

#[test]
fn no_failure_sends_a_body_twice() {
    for method in METHODS {
        let client = client(PATIENT);
        let server = FakeUpstream::start(Behaviour::Close);
        for (calls, behaviour) in [
            Behaviour::Close,
            Behaviour::Garbage,
            Behaviour::Truncated(Response::text(200, "[1, 2, 3]")),
        ]
        .into_iter()
        .enumerate()
        {
            server.behave(behaviour);
            ask(&client, &server, method).unwrap_err();
            assert_eq!(server.calls(), calls + 1);
        }
    }
}

#[test]
fn a_post_never_meets_what_an_earlier_answer_left_on_a_connection() {
    // Each answer has a body where none may be, and it comes late: with the next request.
    let server = FakeUpstream::raw(move |mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 11\r\n\r\n");
        if let Ok(1..) = stream.read(&mut [0; 1000]) {
            let _ = stream.write_all(b"not a body!HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    let client = client(PATIENT);
    for method in [
        SourceMethod::Get,
        SourceMethod::Post,
        SourceMethod::Post,
        SourceMethod::Post,
    ] {
        let answer = ask(&client, &server, method).unwrap();
        assert_eq!((answer.status, answer.body.len()), (204, 0));
    }
    // One connection for each, and each request arrived once.
    assert_eq!(server.calls(), 4);
}

#[test]
fn a_post_is_not_sent_again_after_an_answer_that_is_no_http() {
    // The flag that allows a GET to be sent again is set by the first answer.
    let server = FakeUpstream::start(Behaviour::always(Response::text(204, "")));
    let client = client(PATIENT);
    ask(&client, &server, SourceMethod::Get).unwrap();
    server.behave(Behaviour::Garbage);
    ask(&client, &server, SourceMethod::Post).unwrap_err();
    assert_eq!(server.calls(), 2);
    // As it does for GET.
    ask(&client, &server, SourceMethod::Get).unwrap_err();
    assert_eq!(server.calls(), 4);
}
