//! Tags of resources.

use super::params::Declared;
use super::reader::{Setting, Table};
use crate::resource::TagTemplate;

const FORM: &str = "a tag such as \"articles\" or \"category:{category}\", without spaces";

/// Reads the tags of a resource with these parameters.
pub(super) fn read(resource: &Table<'_>, params: &[Declared<'_>]) -> Vec<TagTemplate> {
    let Some(value) = resource.get("tags") else {
        return Vec::new();
    };
    let keyed: Vec<&str> = params.iter().filter(|p| !p.view).map(|p| p.name).collect();
    let valid = || match keyed.as_slice() {
        [] => "a tag without parameters".to_owned(),
        some => format!("a tag with no other parameters than {}", some.join(", ")),
    };
    let judge = |item: &Setting<'_>, tag: &TagTemplate| {
        for name in tag.params().filter(|name| !keyed.contains(name)) {
            let why = if params.iter().any(|param| param.name == name) {
                "a view, which no tag can have"
            } else {
                "not a parameter of this resource"
            };
            item.fault(
                format!("has {}, but {name} is {why}", item.quoted()),
                valid(),
            );
        }
    };
    each(&value, judge)
}

/// Reads a list of tags, whose places may have any names.
pub(super) fn list(value: &Setting<'_>) -> Vec<TagTemplate> {
    each(value, |_, _| {})
}

fn each(value: &Setting<'_>, judge: impl Fn(&Setting<'_>, &TagTemplate)) -> Vec<TagTemplate> {
    let mut tags: Vec<TagTemplate> = Vec::new();
    for item in value.list("an array of tags").unwrap_or_default() {
        let Some(text) = item.text(FORM) else {
            continue;
        };
        let tag = match TagTemplate::parse(text) {
            Ok(tag) => tag,
            Err(error) => {
                item.fault(format!("has {}, which {error}", item.quoted()), FORM);
                continue;
            }
        };
        judge(&item, &tag);
        if tags.contains(&tag) {
            item.fault(format!("has {} twice", item.quoted()), "each tag once");
        }
        tags.push(tag);
    }
    tags
}
