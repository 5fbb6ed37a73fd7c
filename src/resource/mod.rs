//! FLOOR 3: what the operator declared.

mod settings;

pub(crate) use settings::whole_value;
pub use settings::{
    ParamKind, ParamSettings, ParamValue, ResourceSettings, SourceSettings, TagError, TagPiece,
    TagTemplate,
};
