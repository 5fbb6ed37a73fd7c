//! `GET /metrics`: what this replica counted, for Prometheus.
//!
//! Nothing is added up before a scrape. Each label has a bound: names of the configuration, and
//! words of `docs/metrics.md`.

mod exposition;
mod format;
mod process;
mod scrape;

use actix_web::http::header::{CONTENT_TYPE, VARY};
use actix_web::{HttpRequest, HttpResponse, web};

use super::access::Access;
use super::bridge;
use super::problem::Problem;
use super::status::not_stored;

use self::format::Format;
pub(super) use self::scrape::Metrics;

/// Whether anyone may read the metrics. Otherwise only admins may.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublicMetrics(pub(super) bool);

/// See the module.
pub(super) async fn scrape(
    request: HttpRequest,
    access: web::Data<Access>,
    open: web::Data<PublicMetrics>,
    metrics: web::Data<Metrics>,
) -> HttpResponse {
    let text = text(Format::accepted(request.headers()), metrics);
    if open.0 {
        return not_stored(text.await.unwrap_or_else(|problem| problem.answer()));
    }
    access.admins(&request, |_| text).await
}

async fn text(format: Format, metrics: web::Data<Metrics>) -> Result<HttpResponse, Problem> {
    // The memory tier tidies up before it is counted.
    let write = move || exposition::write(metrics.families(), format);
    let text = bridge::blocking("a scrape", write)
        .await?
        .map_err(|_| Problem::bug("a metric cannot be written"))?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CONTENT_TYPE, format.content_type()));
    answer.insert_header((VARY, "Accept"));
    Ok(answer.body(text))
}
