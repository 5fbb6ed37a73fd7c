//! Schemas of values: of parameters, fields, rows and articles.

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, SchemaFormat,
    SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::database::{ColumnForm, Description, JsonForm};
use crate::resource::{ParamKind, ParamSettings, ParamValue};

use super::pattern::{self, Texts};

/// The component that describes an article.
pub(super) const ARTICLE: &str = "news.article";
/// The component that describes the answer of a news resource.
pub(super) const ARTICLES: &str = "news.articles";

/// Any JSON.
pub(super) fn any() -> RefOr<Schema> {
    Object::with_type(SchemaType::AnyValue).into()
}

/// An object whose members are not known.
pub(super) fn object() -> RefOr<Schema> {
    Object::with_type(Type::Object).into()
}

/// A component of `components.schemas`.
pub(super) fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// A parameter of the path, the query or the body of a read. `form` is how a statement takes it, if
/// one does. `is_write`: a number that its column cannot hold is refused. In a read it finds no
/// row.
pub(super) fn of_param(
    param: &ParamSettings,
    texts: Texts,
    form: Option<&JsonForm>,
    is_write: bool,
) -> RefOr<Schema> {
    let default = param.default.as_ref().map(|default| match default {
        ParamValue::Text(text) => json!(text),
        ParamValue::Integer(number) => json!(number),
        ParamValue::Boolean(yes) => json!(yes),
    });
    let schema = of_kind(&param.kind, texts);
    let schema = match (&param.kind, form) {
        (ParamKind::Text { one_of, .. }, Some(form)) if one_of.is_empty() => as_text(schema, form),
        (kind, Some(form)) if is_write => within(schema, kind, form),
        _ => schema,
    };
    schema.default(default).into()
}

/// A field of a body that the configuration declares. `form` is how the statement takes it.
pub(super) fn of_declared_field(
    kind: &ParamKind,
    form: Option<&JsonForm>,
    required: bool,
) -> RefOr<Schema> {
    let schema = of_kind(kind, Texts::OneLine);
    let schema = match form {
        Some(form) => within(schema, kind, form),
        None => schema,
    };
    if required {
        schema.into()
    } else {
        let null = Object::with_type(Type::Null);
        AnyOfBuilder::new().item(schema).item(null).into()
    }
}

/// The declared numbers that the column of a write can hold.
fn within(schema: ObjectBuilder, kind: &ParamKind, form: &JsonForm) -> ObjectBuilder {
    match (kind, form) {
        (
            ParamKind::Integer { min, max },
            JsonForm::Integer {
                min: least,
                max: most,
            },
        ) => schema
            .minimum(Some(*min.max(least)))
            .maximum(Some(*max.min(most))),
        _ => schema,
    }
}

/// The values that a declaration accepts.
fn of_kind(kind: &ParamKind, texts: Texts) -> ObjectBuilder {
    let schema = ObjectBuilder::new();
    match kind {
        ParamKind::Boolean => schema.schema_type(Type::Boolean),
        ParamKind::Integer { min, max } => schema
            .schema_type(Type::Integer)
            .minimum(Some(*min))
            .maximum(Some(*max)),
        ParamKind::Text { one_of, .. } if !one_of.is_empty() => schema
            .schema_type(Type::String)
            .enum_values(Some(one_of.clone())),
        ParamKind::Text {
            pattern, max_len, ..
        } => {
            let schema = schema
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(*max_len));
            match pattern {
                None => schema.pattern(Some(texts.any())),
                Some(pattern) => match pattern::translated(pattern, texts) {
                    Some(translated) => schema.pattern(Some(translated)),
                    None => schema
                        .pattern(Some(texts.any()))
                        .description(Some(kind.to_string())),
                },
            }
        }
    }
}

/// A text that the database reads as a value of another type.
fn as_text(schema: ObjectBuilder, form: &JsonForm) -> ObjectBuilder {
    match form {
        JsonForm::Text {
            format: Some(format),
        } => schema.format(Some(custom(format))),
        JsonForm::OneOf(labels) => schema.enum_values(Some(labels.clone())),
        JsonForm::Boolean => schema.enum_values(Some(["true", "false"])),
        JsonForm::Integer { .. } => schema.pattern(Some("^-?[0-9]+$")),
        JsonForm::Number { .. } => schema.pattern(Some(r"^-?[0-9]+(\.[0-9]+)?$")),
        _ => schema,
    }
}

fn custom(format: &str) -> SchemaFormat {
    SchemaFormat::Custom(format.to_owned())
}

/// The component that describes JSON without NUL characters, as `jsonb` takes it.
pub(super) const JSONB: &str = "database.json";

/// Any JSON without a NUL character in its strings and names.
pub(super) fn jsonb() -> RefOr<Schema> {
    let text = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(pattern::WITHOUT_NUL))
    };
    let plain = SchemaType::Array(vec![Type::Null, Type::Boolean, Type::Number]);
    let members = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(text()))
        .additional_properties(Some(Ref::from_schema_name(JSONB)));
    AnyOfBuilder::new()
        .item(Object::with_type(plain))
        .item(text())
        .item(array(reference(JSONB), None))
        .item(members)
        // The type of alternatives here has no `title` of its own.
        .extensions(Some(Extensions::from_iter([("title", "JSON")])))
        .into()
}

/// Whether the schema of a field of this form refers to [`JSONB`].
pub(super) fn has_jsonb(form: &JsonForm) -> bool {
    match form {
        JsonForm::AnyWithoutNul => true,
        JsonForm::Array(element) => has_jsonb(element),
        _ => false,
    }
}

/// A field of a body that only the database knows. SQLite takes any JSON, and a NUL in its texts.
pub(super) fn of_field(form: &JsonForm) -> RefOr<Schema> {
    let nullable =
        |ty: Type| ObjectBuilder::new().schema_type(SchemaType::Array(vec![ty, Type::Null]));
    match form {
        JsonForm::AnyWithoutNul => reference(JSONB),
        // Any JSON. SQLite has no whole number of more than 64 bits, and no infinity.
        JsonForm::Stored { .. } => ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .minimum(Some(i64::MIN))
            .maximum(Some(i64::MAX))
            .into(),
        JsonForm::Text { format: None } => nullable(Type::String)
            .pattern(Some(pattern::WITHOUT_NUL))
            .into(),
        JsonForm::Base64 => nullable(Type::String)
            .content_encoding("base64")
            .pattern(Some(pattern::BASE64))
            .into(),
        JsonForm::Array(element) => of_array(of_field(element), true),
        JsonForm::Integer { min, max } => nullable(Type::Integer)
            .minimum(Some(*min))
            .maximum(Some(*max))
            .into(),
        // A decimal may come as a string, so that no client rounds it.
        JsonForm::Number { exact: true } => ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![
                Type::Number,
                Type::String,
                Type::Null,
            ]))
            .pattern(Some(pattern::DECIMAL))
            .into(),
        other => of_form(other, true),
    }
}

/// A row: an object with these columns.
pub(super) fn row(description: &Description) -> RefOr<Schema> {
    let columns = description.columns.iter().zip(&description.column_forms);
    let mut schema = ObjectBuilder::new().schema_type(Type::Object);
    for (name, column) in columns {
        schema = schema.property(name, of_column(column)).required(name);
    }
    schema.into()
}

/// An array of `items`.
pub(super) fn array(items: RefOr<Schema>, least: Option<usize>) -> RefOr<Schema> {
    ArrayBuilder::new().items(items).min_items(least).into()
}

/// A column of a row.
pub(super) fn of_column(column: &ColumnForm) -> RefOr<Schema> {
    of_form(&column.form, column.nullable)
}

/// A value in a row.
fn of_form(form: &JsonForm, nullable: bool) -> RefOr<Schema> {
    let typed = |types: &[Type]| {
        let mut types = types.to_vec();
        types.extend(nullable.then_some(Type::Null));
        ObjectBuilder::new().schema_type(match types.as_slice() {
            [one] => SchemaType::Type(one.clone()),
            _ => SchemaType::Array(types),
        })
    };
    match form {
        JsonForm::Any | JsonForm::AnyWithoutNul => any(),
        JsonForm::Null => Object::with_type(Type::Null).into(),
        JsonForm::Boolean => typed(&[Type::Boolean]).into(),
        JsonForm::Integer { min, max } => {
            let schema = typed(&[Type::Integer]);
            match (*min, *max) {
                (i64::MIN, i64::MAX) => schema.format(Some(custom("int64"))),
                (min, max) => schema.minimum(Some(min)).maximum(Some(max)),
            }
            .into()
        }
        JsonForm::Number { .. } => {
            let special = ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(["NaN", "Infinity", "-Infinity"]));
            let number = AnyOfBuilder::new()
                .item(Object::with_type(Type::Number))
                .item(special);
            match nullable {
                true => number.item(Object::with_type(Type::Null)),
                false => number,
            }
            .into()
        }
        JsonForm::Text { format } => {
            let schema = typed(&[Type::String]).format(format.map(custom));
            // Postgres has two values that are no date.
            let endless = format.is_some_and(|format| format.starts_with("date"));
            schema
                .description(endless.then_some("Also \"infinity\" and \"-infinity\"."))
                .into()
        }
        JsonForm::OneOf(labels) => {
            let mut values: Vec<Value> = labels.iter().map(|label| json!(label)).collect();
            values.extend(nullable.then_some(Value::Null));
            typed(&[Type::String]).enum_values(Some(values)).into()
        }
        JsonForm::Base64 => typed(&[Type::String]).content_encoding("base64").into(),
        JsonForm::Array(element) => of_array(of_form(element, true), nullable),
        JsonForm::Stored { declared } => {
            let upper = declared.as_deref().unwrap_or_default().to_ascii_uppercase();
            let schema = match upper.as_str() {
                "BOOLEAN" | "BOOL" => typed(&[Type::Boolean, Type::Number, Type::String]),
                upper if upper.contains("INT") => {
                    typed(&[Type::Integer, Type::Number, Type::String])
                }
                _ => typed(&[Type::Number, Type::String]),
            };
            let note = declared.as_deref().map(|declared| {
                format!("Declared {declared}, which SQLite enforces in STRICT tables only.")
            });
            schema.description(note).into()
        }
    }
}

/// An array of Postgres. Its type does not say how many dimensions a value has.
fn of_array(element: RefOr<Schema>, nullable: bool) -> RefOr<Schema> {
    let inner = AnyOfBuilder::new()
        .item(element)
        .item(Object::with_type(Type::Array));
    let types = match nullable {
        true => SchemaType::Array(vec![Type::Array, Type::Null]),
        false => Type::Array.into(),
    };
    ArrayBuilder::new()
        .schema_type(types)
        .items(RefOr::from(inner))
        .into()
}

/// An article, as every upstream's becomes.
pub(super) fn article() -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let optional =
        || ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::String, Type::Null]));
    let source = "The publisher, in lower case, with `-` for spaces.";
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("title", text())
        .required("title")
        .property("description", optional())
        .required("description")
        .property(
            "url",
            text().description(Some("Its page, `http` or `https`.")),
        )
        .required("url")
        .property("image", optional())
        .required("image")
        .property("author", optional())
        .required("author")
        .property("source", text().description(Some(source)))
        .required("source")
        .property("published_at", text().format(Some(custom("date-time"))))
        .required("published_at")
        .property("category", text())
        .required("category")
        .into()
}

/// The answer of a news resource.
pub(super) fn articles() -> RefOr<Schema> {
    let count = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some("How many articles this answer has."));
    let flag = |says: &str| {
        ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .enum_values(Some([true]))
            .description(Some(says))
    };
    let cached = ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .description(Some("False if this request waited for a source."));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("articles", array(reference(ARTICLE), None))
        .required("articles")
        .property("total", count)
        .required("total")
        .property("partial", flag("An upstream gave nothing."))
        .property(
            "archived",
            flag("No upstream answered: these are from the archive."),
        )
        .property("sandbox", flag("Some of these articles are made up."))
        .property("cached", cached)
        .required("cached")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .into()
}
