//! Both formats as our own adapters read them, and what each API says of a bad request.

use super::super::{guardian, newsapi};
use super::*;
use proptest::prelude::*;

fn now() -> Timestamp {
    "2026-03-01T10:20:00Z".parse().unwrap()
}

fn get(path: &str, query: &str) -> (u16, Value) {
    let answer = answer(path, query, now());
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

/// The URLs that NewsAPI's format lists.
fn urls(query: &str) -> Vec<String> {
    let (status, body) = get("/v2/everything", query);
    assert_eq!(status, 200, "{query}: {body}");
    let articles = body["articles"].as_array().unwrap().iter();
    articles
        .map(|one| one["url"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn our_own_adapters_read_both_formats() {
    for category in categories() {
        let wire = answer(
            "/v2/top-headlines",
            &format!("category={category}&pageSize=100"),
            now(),
        );
        let wire = newsapi::read(wire.status, wire.body.as_bytes(), category).unwrap();
        assert!((90..=100).contains(&wire.len()), "{}", wire.len());
        assert!(wire.iter().any(|one| one.description.is_none()));
        let section = guardian::query(category)[0].1.replace('|', "%7C");
        let query = format!(
            "section={section}&order-by=newest&page-size=50&show-fields=trailText%2Cbyline%2Cthumbnail"
        );
        let paper = answer("/search", &query, now());
        let paper = guardian::read(paper.status, paper.body.as_bytes(), category).unwrap();
        assert_eq!(paper.len(), 50);
        for article in paper {
            assert_eq!(article.fields(), 3);
            let text = article.description.unwrap();
            assert!(
                text.starts_with(&article.title) && !text.contains(['<', ';']),
                "{text}"
            );
        }
    }
}

#[test]
fn pages_of_newsapi_are_one_list_cut_up() {
    let whole = urls("q=a&pageSize=100");
    let pages = [1, 2, 3, 4].map(|page| urls(&format!("q=a&pageSize=25&page={page}")));
    assert_eq!(pages.concat(), whole);
    assert_eq!(urls("q=a&pageSize=100&page=9999"), Vec::<String>::new());
}

#[test]
fn pages_of_the_guardian_are_one_list_cut_up_and_end() {
    let (_, body) = get("/search", "section=science&page-size=50");
    let response = &body["response"];
    assert_eq!(
        (&response["total"], &response["pages"]),
        (&json!(144), &json!(3))
    );
    let (_, last) = get("/search", "section=science&page-size=50&page=3");
    assert_eq!(last["response"]["results"].as_array().unwrap().len(), 44);
    assert_eq!(last["response"]["startIndex"], 101);
    let (status, past) = get("/search", "section=science&page-size=50&page=4");
    assert_eq!(
        (status, &past["response"]["status"]),
        (400, &json!("error"))
    );
    let (status, none) = get("/search", "section=no-such-section");
    assert_eq!((status, &none["response"]["total"]), (200, &json!(0)));
}

#[test]
fn words_sources_domains_and_dates_select() {
    let (_, body) = get("/v2/top-headlines", "q=astronomers+FOUND");
    let articles = body["articles"].as_array().unwrap();
    assert!(!articles.is_empty());
    for article in articles
        .iter()
        .filter(|article| article["title"] != "[Removed]")
    {
        let title = article["title"].as_str().unwrap();
        assert!(title.starts_with("Astronomers found"), "{title}");
    }
    for (query, host) in [
        ("sources=daily-ledger", "daily-ledger.example"),
        ("domains=fieldnotes.example", "fieldnotes.example"),
    ] {
        let urls = urls(&format!("{query}&pageSize=100"));
        assert_eq!(urls.len(), 100);
        let removed = |url: &String| url == "https://removed.example";
        assert!(
            urls.iter().all(|url| url.contains(host) || removed(url)),
            "{urls:?}"
        );
    }
    let (_, day) = get(
        "/search",
        "from-date=2026-02-28&to-date=2026-02-28&page-size=200&order-by=oldest",
    );
    let days = day["response"]["results"].as_array().unwrap();
    assert_eq!(days.len(), 200);
    assert!(days.iter().all(|one| {
        one["webPublicationDate"]
            .as_str()
            .unwrap()
            .starts_with("2026-02-28T")
    }));
}

#[test]
fn bad_parameters_are_errors_of_each_apis_shape() {
    for (path, query, code) in [
        ("/v2/top-headlines", "", "parametersMissing"),
        ("/top-headlines", "category=", "parametersMissing"),
        ("/v2/top-headlines", "category=gossip", "parameterInvalid"),
        (
            "/v2/top-headlines",
            "category=science&sources=daily-ledger",
            "parameterInvalid",
        ),
        (
            "/v2/top-headlines",
            "sources=bbc-news",
            "sourceDoesNotExist",
        ),
        (
            "/v2/top-headlines",
            "category=science&pageSize=101",
            "parameterInvalid",
        ),
        (
            "/v2/top-headlines",
            "category=science&page=0",
            "parameterInvalid",
        ),
        ("/v2/everything", "category=science", "parametersMissing"),
        ("/everything", "q=x&sortBy=mood", "parameterInvalid"),
        ("/everything", "q=x&from=yesterday", "parameterInvalid"),
    ] {
        let (status, body) = get(path, query);
        assert_eq!(
            (status, &body["status"], &body["code"]),
            (400, &json!("error"), &json!(code)),
            "{path}?{query}"
        );
    }
    let many = format!("sources={}", ["daily-ledger"; 21].join(","));
    assert_eq!(get("/v2/everything", &many).1["code"], "sourcesTooMany");
    assert_eq!(
        get("/v2/everything", &format!("q={}", "x".repeat(501))).1["code"],
        "parameterInvalid"
    );
    for query in [
        "page-size=0",
        "page-size=201",
        "order-by=mood",
        "page=x",
        "from-date=2026-13-01",
    ] {
        let (status, body) = get("/search", query);
        assert_eq!(
            (status, &body["response"]["status"]),
            (400, &json!("error")),
            "{query}"
        );
    }
    assert_eq!(get("/v2/sources", "").0, 404);
}

#[test]
fn failures_are_told_as_such_by_our_own_adapters() {
    for number in 0..4 {
        let wire = failure("/v2/top-headlines", number);
        let refusal = newsapi::read(wire.status, wire.body.as_bytes(), "general").unwrap_err();
        assert_eq!(refusal.spent, number % 2 == 1);
        assert!(!refusal.text().is_empty());
        let paper = failure("/search", number);
        let refusal = guardian::read(paper.status, paper.body.as_bytes(), "general").unwrap_err();
        assert_eq!(refusal.spent, number % 2 == 1);
        assert_eq!(paper.retry_after.is_some(), paper.status == 429);
    }
}

#[test]
fn failures_come_at_their_rate() {
    for (rate, of_a_hundred) in [(0.0, 0), (0.25, 25), (0.5, 50), (1.0, 100)] {
        let failed = (0..100).filter(|number| fails(*number, rate)).count();
        assert_eq!(failed, of_a_hundred, "{rate}");
    }
}

proptest! {
    // Each case makes up all the news several times over.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_query_is_survived(query in "([a-z-]{0,9}[=&%+]){0,4}.{0,20}", page in any::<u64>()) {
        for path in ["/v2/top-headlines", "/v2/everything", "/search"] {
            answer(path, &query, now());
            answer(path, &format!("q=a&page={page}&page-size={page}&{query}"), now());
        }
    }
}
