//! What an operator declares of a resource, checked and whole.

use std::time::Duration;

use crate::cache::Policy;

/// One `[resource.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceSettings {
    /// Its name.
    pub name: String,
    /// Where it is served: `/users/{id}`. `None`: it is internal.
    pub path: Option<String>,
    /// Its parameters.
    pub params: Vec<ParamSettings>,
    /// Where its values come from.
    pub source: SourceSettings,
    /// How long they may be served.
    pub policy: Policy,
    /// How long a client may keep them.
    pub client_ttl: Option<Duration>,
    /// The names that its entries share.
    pub tags: Vec<TagTemplate>,
    /// Whether no key is needed.
    pub public: bool,
}

/// Where a resource's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// The news of these upstreams.
    News(Vec<String>),
}

/// One declared parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSettings {
    /// Its name.
    pub name: String,
    /// What it may be.
    pub kind: ParamKind,
    /// What stands in for it where it is not given.
    pub default: Option<ParamValue>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it selects from what is loaded rather than what is loaded.
    pub view: bool,
}

/// What a parameter may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Text.
    Text {
        /// The values that are valid; empty: any.
        one_of: Vec<String>,
        /// A regular expression that the whole value matches.
        pattern: Option<String>,
        /// How many characters it may have.
        max_len: usize,
    },
    /// A whole number within these bounds.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamValue {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
}

/// A tag with places for parameters: `category:{category}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    /// What it is put together from.
    pub pieces: Vec<TagPiece>,
}

/// A piece of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagPiece {
    /// As it stands.
    Literal(String),
    /// The value of the parameter of this name.
    Param(String),
}
