//! `larder invalidate`: invalidates through a running server, for scripts and cron.
//!
//! Promise: the API key comes from the environment and is never shown. The command exits with 0
//! once the invalidation is acknowledged. If it is pending, it holds on that server only: the
//! command says so and exits with 1. For each tag it prints how many templates match it; with
//! `--strict` it exits with 1 if a tag matches none.

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::{process_environment, variable};

use super::output::{failed, print, print_error};
use super::target::url_of_server;

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What to invalidate, and through which server.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct InvalidateArguments {
    /// A tag; may be given more than once
    #[arg(long, value_name = "T", group = "what")]
    tag: Vec<String>,
    /// A key, as /cache/entry shows it; may be given more than once
    #[arg(long, value_name = "K", group = "what")]
    key: Vec<String>,
    /// A request path with its query; may be given more than once
    #[arg(long, value_name = "P", group = "what")]
    path: Vec<String>,
    /// The entry of a resource for the parameters of --params, and its parts
    #[arg(long, value_name = "NAME", group = "what", requires = "params")]
    resource: Option<String>,
    /// All parameters of that entry as a JSON object, those of the path too
    #[arg(long, value_name = "JSON", requires = "resource")]
    params: Option<JsonText>,
    /// Everything
    #[arg(long, group = "what")]
    all: bool,
    /// Make it stale, to be served until it is renewed where its resource allows that
    #[arg(long)]
    soft: bool,
    /// Exit with 1 if a tag is one that no resource and no watched table can have
    #[arg(long)]
    strict: bool,
    /// Where the server is [default: server.bind of the configuration]
    #[arg(long, value_parser = super::target::server_url)]
    url: Option<String>,
    /// The environment variable that holds the admin key
    #[arg(long, value_name = "VAR", default_value = "LARDER_ADMIN_KEY")]
    key_env: String,
}

/// The text of a JSON value. Its numbers keep their digits.
#[derive(Clone, Debug)]
struct JsonText(Box<RawValue>);

impl FromStr for JsonText {
    type Err = String;

    fn from_str(text: &str) -> Result<JsonText, String> {
        let json = serde_json::from_str(text);
        json.map(JsonText)
            .map_err(|error| format!("not JSON: {error}"))
    }
}

/// The body of `POST /cache/invalidate`.
#[derive(Serialize)]
struct Wish {
    tags: Vec<String>,
    keys: Vec<String>,
    paths: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Box<RawValue>>,
    all: bool,
    soft: bool,
}

/// Invalidates through the server of the arguments, or else the one that the configuration
/// describes.
pub(super) fn run(arguments: InvalidateArguments, file: Option<&Path>) -> ExitCode {
    let Some(key) = variable(&arguments.key_env, &process_environment) else {
        print_error(&format!(
            "larder: the environment variable {} holds no API key",
            arguments.key_env
        ));
        return ExitCode::from(2);
    };
    let url = match url_of_server(arguments.url, file) {
        Ok(url) => url,
        Err(code) => return code,
    };
    let wish = Wish {
        tags: arguments.tag,
        keys: arguments.key,
        paths: arguments.path,
        resource: arguments.resource,
        params: arguments.params.map(|JsonText(json)| json),
        all: arguments.all,
        soft: arguments.soft,
    };
    match ask(&url, &key, &wish) {
        Ok((200, answer)) => {
            let unmatched = print_templates(&answer);
            let _ = print(&format!(
                "invalidated at {}",
                answer["clock"].as_str().unwrap_or("?")
            ));
            match arguments.strict && unmatched {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            }
        }
        Ok((202, answer)) => {
            print_templates(&answer);
            failed(&"pending: it holds on this server, and on the others once Redis can be reached")
        }
        Ok((status, answer)) => {
            let detail = answer["detail"].as_str().unwrap_or("no detail");
            failed(&format_args!("{url} answers {status}: {detail}"))
        }
        Err(why) => failed(&format_args!("{url}: {why}")),
    }
}

/// Prints for each tag how many templates match it. Returns whether a tag matches none.
fn print_templates(answer: &Value) -> bool {
    let mut unmatched = false;
    for one in answer["matched"].as_array().into_iter().flatten() {
        let tag = one["tag"].as_str().unwrap_or("?");
        match one["templates"].as_u64() {
            Some(0) => {
                unmatched = true;
                print_error(&format!(
                    "larder: tag {tag}: matches no template of a resource or a watched table"
                ));
            }
            Some(1) => drop(print(&format!("tag {tag}: matches 1 template"))),
            Some(count) => drop(print(&format!("tag {tag}: matches {count} templates"))),
            // A server of an earlier version.
            None => {}
        }
    }
    unmatched
}

fn ask(url: &str, key: &str, wish: &Wish) -> Result<(u16, Value), String> {
    let body = serde_json::to_string(wish).map_err(|error| error.to_string())?;
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(TIMEOUT))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let mut answer = agent
        .post(format!("{}/cache/invalidate", url.trim_end_matches('/')))
        .header("Authorization", format!("Bearer {key}"))
        .header("Content-Type", "application/json")
        .send(body)
        // The message of the client names the host and the reason, never a header.
        .map_err(|error| error.to_string())?;
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    Ok((
        answer.status().as_u16(),
        serde_json::from_str(&text).unwrap_or_default(),
    ))
}
