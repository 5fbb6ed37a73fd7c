//! A resource as a path item: its read and its writes.

use std::time::Duration;

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItemBuilder,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, Object, ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, PathItem, RefOr, Required, Schema};

use crate::api::body;
use crate::api::problem::Problem;
use crate::api::resource::CLOCK_DIGITS;
use crate::database::{Description, JsonForm, Query, Shape};
use crate::resource::{
    BadParameter, Descriptions, ParamSettings, ReadMethod, ResourceSettings, SourceSettings,
    WriteMethod, WriteSettings, Wrong, longest_look_up,
};
use larder_cache::LoadError;

use super::pattern::Texts;
use super::{answers, schemas};

/// The security scheme: an API key.
pub(super) const KEY: &str = "key";

/// What the operations of all resources depend on.
#[derive(Clone, Copy)]
pub(super) struct Operations<'a> {
    pub(super) resources: &'a [&'a ResourceSettings],
    pub(super) descriptions: &'a Descriptions,
    /// Whether a resource that is not public needs a key.
    pub(super) keys_required: bool,
}

impl<'a> Operations<'a> {
    /// The path item of a resource.
    pub(super) fn path_item(self, resource: &ResourceSettings) -> PathItem {
        let mut item = PathItemBuilder::new();
        if let Some(source) = &resource.source {
            for method in resource.read.iter() {
                let read = self.read(resource, source, method);
                item = match method {
                    ReadMethod::Get => item.operation(HttpMethod::Get, read),
                    ReadMethod::Post => item.operation(HttpMethod::Post, read),
                    ReadMethod::Query => item.extensions(Some(x_query(&read))),
                };
            }
        }
        for write in &resource.writes {
            let method = match write.method {
                WriteMethod::Post => HttpMethod::Post,
                WriteMethod::Put => HttpMethod::Put,
                WriteMethod::Patch => HttpMethod::Patch,
                WriteMethod::Delete => HttpMethod::Delete,
            };
            item = item.operation(method, self.write(resource, write));
        }
        item.build()
    }

    /// The schema of the answer of a read, or of one part of it. Another resource's is not referred
    /// to.
    pub(super) fn value(self, source: &SourceSettings) -> RefOr<Schema> {
        match source {
            SourceSettings::News(_) => schemas::reference(schemas::ARTICLES),
            SourceSettings::Http(_) => schemas::any(),
            SourceSettings::Sql(sql) => {
                let row = self.row(&sql.query);
                match sql.shape {
                    Shape::One => row,
                    Shape::Many => schemas::array(row, None),
                }
            }
            SourceSettings::Composite(parts) => self.composite(parts),
        }
    }

    fn row(self, query: &Query) -> RefOr<Schema> {
        let described = self.descriptions.get(query);
        described.map_or_else(schemas::object, schemas::row)
    }

    /// The members of all parts. If two parts have a member of one name, it has the value of the
    /// later part, unless that part is absent.
    fn composite(self, parts: &[String]) -> RefOr<Schema> {
        let mut members: Vec<(&str, RefOr<Schema>, bool)> = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let Some(description) = self.part(part) else {
                return schemas::object();
            };
            let columns = description.columns.iter().zip(&description.column_forms);
            for (name, column) in columns {
                let schema = schemas::of_column(column);
                match members.iter_mut().find(|(known, ..)| known == name) {
                    Some((_, known, _)) if *known == schema => {}
                    Some((_, known, _)) => {
                        let either = AnyOfBuilder::new().item(known.clone()).item(schema);
                        *known = either.into();
                    }
                    None => members.push((name, schema, at == 0)),
                }
            }
        }
        let object = ObjectBuilder::new().schema_type(Type::Object);
        let object = members
            .into_iter()
            .fold(object, |object, (name, schema, always)| {
                let object = object.property(name, schema);
                if always {
                    object.required(name)
                } else {
                    object
                }
            });
        object.into()
    }

    /// The description of a part that comes from SQL.
    fn part(self, name: &str) -> Option<&'a Description> {
        let mut resources = self.resources.iter();
        let part = resources.find(|resource| resource.name == name)?;
        match &part.source {
            Some(SourceSettings::Sql(sql)) => self.descriptions.get(&*sql.query),
            _ => None,
        }
    }

    /// Whether there may be no value.
    fn can_be_absent(self, source: &SourceSettings) -> bool {
        match source {
            SourceSettings::News(_) => false,
            SourceSettings::Sql(sql) => sql.shape == Shape::One,
            SourceSettings::Http(_) | SourceSettings::Composite(_) => true,
        }
    }

    /// How the statement of a read takes the parameter `name`.
    fn form_in_source(self, source: Option<&SourceSettings>, name: &str) -> Option<&'a JsonForm> {
        match source? {
            SourceSettings::Sql(sql) => form_of(self.descriptions.get(&*sql.query)?, name),
            SourceSettings::Composite(parts) => {
                let mut parts = parts.iter().filter_map(|part| self.part(part));
                parts.find_map(|part| form_of(part, name))
            }
            SourceSettings::News(_) | SourceSettings::Http(_) => None,
        }
    }

    fn read(
        self,
        resource: &ResourceSettings,
        source: &SourceSettings,
        method: ReadMethod,
    ) -> Operation {
        let verb = method.name().to_lowercase();
        let by_body = method != ReadMethod::Get;
        let longest = self.longest(source);
        let longest = longest.map(first_answer);
        let mut notes: Vec<&str> = resource.description.as_deref().into_iter().collect();
        if by_body && !resource.params.is_empty() {
            notes.push(IN_BODY);
        }
        if resource.refuses_unknown {
            notes.push(ONLY_LISTED);
        }
        if method == ReadMethod::Post && resource.read.has(ReadMethod::Query) {
            notes.push(AS_QUERY);
        }
        notes.extend(longest.as_deref());
        let mut operation = begin(resource, &verb, None, &notes);
        let schema_of = |param: &ParamSettings| {
            let texts = Texts::of_params(resource.read);
            let form = self.form_in_source(Some(source), &param.name);
            schemas::of_param(param, texts, form, false)
        };
        let (in_body, outside): (Vec<_>, Vec<_>) = resource
            .params
            .iter()
            .partition(|param| by_body && !resource.has_in_path(&param.name));
        for param in outside {
            let schema = schema_of(param);
            operation = operation.parameter(parameter(resource, param, param.required, schema));
        }
        if by_body {
            let members = in_body.into_iter();
            let members = members.map(|param| (&*param.name, schema_of(param), param.required));
            operation = operation.request_body(Some(json_body(members, Required::True)));
        }
        if method != ReadMethod::Post {
            operation = operation.parameter(request_header("If-None-Match", IF_NONE_MATCH));
        }
        operation = operation.parameter(larder_after());
        let has_key = !resource.public;
        let key = || SecurityRequirement::new(KEY, [""; 0]);
        let securities = match (has_key, self.keys_required) {
            (false, _) => Vec::new(),
            (true, true) => vec![key()],
            (true, false) => vec![SecurityRequirement::default(), key()],
        };
        let mut headers = answers::OF_VALUE.to_vec();
        if has_key {
            headers.extend(answers::OF_RATE);
        }
        if method == ReadMethod::Query {
            headers.extend(answers::OF_QUERY);
        }
        let value = match source {
            SourceSettings::Sql(_) | SourceSettings::Composite(_) => {
                schemas::reference(&resource.name)
            }
            SourceSettings::News(_) | SourceSettings::Http(_) => self.value(source),
        };
        operation = operation
            .securities(Some(securities))
            .response("200", answers::with_body("The value.", &headers, value));
        if method != ReadMethod::Post {
            let unchanged = answers::answer("The client has this value already.", &headers);
            operation = operation.response("304", unchanged);
        }
        let mut problems = vec![
            bad_parameter(),
            Problem::RepeatedHeader(""),
            Problem::Bug,
            Problem::Load(LoadError::Failed(String::new())),
            Problem::Load(LoadError::Overloaded),
            Problem::Load(LoadError::TooSlow(String::new())),
        ];
        if has_key {
            problems.extend(refused_callers());
        }
        if self.can_be_absent(source) {
            problems.push(Problem::NotFound(""));
        }
        if by_body {
            problems.extend(refused_bodies());
            problems.push(Problem::bad_field("", ""));
        }
        let refusals = answers::refusals(&problems, has_key, true, |status| {
            let not_json = status == Problem::NotJson.status();
            method == ReadMethod::Query || (not_json && resource.read.has(ReadMethod::Query))
        });
        refusals
            .into_iter()
            .fold(operation, |operation, (status, answer)| {
                operation.response(status, answer)
            })
            .build()
    }

    /// How long a read may take whose value is in no tier, if that is known from the configuration
    /// of its resource alone.
    fn longest(self, source: &SourceSettings) -> Option<Duration> {
        match source {
            SourceSettings::Http(http) => Some(longest_look_up(http.upstream.timeout)),
            SourceSettings::Composite(parts) => {
                let mut resources = self.resources.iter();
                let part = |name: &String| resources.find(|resource| resource.name == *name);
                let sources = parts.iter().filter_map(part);
                let sources = sources.filter_map(|part| part.source.as_ref());
                sources.filter_map(|source| self.longest(source)).max()
            }
            SourceSettings::News(_) | SourceSettings::Sql(_) => None,
        }
    }

    fn write(self, resource: &ResourceSettings, write: &WriteSettings) -> Operation {
        let method = write.method;
        let (verb, does) = match method {
            WriteMethod::Post => ("post", "Create"),
            WriteMethod::Put => ("put", "Replace"),
            WriteMethod::Patch => ("patch", "Change"),
            WriteMethod::Delete => ("delete", "Delete"),
        };
        let mut notes = vec!["Needs an admin's API key."];
        if resource.refuses_unknown {
            notes.push(ONLY_LISTED);
        }
        let mut operation = begin(resource, verb, Some(does), &notes);
        let described = self.descriptions.get(&*write.query);
        let takes_body = resource.body_fields(&write.query).next().is_some();
        for param in resource.params.iter().filter(|param| !param.view) {
            let form = described.and_then(|described| form_of(described, &param.name));
            let is_field = resource
                .body_fields(&write.query)
                .any(|field| *field == param.name);
            let required = param.required && !is_field;
            let texts = Texts::of_params(resource.read);
            let schema = schemas::of_param(param, texts, form, true);
            operation = operation.parameter(parameter(resource, param, required, schema));
        }
        if resource.source.is_some() {
            operation = operation
                .parameter(request_header("If-Match", IF_MATCH))
                .parameter(request_header("If-None-Match", IF_ABSENT));
        }
        if takes_body {
            operation = operation.request_body(Some(request_body(resource, write, described)));
        }
        let mut headers = answers::OF_WRITE.to_vec();
        headers.extend(answers::OF_RATE);
        let returned = described.filter(|described| described.returns_rows);
        if write.location.is_some() && returned.is_some() {
            headers.push("Location");
        }
        let (status, says) = match (method, returned) {
            (WriteMethod::Post, _) => ("201", "Created."),
            (WriteMethod::Delete, _) | (_, None) => ("204", "Done."),
            (WriteMethod::Put | WriteMethod::Patch, Some(_)) => {
                ("200", "Done: the value from now on.")
            }
        };
        let success = match returned.filter(|_| status != "204") {
            Some(returned) => {
                let schema = self.returned(resource, write, returned);
                answers::with_body(says, &headers, schema)
            }
            None => answers::answer(says, &headers),
        };
        operation = operation
            .security(SecurityRequirement::new(KEY, ["admin"]))
            .response(status, success);
        let mut problems = vec![
            Problem::RepeatedHeader(""),
            bad_parameter(),
            Problem::NotAdmin,
            Problem::NotFound(""),
            Problem::Conflict {
                field: None,
                why: String::new(),
            },
            Problem::Bug,
            Problem::Database,
        ];
        problems.extend(refused_callers());
        if resource.source.is_some() {
            problems.push(Problem::Changed);
            if !self.is_of_database(resource.source.as_ref()) {
                problems.push(Problem::Undecidable);
            }
        }
        if takes_body {
            problems.extend(refused_bodies());
        }
        if takes_body || method != WriteMethod::Delete {
            problems.push(Problem::bad_field("", ""));
        }
        let refusals = answers::refusals(&problems, true, false, |_| false);
        refusals
            .into_iter()
            .fold(operation, |operation, (status, answer)| {
                operation.response(status, answer)
            })
            .build()
    }

    /// What a write answers: an object for one row, an array for several.
    fn returned(
        self,
        resource: &ResourceSettings,
        write: &WriteSettings,
        returned: &Description,
    ) -> RefOr<Schema> {
        let row = schemas::row(returned);
        let (value, is_one) = match &resource.source {
            Some(source @ SourceSettings::Sql(sql)) => {
                (Some(self.value(source)), sql.shape == Shape::One)
            }
            Some(source @ SourceSettings::Composite(_)) => (Some(self.value(source)), true),
            _ => (None, false),
        };
        let one = match value {
            Some(value) if value == row => schemas::reference(&resource.name),
            _ => row,
        };
        // A path that leads to one row writes one row.
        if returned.returns_one_row || (is_one && write.method != WriteMethod::Post) {
            return one;
        }
        let several = schemas::array(one.clone(), Some(2));
        AnyOfBuilder::new().item(one).item(several).into()
    }

    /// Whether the whole value comes from the database.
    fn is_of_database(self, source: Option<&SourceSettings>) -> bool {
        match source {
            Some(SourceSettings::Sql(_)) => true,
            Some(SourceSettings::Composite(parts)) => parts.iter().all(|name| {
                let mut resources = self.resources.iter();
                let part = resources.find(|resource| resource.name == *name);
                part.is_some_and(|part| matches!(part.source, Some(SourceSettings::Sql(_))))
            }),
            _ => false,
        }
    }
}

/// Every kind of problem that an operation may have.
pub(super) fn all_problems() -> Vec<Problem> {
    let mut all = vec![
        bad_parameter(),
        Problem::RepeatedHeader(""),
        Problem::BadJson(String::new()),
        Problem::NotAdmin,
        Problem::NotFound(""),
        Problem::BodyTooSlow {
            limit: Duration::ZERO,
        },
        Problem::Conflict {
            field: None,
            why: String::new(),
        },
        Problem::Changed,
        Problem::Undecidable,
        Problem::TooLarge { limit: body::LIMIT },
        Problem::NotJson,
        Problem::bad_field("", ""),
        Problem::Bug,
        Problem::Load(LoadError::Failed(String::new())),
        Problem::Load(LoadError::Overloaded),
        Problem::Database,
        Problem::Load(LoadError::TooSlow(String::new())),
    ];
    all.extend(refused_callers());
    all
}

fn bad_parameter() -> Problem {
    Problem::BadParameter(BadParameter {
        name: String::new(),
        wrong: Wrong::NotValid,
        valid: String::new(),
    })
}

/// What a caller with a wrong key, or without one, gets.
fn refused_callers() -> [Problem; 3] {
    let retry_after = Duration::ZERO;
    [
        Problem::NoKey(""),
        Problem::TooOften { retry_after },
        Problem::WrongKeys { retry_after },
    ]
}

/// What a body that is not read gets.
fn refused_bodies() -> [Problem; 4] {
    let limit = Duration::ZERO;
    [
        Problem::BadJson(String::new()),
        Problem::BodyTooSlow { limit },
        Problem::TooLarge { limit: body::LIMIT },
        Problem::NotJson,
    ]
}

/// The operation of `QUERY`, as an extension of its path item.
fn x_query(operation: &Operation) -> Extensions {
    // An operation has no map whose keys are not texts, so this cannot fail.
    let operation = serde_json::to_value(operation).unwrap_or_default();
    Extensions::from_iter([("x-query", operation)])
}

/// What a client has to know of the longest time until an answer.
fn first_answer(longest: Duration) -> String {
    let seconds = longest.as_secs();
    format!(
        "An answer that is not in the cache takes at most {seconds} seconds, as long as its source \
         may. Let the client wait longer than that: the next one who asks the same gets the answer \
         at once."
    )
}

const IN_BODY: &str = "A parameter of the body that is in the query is refused with 400.";
const AS_QUERY: &str = "QUERY asks the same: `x-query` of this path says how. Its answer may be \
    stored, and it takes `If-None-Match`.";
const ONLY_LISTED: &str = "A query parameter that is not listed here is refused with 400.";
const IF_NONE_MATCH: &str = "Entity tags that the client has: 304 if one of them is current.";
const IF_MATCH: &str = "The `ETag` of a read, or `*`: 412 unless the value is still that one.";
const IF_ABSENT: &str = "`*`: 412 if there is a value already.";
const AFTER: &str = "The `Larder-Clock` of a change: the answer is not older than that change.";

/// An operation with what all have in common.
fn begin(
    resource: &ResourceSettings,
    verb: &str,
    does: Option<&str>,
    notes: &[&str],
) -> OperationBuilder {
    let name = &resource.name;
    let summary = match (does, &resource.summary) {
        (None, Some(summary)) => summary.clone(),
        (None, None) => format!("Read {name}"),
        (Some(does), _) => format!("{does} {name}"),
    };
    OperationBuilder::new()
        .tag(name)
        .operation_id(Some(format!("{verb}_{name}")))
        .summary(Some(summary))
        .description((!notes.is_empty()).then(|| notes.join("\n\n")))
}

fn parameter(
    resource: &ResourceSettings,
    param: &ParamSettings,
    required: bool,
    schema: RefOr<Schema>,
) -> ParameterBuilder {
    let in_path = resource.has_in_path(&param.name);
    let place = if in_path {
        ParameterIn::Path
    } else {
        ParameterIn::Query
    };
    let once = "Given once and not empty, or 400.";
    ParameterBuilder::new()
        .name(&param.name)
        .parameter_in(place)
        .required(if required {
            Required::True
        } else {
            Required::False
        })
        .description((!in_path).then_some(once))
        .schema(Some(schema))
}

fn request_header(name: &str, says: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(says))
        .schema(Some(Object::with_type(Type::String)))
}

fn larder_after() -> ParameterBuilder {
    let clock = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^[0-9]{{1,{CLOCK_DIGITS}}}$")));
    request_header("Larder-After", AFTER).schema(Some(clock))
}

/// The body of a write: the fields that its statement takes, and nothing else.
fn request_body(
    resource: &ResourceSettings,
    write: &WriteSettings,
    described: Option<&Description>,
) -> RequestBody {
    let fields = resource.body_fields(&write.query).map(|name| {
        let declared = write.fields.iter().find(|field| field.name == *name);
        let form = described.and_then(|described| form_of(described, name));
        let field = match (declared, form) {
            (Some(field), form) => schemas::of_declared_field(&field.kind, form, field.required),
            (None, Some(form)) => schemas::of_field(form),
            (None, None) => schemas::any(),
        };
        let required = declared.is_some_and(|field| field.required);
        (name.as_str(), field, required)
    });
    let required = if resource.needs_body(&write.query) {
        Required::True
    } else {
        Required::False
    };
    json_body(fields, required)
}

/// A body with these members and no others: the name of each, its schema, and whether it is
/// required.
fn json_body<'m>(
    members: impl Iterator<Item = (&'m str, RefOr<Schema>, bool)>,
    required: Required,
) -> RequestBody {
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let schema = members.fold(object, |object, (name, schema, required)| {
        let object = object.property(name, schema);
        match required {
            true => object.required(name),
            false => object,
        }
    });
    RequestBodyBuilder::new()
        .description(Some(format!("At most {} bytes.", body::LIMIT)))
        .content(
            "application/json",
            ContentBuilder::new().schema(Some(schema)).build(),
        )
        .required(Some(required))
        .build()
}

/// How a statement takes the parameter `name`.
fn form_of<'d>(described: &'d Description, name: &str) -> Option<&'d JsonForm> {
    let parameters = described.parameters.iter().zip(&described.parameter_forms);
    let mut named = parameters.filter(|((known, _), _)| known == name);
    named.next().map(|(_, form)| form)
}
