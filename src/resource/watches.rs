//! Checks that watched tables and resources make the same tags. If a watched column and the
//! parameter at its place in a resource's tag have different texts, the watch misses entries.

use crate::database::{DatabaseError, Description, Watch};

use super::settings::{ParamKind, ParamSettings, ResourceSettings, SourceSettings};
use super::tag::TagTemplate;

/// Warnings about the watches, as sentences. `described` is in the order of
/// [`statements`](super::statements()).
pub fn watch_warnings(
    resources: &[ResourceSettings],
    described: &[Result<Description, DatabaseError>],
    watches: &[Watch],
) -> Vec<String> {
    let mut warnings = Vec::new();
    for watch in watches {
        for column in watch.columns.iter().filter(|column| column.kind.is_none()) {
            let problem = match &column.of_type {
                None => "no longer exists".to_owned(),
                Some(of_type) => {
                    format!(
                        "has the type {of_type}, in which equal values can have different texts"
                    )
                }
            };
            warnings.push(format!(
                "each change of table {} invalidates everything, because the watch {:?} names the column {}, which {problem}. \
                 Remove the watch: SELECT larder_unwatch('{}', '{}')",
                watch.table, watch.template, column.name, watch.table, watch.template
            ));
        }
    }
    let mut described = described.iter();
    for resource in resources {
        let reads = usize::from(matches!(resource.source, Some(SourceSettings::Sql(_))));
        let own: Vec<&Description> = described
            .by_ref()
            .take(reads + resource.writes.len())
            .filter_map(|described| described.as_ref().ok())
            .collect();
        for tag in &resource.tags {
            for watch in watches {
                warnings.extend(mismatch(resource, tag, &own, watch));
            }
        }
    }
    warnings
}

fn mismatch(
    resource: &ResourceSettings,
    tag: &TagTemplate,
    described: &[&Description],
    watch: &Watch,
) -> Option<String> {
    let template = TagTemplate::parse(&watch.template).ok()?;
    for (place, param) in template.places_beside(tag)? {
        let column = watch.columns.iter().find(|column| column.name == place)?;
        let param = resource.params.iter().find(|known| known.name == param)?;
        let (kind, expected) = (
            kind_of_column(column.kind.as_deref()?),
            kind_of_param(param, described),
        );
        if expected.is_some_and(|expected| expected != kind) {
            return Some(format!(
                "resource {} may stay stale when table {} changes: its tag {tag} takes the parameter {} as {}, but in the watch {:?} \
                 the column {place} has the type {}. Use the same type in the statement, or declare a pattern that allows \
                 one spelling",
                resource.name,
                watch.table,
                param.name,
                expected.unwrap_or_default(),
                watch.template,
                column.of_type.as_deref().unwrap_or_default(),
            ));
        }
    }
    None
}

/// One name for all kinds of columns with the same canonical texts, as in [`Canonical::kind`].
fn kind_of_column(kind: &str) -> &str {
    match kind {
        "int2" | "int4" | "int8" | "oid" | "numeric" => "number",
        "float4" | "float8" => "float",
        "inet" | "cidr" => "address",
        "text" | "varchar" | "bpchar" | "name" | "enum" => "text",
        other => other,
    }
}

/// How the values of a parameter become canonical. `None` if each value has only one spelling.
fn kind_of_param<'d>(param: &ParamSettings, described: &[&'d Description]) -> Option<&'d str> {
    let of_statement = described.iter().find_map(|description| {
        let names = description.parameters.iter().map(|(name, _)| name);
        let mut texts = names.zip(&description.parameter_texts);
        texts.find(|(name, _)| **name == param.name)
    });
    let kind = of_statement.map(|(_, canonical)| canonical.kind());
    match (&param.kind, kind) {
        (ParamKind::Integer { .. } | ParamKind::Boolean, None | Some("text")) => None,
        // Its tags have its own text too.
        (_, Some("opaque")) => None,
        (
            ParamKind::Text {
                one_of, pattern, ..
            },
            None | Some("text"),
        ) if !one_of.is_empty() || pattern.is_some() => None,
        (ParamKind::Text { .. }, None) => Some("text"),
        (_, kind) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Canonical, WatchedColumn};

    fn watch(template: &str, name: &str, of_type: &str, kind: Option<&str>) -> Watch {
        Watch {
            table: "people".to_owned(),
            template: template.to_owned(),
            columns: vec![WatchedColumn {
                name: name.to_owned(),
                of_type: Some(of_type.to_owned()),
                kind: kind.map(str::to_owned),
            }],
        }
    }

    fn resource(kind: ParamKind) -> ResourceSettings {
        ResourceSettings {
            refuses_unknown: false,
            name: "person".to_owned(),
            summary: None,
            description: None,
            path: Some("/people/{h}".to_owned()),
            params: vec![ParamSettings {
                name: "h".to_owned(),
                kind,
                default: None,
                required: true,
                view: false,
            }],
            read: Default::default(),
            source: None,
            writes: Vec::new(),
            policy: Default::default(),
            client_ttl: None,
            tags: vec![TagTemplate::parse("person:{h}").unwrap()],
            public: false,
        }
    }

    fn text(pattern: Option<&str>) -> ParamKind {
        ParamKind::Text {
            one_of: Vec::new(),
            pattern: pattern.map(str::to_owned),
            max_len: 200,
        }
    }

    #[test]
    fn a_watch_that_names_something_else_is_told() {
        let integer = ParamKind::Integer { min: 0, max: 9 };
        for (kind, of_type, column, told) in [
            (text(None), "text", Some("text"), false),
            (text(None), "character(3)", Some("bpchar"), false),
            (text(None), "citext", Some("citext"), true),
            (text(None), "numeric", Some("numeric"), true),
            (text(Some("[a-z]+")), "citext", Some("citext"), false),
            (integer.clone(), "bigint", Some("int8"), false),
            (integer.clone(), "numeric", Some("numeric"), false),
            (integer, "text", Some("text"), false),
            (text(None), "jsonb", None, true),
        ] {
            let watches = [watch("person:{handle}", "handle", of_type, column)];
            let warnings = watch_warnings(&[resource(kind)], &[], &watches);
            assert_eq!(!warnings.is_empty(), told, "{of_type}: {warnings:?}");
        }
        let other = [watch("other:{handle}", "handle", "citext", Some("citext"))];
        assert_eq!(
            watch_warnings(&[resource(text(None))], &[], &other),
            [""; 0]
        );
    }

    #[test]
    fn a_type_that_the_statement_wants_is_compared() {
        let described = |ty| Description {
            parameters: vec![("h".to_owned(), String::new())],
            parameter_texts: vec![Canonical::Type(ty)],
            returns_rows: true,
            ..Description::default()
        };
        let taken = |ty| {
            kind_of_param(&resource(text(None)).params[0], &[&described(ty)]).map(str::to_owned)
        };
        use postgres::types::Type;
        assert_eq!(taken(Type::NUMERIC).as_deref(), Some("number"));
        assert_eq!(taken(Type::UUID).as_deref(), Some("uuid"));
        assert_eq!(taken(Type::VARCHAR).as_deref(), Some("text"));
    }
}
