//! The parameters of a resource.

use super::paths::is_name;
use super::reader::{Setting, Table};
use super::wording::unknown;
use crate::resource::{ParamKind, ParamSettings, ParamValue, anchored};

const TYPES: [&str; 3] = ["string", "integer", "boolean"];
const TYPE_FORM: &str = "\"string\", \"integer\" or \"boolean\"";
const NAME_FORM: &str = "a name of at most 64 letters, digits, \"_\" and \"-\", a letter first";
const DEFAULT_MAX_LEN: usize = 200;
/// The most that `max_length` may be: no body has more characters.
const LONGEST: i64 = 64 << 10;

/// A parameter as far as it could be read, and its place.
pub(super) struct Declared<'a> {
    pub(super) name: &'a str,
    pub(super) value: Setting<'a>,
    pub(super) view: bool,
    /// `None` if they are not valid.
    pub(super) settings: Option<ParamSettings>,
}

/// Reads the parameters of `resource`. `in_path` are those of its path.
pub(super) fn read<'a>(resource: &Table<'a>, in_path: &[&str]) -> Vec<Declared<'a>> {
    resource
        .table("params")
        .entries()
        .into_iter()
        .map(|(name, value)| {
            if !is_name(name) {
                value.fault("is not a valid name of a parameter", NAME_FORM);
            }
            let settings = value
                .table()
                .map(|table| param(name, table, in_path.contains(&name)));
            let (view, settings) = settings.unwrap_or((false, None));
            Declared {
                name,
                value,
                view,
                settings,
            }
        })
        .collect()
}

/// Reads the valid values that `table` declares. `None` if they are not valid.
pub(super) fn kind_of(table: &Table<'_>) -> Option<ParamKind> {
    let name = table.need("type", TYPE_FORM).and_then(|value| {
        let text = value.text(TYPE_FORM)?;
        let known = TYPES.into_iter().find(|known| *known == text);
        if known.is_none() {
            value.fault(unknown("type", text, &TYPES), TYPE_FORM);
        }
        known
    });
    kind(table, name)
}

fn param(name: &str, table: Table<'_>, in_path: bool) -> (bool, Option<ParamSettings>) {
    let kind = kind_of(&table);
    let default = table.get("default");
    let required = table.get("required");
    let view = table.get("view");
    if in_path {
        if let Some(default) = &default {
            default.fault(
                "is there, but a parameter of the path is never missing",
                "a parameter of the path without default",
            );
        }
        if let Some(view) = view.as_ref().filter(|view| view.as_boolean() == Some(true)) {
            view.fault(
                "is true, but a parameter of the path is part of the key",
                "false for a parameter of the path",
            );
        }
        if let Some(required) = required.as_ref().filter(|r| r.as_boolean() == Some(false)) {
            required.fault(
                "is false, but a parameter of the path is never missing",
                "true for a parameter of the path",
            );
        }
    } else if let (Some(required), Some(_)) = (&required, &default)
        && required.as_boolean() == Some(true)
    {
        required.fault(
            "is true, but with a default it is never missing",
            "required or default, not both",
        );
    }
    let default = default.and_then(|value| default_of(&value, kind.as_ref()?));
    let required = required.and_then(|value| value.boolean()).unwrap_or(false);
    let view = view.and_then(|value| value.boolean()).unwrap_or(false);
    table.close();
    let settings = kind.map(|kind| ParamSettings {
        name: name.to_owned(),
        kind,
        default,
        required: required || in_path,
        view,
    });
    (view, settings)
}

/// Reads every limit, whatever the type, so that a limit of another type is not an unknown key.
fn kind(table: &Table<'_>, name: Option<&'static str>) -> Option<ParamKind> {
    let (one_of, pattern) = (table.get("one_of"), table.get("pattern"));
    let max_length = table.get("max_length");
    let (min, max) = (table.get("min"), table.get("max"));
    let refuse = |limits: &[&Option<Setting<'_>>], valid: &str| {
        for value in limits.iter().copied().flatten() {
            value.fault(
                format!("does not apply to type {:?}", name.unwrap_or_default()),
                valid,
            );
        }
    };
    match name? {
        "string" => {
            refuse(&[&min, &max], "one_of, pattern or max_length");
            Some(text_kind(one_of, pattern, max_length))
        }
        "integer" => {
            refuse(&[&one_of, &pattern, &max_length], "min or max");
            let any = i64::MIN..=i64::MAX;
            let least = min.and_then(|value| value.integer(any.clone()));
            let least = least.unwrap_or(i64::MIN);
            let most = max.as_ref().and_then(|value| value.integer(any));
            let most = most.unwrap_or(i64::MAX);
            if let Some(max) = max.filter(|_| most < least) {
                max.fault(format!("is {most}, less than min {least}"), "at least min");
                return None;
            }
            Some(ParamKind::Integer {
                min: least,
                max: most,
            })
        }
        _ => {
            refuse(
                &[&one_of, &pattern, &max_length, &min, &max],
                "a boolean without limits",
            );
            Some(ParamKind::Boolean)
        }
    }
}

fn text_kind(
    one_of: Option<Setting<'_>>,
    pattern: Option<Setting<'_>>,
    max_length: Option<Setting<'_>>,
) -> ParamKind {
    let pattern = pattern.and_then(|value| {
        let text = value.text("a regular expression such as \"[A-Z]{1,5}\"")?;
        if let Err(error) = anchored(text) {
            value.fault(
                format!(
                    "is {}, which is not a valid regular expression: {error}",
                    value.quoted()
                ),
                "a regular expression such as \"[A-Z]{1,5}\", which the whole value matches",
            );
            return None;
        }
        Some(text.to_owned())
    });
    let max_len = max_length
        .and_then(|value| value.integer(1..=LONGEST))
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(DEFAULT_MAX_LEN);
    let any = ParamKind::Text {
        one_of: Vec::new(),
        pattern: pattern.clone(),
        max_len,
    };
    let mut listed: Vec<String> = Vec::new();
    let form = "an array of at least one text";
    let items = one_of.and_then(|value| value.nonempty_list(form));
    for item in items.unwrap_or_default() {
        let Some(text) = item.text(form) else {
            continue;
        };
        if listed.iter().any(|known| known == text) {
            item.fault(format!("has {} twice", item.quoted()), "each value once");
        } else if !any.accepts(&ParamValue::Text(text.to_owned().into())) {
            item.fault(format!("has {}", item.quoted()), &any);
        } else {
            listed.push(text.to_owned());
        }
    }
    ParamKind::Text {
        one_of: listed,
        pattern,
        max_len,
    }
}

fn default_of(value: &Setting<'_>, kind: &ParamKind) -> Option<ParamValue> {
    let found = match kind {
        ParamKind::Text { .. } => value
            .as_text()
            .map(|text| ParamValue::Text(text.to_owned().into())),
        ParamKind::Integer { .. } => value.as_integer().map(ParamValue::Integer),
        ParamKind::Boolean => value.as_boolean().map(ParamValue::Boolean),
    };
    value.or_wrong(found.filter(|found| kind.accepts(found)), kind)
}
