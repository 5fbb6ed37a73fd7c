//! Pages for people: `/docs` shows and calls the API, and `/` leads to it.
//!
//! Promise: all files are in the binary. A page loads nothing from another host and runs no inline
//! script, and no other site can show it in a frame.

use std::io::Write;
use std::sync::LazyLock;

use actix_web::http::header::{
    self, Accept, AcceptEncoding, Encoding, Header, HeaderName, HeaderValue, Quality,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::header_texts::HeaderTexts;
use super::headers::is_unchanged;
use super::problem::Problem;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A file of this folder's `pages/`.
macro_rules! file {
    ($name:literal, $content_type:expr) => {
        File::new($name, $content_type, include_str!(concat!("pages/", $name)))
    };
}

static FRONT: LazyLock<File> = LazyLock::new(|| file!("front.html", HTML));
static DOCS: LazyLock<File> = LazyLock::new(|| file!("docs.html", HTML));
/// The files below `/docs/`.
static DOCS_FILES: LazyLock<[File; 11]> = LazyLock::new(|| {
    [
        file!("docs.css", CSS),
        file!("icon.svg", IMAGE),
        file!("docs.js", SCRIPT),
        file!("answer.js", SCRIPT),
        file!("dom.js", SCRIPT),
        file!("key.js", SCRIPT),
        file!("operation.js", SCRIPT),
        file!("operations.js", SCRIPT),
        file!("request.js", SCRIPT),
        file!("result.js", SCRIPT),
        file!("schema.js", SCRIPT),
    ]
});

/// What a page may do (Content Security Policy Level 3). Its scripts cannot write markup either
/// (Trusted Types).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The headers of every file. A browser asks each time whether its copy is current, so after an
/// update no old script runs in a new page.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    (header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-cache"),
];

/// `GET /docs`.
pub(super) async fn docs(request: HttpRequest) -> HttpResponse {
    DOCS.answer(&request, "Accept-Encoding")
}

/// `GET /docs/`: to `/docs`, because the links of the page are relative to that.
pub(super) async fn docs_folder() -> HttpResponse {
    let mut answer = HttpResponse::PermanentRedirect();
    answer.insert_header((header::LOCATION, "../docs")).finish()
}

/// `GET /docs/{name}`.
pub(super) async fn docs_file(request: HttpRequest, name: web::Path<String>) -> HttpResponse {
    match DOCS_FILES.iter().find(|file| file.name == name.as_str()) {
        Some(file) => file.answer(&request, "Accept-Encoding"),
        None => Problem::NotFound("Nothing is served at this path.").answer(),
    }
}

/// `/` where no resource has it: a page or JSON, by `Accept`.
pub(super) fn front(request: &HttpRequest) -> HttpResponse {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = "GET, HEAD".into();
        return Problem::MethodNotAllowed { allow }.answer();
    }
    if !prefers_json(request) {
        return FRONT.answer(request, "Accept, Accept-Encoding");
    }
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CACHE_CONTROL, "no-cache"));
    answer.insert_header((header::VARY, "Accept"));
    answer.json(json!({
        "service": "larder",
        "links": {
            "docs": "/docs",
            "openapi": "/openapi.json",
            "alive": "/healthz",
            "ready": "/readyz",
            "metrics": "/metrics",
        },
    }))
}

/// Whether `Accept` ranks JSON before HTML. It does not if it is missing or takes anything.
fn prefers_json(request: &HttpRequest) -> bool {
    let accept = Accept::parse(request).map(|accept| accept.0);
    let mut ranges = accept.unwrap_or_default();
    ranges.retain(|range| range.quality > Quality::ZERO);
    let ranked = Accept(ranges).ranked();
    let first = ranked.iter().find_map(|range| match range.essence_str() {
        "application/json" | "application/*" => Some(true),
        "text/html" | "text/*" | "*/*" => Some(false),
        _ => None,
    });
    first.unwrap_or(false)
}

/// A file of a page, plain and compressed.
struct File {
    name: &'static str,
    content_type: &'static str,
    plain: Coded,
    /// `None`: it could not be compressed.
    gzip: Option<Coded>,
}

/// A file in one content coding, with its entity tag.
struct Coded {
    bytes: Bytes,
    tag: HeaderValue,
}

impl File {
    fn new(name: &'static str, content_type: &'static str, text: &'static str) -> File {
        let mut texts = HeaderTexts::new();
        let mut coded = |bytes, end| {
            texts.text("\"").hexadecimal(xxh3_64(text.as_bytes()));
            let tag = texts.text(end).value();
            Coded { bytes, tag }
        };
        File {
            name,
            content_type,
            plain: coded(Bytes::from_static(text.as_bytes()), "\""),
            gzip: gzip(text).map(|bytes| coded(bytes, "-gzip\"")),
        }
    }

    /// The answer to a request for this file. `vary` lists the request headers that chose it.
    fn answer(&self, request: &HttpRequest, vary: &'static str) -> HttpResponse {
        let (coded, coding) = match &self.gzip {
            Some(gzip) if takes_gzip(request) => (gzip, Some("gzip")),
            _ => (&self.plain, None),
        };
        let unchanged = is_unchanged(request.headers(), &coded.tag);
        let mut answer = HttpResponse::build(if unchanged {
            StatusCode::NOT_MODIFIED
        } else {
            StatusCode::OK
        });
        for header in HEADERS {
            answer.insert_header(header);
        }
        answer.insert_header((header::ETAG, coded.tag.clone()));
        answer.insert_header((header::VARY, vary));
        if unchanged {
            return answer.finish();
        }
        answer.insert_header((header::CONTENT_TYPE, self.content_type));
        if let Some(coding) = coding {
            answer.insert_header((header::CONTENT_ENCODING, coding));
        }
        answer.body(coded.bytes.clone())
    }
}

fn takes_gzip(request: &HttpRequest) -> bool {
    let codings = [Encoding::gzip(), Encoding::identity()];
    let accepted = AcceptEncoding::parse(request).ok();
    let chosen = accepted.and_then(|accepted| accepted.negotiate(codings.iter()));
    chosen == Some(Encoding::gzip())
}

fn gzip(text: &str) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).ok()?;
    encoder.finish().ok().map(Bytes::from)
}
