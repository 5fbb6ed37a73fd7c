//! The head of the request to an upstream, made from templates and the parameters of a resource.
//!
//! Promise: a parameter cannot leave its place. In the path and the query, everything but
//! unreserved characters (RFC 3986, section 2.3) is escaped. A value that would climb the path is
//! refused: a segment that is `.` or `..`, even after an escaped slash, which some servers unescape
//! first. In a header, a value has no control character. Scheme, host and port have no parameters.
//!
//! An environment variable before the path is a base URL or a part of one. Anywhere else it is a
//! value, which is escaped.

use std::fmt;

use serde_json::Value as Json;
use ureq::http::{HeaderName, Uri};

use super::escaping::{climbs, escaped, fits_header, made_legal};
use super::{JsonApiFault, JsonApiSettings, Place};
use crate::template::{Part, Template};
use larder_cache::{Secret, escape_into};

/// Headers that the client sets itself, by the connection, the body or the copy that it has.
const OWN_HEADERS: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "range",
    "te",
    "transfer-encoding",
    "upgrade",
];

const URL_FORM: &str = "\"https://api.example.com/v1/thing/{id}\"";
const HEADER_FORM: &str = "{ \"X-Api-Key\" = \"${API_KEY}\" }";

/// See the module.
pub(super) struct Target {
    /// Scheme, host and port.
    origin: String,
    path: Vec<Bit>,
    /// One for each `name=value`.
    query: Vec<Vec<Bit>>,
    headers: Vec<(String, Vec<Bit>)>,
    /// What must not be shown, the longest first.
    secrets: Vec<Secret>,
    identity: String,
}

/// A piece of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bit {
    /// Sent as it is.
    Text(String),
    /// The value of this parameter, escaped as its place requires.
    Param(String),
}

/// One call.
pub(super) struct Call<'t> {
    pub(super) url: String,
    pub(super) headers: Vec<(&'t str, String)>,
}

/// The value of a parameter, if it has one.
type Lookup<'l> = dyn Fn(&str) -> Option<&'l str> + 'l;

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identity)
    }
}

impl Target {
    /// The target of these settings, or everything that is wrong with them.
    pub(super) fn build(settings: &JsonApiSettings) -> Result<Target, Vec<JsonApiFault>> {
        let mut faults = Vec::new();
        let mut fault = |place: Place, problem: &str, valid| {
            faults.push(JsonApiFault {
                place,
                problem: problem.to_owned(),
                valid,
            });
        };
        let mut target = Target {
            origin: String::new(),
            path: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            secrets: Vec::new(),
            identity: settings.identity(),
        };
        if let Err(problem) = target.split_url(&settings.url) {
            fault(Place::Url, problem, URL_FORM);
        }
        for (name, template) in &settings.query {
            if name.is_empty() {
                fault(Place::Query(name.clone()), "has no name", "a name");
            }
            let mut bits = vec![Bit::Text(format!("{}=", escaped(name)))];
            bits.extend(template.parts().iter().map(|part| bit(part, escaped)));
            target.query.push(bits);
        }
        for (at, (name, template)) in settings.headers.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let before = &settings.headers[..at];
            let place = || Place::Header(name.clone());
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                fault(place(), "is not a valid header name", HEADER_FORM);
            } else if OWN_HEADERS.contains(&lower.as_str()) {
                fault(
                    place(),
                    "is a header that larder sets itself",
                    "another header",
                );
            } else if before
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
            {
                fault(place(), "is declared twice", "each header once");
            }
            let bits = template.parts().iter().map(|part| bit(part, str::to_owned));
            let bits: Vec<Bit> = bits.collect();
            let unfit = |bit: &Bit| matches!(bit, Bit::Text(text) if !fits_header(text));
            if bits.iter().any(unfit) {
                let problem = "has a control character, perhaps in a variable's value";
                fault(place(), problem, "text on one line");
            }
            target.headers.push((name.clone(), bits));
        }
        let mut add_json = |name: &str| {
            let mut own = settings.headers.iter();
            if !own.any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                let json = vec![Bit::Text("application/json".to_owned())];
                target.headers.push((name.to_owned(), json));
            }
        };
        add_json("Accept");
        if settings.json.is_some() {
            add_json("Content-Type");
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        target.secrets = secrets(settings);
        Ok(target)
    }

    /// Takes the URL apart. Its errors show none of it.
    fn split_url(&mut self, url: &Template) -> Result<(), &'static str> {
        enum At {
            Origin,
            Path,
            Query,
        }
        let (mut at, mut query) = (At::Origin, Vec::new());
        for part in url.parts() {
            let mut text = match (part, &at) {
                (Part::Text(text), _) => text.as_str(),
                (Part::Filled(_, secret), At::Origin) => secret.reveal(),
                (Part::Param(_), At::Origin) => {
                    return Err("has a parameter in its scheme, host or port");
                }
                (Part::Param(_) | Part::Filled(..), At::Path) => {
                    self.path.push(bit(part, escaped));
                    continue;
                }
                (Part::Param(_) | Part::Filled(..), At::Query) => {
                    query.push(bit(part, escaped));
                    continue;
                }
            };
            if text.contains('#') {
                return Err("has a fragment");
            }
            if let At::Origin = at {
                self.origin.push_str(text);
                let Some(host) = self.origin.find("://").map(|colon| colon + 3) else {
                    continue;
                };
                let Some(end) = self.origin[host..].find(['/', '?']) else {
                    continue;
                };
                text = &text[text.len() - (self.origin.len() - host - end)..];
                self.origin.truncate(host + end);
                at = At::Path;
            }
            if let At::Path = at {
                let (path, rest) = text
                    .split_once('?')
                    .map_or((text, None), |(p, q)| (p, Some(q)));
                if !path.is_empty() {
                    self.path.push(Bit::Text(made_legal(path)));
                }
                let Some(rest) = rest else { continue };
                (at, text) = (At::Query, rest);
            }
            query.push(Bit::Text(made_legal(text)));
        }
        self.query = entries(query);
        if self.path.is_empty() {
            self.path.push(Bit::Text("/".to_owned()));
        }
        let scheme = self
            .origin
            .split_once("://")
            .map_or("", |(scheme, _)| scheme);
        if !matches!(scheme, "http" | "https") {
            return Err("is not an http:// or https:// URL");
        }
        if self.origin.contains('@') {
            return Err("has a user or a password in it, which belongs in a header");
        }
        let uri: Uri = self.origin.parse().map_err(|_| "has no valid host")?;
        let host = uri.host().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if host.is_empty() {
            return Err("has no valid host");
        }
        let port = authority.strip_prefix(host).unwrap_or_default();
        if !port.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
            return Err("has no valid port");
        }
        // Any value, to check the text around the parameters.
        if climbs(&self.path_with(&|_| Some("x"))) {
            return Err("has . or .. as a part of its path");
        }
        Ok(())
    }

    /// The call with these values. `None` if one of them cannot be sent in its place.
    pub(super) fn call<'v>(&self, value: &Lookup<'v>) -> Option<Call<'_>> {
        let path = self.path_with(value);
        if climbs(&path) {
            return None;
        }
        let mut url = format!("{}{path}", self.origin);
        let mut mark = '?';
        for entry in self.query.iter().filter(|entry| !is_left_out(entry, value)) {
            url.push(mark);
            mark = '&';
            write(entry, value, &mut url, escape_into);
        }
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, bits) in &self.headers {
            if let [Bit::Param(param)] = bits.as_slice()
                && value(param).is_none()
            {
                continue;
            }
            let mut text = String::new();
            write(bits, value, &mut text, String::push_str);
            if !fits_header(&text) {
                return None;
            }
            headers.push((name.as_str(), text));
        }
        Some(Call { url, headers })
    }

    fn path_with(&self, value: &Lookup<'_>) -> String {
        let mut path = String::new();
        write(&self.path, value, &mut path, escape_into);
        path
    }

    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }
}

fn write(bits: &[Bit], value: &Lookup<'_>, out: &mut String, add: fn(&mut String, &str)) {
    for bit in bits {
        match bit {
            Bit::Text(text) => out.push_str(text),
            Bit::Param(name) => add(out, value(name).unwrap_or_default()),
        }
    }
}

/// Whether an entry of the query is nothing but a parameter without a value.
fn is_left_out(entry: &[Bit], value: &Lookup<'_>) -> bool {
    match entry {
        [Bit::Text(name), Bit::Param(param)] => {
            name.find('=') == Some(name.len() - 1) && value(param).is_none()
        }
        [Bit::Param(param)] => value(param).is_none(),
        _ => false,
    }
}

/// Cuts a query at each `&`.
fn entries(query: Vec<Bit>) -> Vec<Vec<Bit>> {
    let (mut entries, mut entry) = (Vec::new(), Vec::new());
    for bit in query {
        let Bit::Text(text) = bit else {
            entry.push(bit);
            continue;
        };
        for (at, part) in text.split('&').enumerate() {
            if at > 0 {
                entries.push(std::mem::take(&mut entry));
            }
            if !part.is_empty() {
                entry.push(Bit::Text(part.to_owned()));
            }
        }
    }
    entries.push(entry);
    entries.retain(|entry| !entry.is_empty());
    entries
}

/// The piece that a part of a template becomes, with its text as `write` writes it.
fn bit(part: &Part, write: fn(&str) -> String) -> Bit {
    match part {
        Part::Text(text) => Bit::Text(write(text)),
        Part::Filled(_, secret) => Bit::Text(write(secret.reveal())),
        Part::Param(name) => Bit::Param(name.clone()),
    }
}

/// What no error may show: the variables' values, as they are and as they are sent.
fn secrets(settings: &JsonApiSettings) -> Vec<Secret> {
    let mut texts: Vec<String> = settings
        .templates()
        .flat_map(Template::secrets)
        .flat_map(|secret| {
            let text = secret.reveal();
            // Errors have no control characters, so a secret has none in them either.
            let on_one_line = text.chars().filter(|c| !c.is_control()).collect();
            let as_sent = [escaped(text), made_legal(text), in_json(text)];
            as_sent.into_iter().chain([text.to_owned(), on_one_line])
        })
        .collect();
    // The longest first: masking a part of a secret would leave the rest of it visible.
    texts.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    texts.dedup();
    texts.into_iter().map(Secret::new).collect()
}

/// A text as JSON has it, without its quotes.
fn in_json(text: &str) -> String {
    let json = Json::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}
