//! News resources: loaded by category, with views by source and by number.

use super::params::Declared;
use super::reader::{Setting, Table};
use super::wording::unknown;
use crate::resource::{ParamKind, ParamValue, SourceSettings};
use crate::source::NEWS_UPSTREAMS;

/// The categories of both upstreams.
const CATEGORIES: [&str; 7] = [
    "business",
    "entertainment",
    "general",
    "health",
    "science",
    "sports",
    "technology",
];
const PARAMS: [&str; 3] = ["category", "source", "limit"];

/// Reads the upstreams in `table`, a source. `None` if they are not valid.
pub(super) fn source(table: &Table<'_>) -> Option<SourceSettings> {
    let news = table.need("news", "[\"newsapi\", \"guardian\"]")?;
    upstreams(&news).map(SourceSettings::News)
}

fn upstreams(news: &Setting<'_>) -> Option<Vec<String>> {
    let form = format!("an array of at least one of {}", NEWS_UPSTREAMS.join(", "));
    let mut names: Vec<String> = Vec::new();
    for item in news.nonempty_list(&form)? {
        let Some(name) = item.text(&form) else {
            continue;
        };
        if !NEWS_UPSTREAMS.contains(&name) {
            item.fault(
                format!(
                    "names {}, which {}",
                    item.quoted(),
                    unknown("upstream", name, &NEWS_UPSTREAMS)
                ),
                NEWS_UPSTREAMS.join(", "),
            );
        } else if names.iter().any(|known| known == name) {
            item.fault(
                format!("names {} twice", item.quoted()),
                "each upstream once",
            );
        } else {
            names.push(name.to_owned());
        }
    }
    Some(names)
}

/// Checks the parameters of a news resource.
pub(super) fn judge(params: &mut [Declared<'_>]) {
    for param in params {
        let Declared {
            name,
            value,
            settings,
            ..
        } = param;
        if !PARAMS.contains(name) {
            value.fault(
                unknown("parameter of a news source", name, &PARAMS),
                PARAMS.join(", "),
            );
            continue;
        }
        let Some(settings) = settings else {
            continue;
        };
        match (*name, &mut settings.kind, settings.view) {
            ("category", ParamKind::Text { one_of, .. }, false) => {
                // If none was read, another error was reported already.
                let items = value.inner("one_of").filter(|_| !one_of.is_empty());
                let items = items.and_then(|value| value.list(""));
                for item in items.unwrap_or_default() {
                    let name = item.as_text().unwrap_or_default();
                    if one_of.iter().any(|known| known == name) && !CATEGORIES.contains(&name) {
                        item.fault(
                            format!(
                                "has {}, which {}",
                                item.quoted(),
                                unknown("category", name, &CATEGORIES)
                            ),
                            CATEGORIES.join(", "),
                        );
                    }
                }
            }
            ("source", ParamKind::Text { .. }, true) => {}
            ("limit", ParamKind::Integer { min, max }, true) => {
                if *min == i64::MIN {
                    *min = 1;
                }
                let default = match settings.default {
                    Some(ParamValue::Integer(default)) => default,
                    _ => *min,
                };
                if *min < 0 || *max < *min || default < *min {
                    value.fault("allows a limit that no list has", "min = 1 or more");
                }
            }
            ("category", ..) => value.fault(
                "is not a view: news are loaded by it",
                "type = \"string\", without view = true",
            ),
            ("source", ..) => value.fault(
                "must be a view: it selects from the loaded news",
                "type = \"string\", view = true",
            ),
            _ => value.fault(
                "must be a view: it selects from the loaded news",
                "type = \"integer\", view = true",
            ),
        }
    }
}
