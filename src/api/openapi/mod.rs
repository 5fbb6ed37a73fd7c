//! `GET /openapi.json`: what this server serves, as an OpenAPI 3.1 document.
//!
//! Promise: the document has every resource that is served, with each answer that it can give, and
//! nothing of the inside: no SQL, no upstream, no secret. Anyone may read it. It is made once for
//! each configuration and served as bytes.

mod answers;
mod operations;
mod pattern;
mod schemas;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwap;
use bytes::Bytes;
use utoipa::openapi::path::PathsBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApiBuilder, ServerBuilder};

use crate::resource::{Descriptions, ResourceSettings, Resources, SourceSettings};

use super::header_texts::HeaderTexts;
use super::{headers, slices};

use self::operations::{KEY, Operations};

const ABOUT: &str = "\
A caching API server. Each answer says in `Cache-Status` where it came from.

- **Keys.** Send `Authorization: Bearer KEY`. An operation with the role `admin` needs an admin's key.
- **Parameters.** A parameter that is repeated, empty or not valid is refused with 400, and the problem \
names it. A query parameter that is not listed has no effect, unless the operation says otherwise.
- **Bodies.** A read by POST or QUERY has its parameters as the members of a JSON body. A member that is \
not listed, of another type or out of its limits is refused with 422, and the problem names it. QUERY \
(RFC 10008) is safe and may be repeated, as GET is. OpenAPI 3.1 has no place for it: `x-query` of a path is \
the operation that `query` is in OpenAPI 3.2.
- **Problems.** Each refusal of an operation is `application/problem+json` (RFC 9457). Its `type` says \
which one.
- **HEAD.** Wherever there is a GET, HEAD answers with the same headers. Any other method is refused \
with 405 and `Allow`.
- **Before any operation.** A head that is no valid HTTP gets 400, and one that is too large 431, both \
without a body. A head that is too slow gets 408, and `Expect: 100-continue` where no body is taken gets \
417, both as problems. None of these has `X-Request-Id`, and the connection is closed.";

/// The document that is served now. A reload replaces it.
pub(crate) type LiveDocument = ArcSwap<Document>;

/// The document as bytes, and its entity tag.
pub struct Document {
    text: Bytes,
    tag: HeaderValue,
}

impl Document {
    /// The document of these resources. `keys_required`: those that are not public need a key.
    ///
    /// # Errors
    /// As [`document`].
    pub(crate) fn of(resources: &Resources, keys_required: bool) -> Result<Document, String> {
        let settings = resources.all().iter().map(|resource| resource.settings());
        let text = document(settings, resources.descriptions(), keys_required)?;
        let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        let tag = HeaderTexts::new()
            .text("\"")
            .hexadecimal(hash)
            .text("\"")
            .value();
        let text = text.into();
        Ok(Document { text, tag })
    }
}

/// `GET /openapi.json`: 304 if `If-None-Match` has its entity tag.
pub(crate) async fn serve(request: HttpRequest, document: web::Data<LiveDocument>) -> HttpResponse {
    let document = document.load();
    let mut answer = if headers::is_unchanged(request.headers(), &document.tag) {
        HttpResponse::new(StatusCode::NOT_MODIFIED)
    } else {
        let json = HeaderValue::from_static("application/json");
        let mut answer = slices::answer(document.text.clone());
        answer.headers_mut().insert(header::CONTENT_TYPE, json);
        answer
    };
    let map = answer.headers_mut();
    map.insert(header::ETAG, document.tag.clone());
    map.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// The document of these resources, as JSON. Without the description of a statement, its rows are
/// objects of unknown members.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn document<'a>(
    resources: impl IntoIterator<Item = &'a ResourceSettings>,
    descriptions: &Descriptions,
    keys_required: bool,
) -> Result<String, String> {
    let resources: Vec<&ResourceSettings> = resources.into_iter().collect();
    let operations = Operations {
        resources: &resources,
        descriptions,
        keys_required,
    };
    let (mut paths, mut tags) = (PathsBuilder::new(), Vec::new());
    let mut components = ComponentsBuilder::new().security_scheme(KEY, scheme());
    for problem in operations::all_problems() {
        components = components.schema(answers::component(&problem), answers::problem(&problem));
    }
    for (name, header) in answers::headers() {
        components = components.header(name, header);
    }
    let mut forms = descriptions.values().flat_map(|one| &one.parameter_forms);
    if forms.any(schemas::has_jsonb) {
        components = components.schema(schemas::JSONB, schemas::jsonb());
    }
    for resource in &resources {
        let Some(path) = &resource.path else { continue };
        paths = paths.path(path, operations.path_item(resource));
        let tag = TagBuilder::new().name(&resource.name);
        tags.push(tag.description(resource.summary.as_ref()).build());
        match &resource.source {
            Some(source @ (SourceSettings::Sql(_) | SourceSettings::Composite(_))) => {
                components = components.schema(&resource.name, operations.value(source));
            }
            Some(SourceSettings::News(_)) => {
                components = components
                    .schema(schemas::ARTICLE, schemas::article())
                    .schema(schemas::ARTICLES, schemas::articles());
            }
            Some(SourceSettings::Http(_)) | None => {}
        }
    }
    let info = InfoBuilder::new()
        .title("larder")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT));
    let document = OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .paths(paths)
        .components(Some(components.build()))
        .tags(Some(tags))
        .build();
    document
        .to_json()
        .map_err(|error| format!("the OpenAPI document cannot be written: {error}"))
}

fn scheme() -> SecurityScheme {
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key. The role `admin` needs an admin's key."));
    SecurityScheme::Http(scheme.build())
}
