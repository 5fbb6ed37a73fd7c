//! How an admin names the entry of a read: by the path of a `GET`, or by a resource and its
//! parameters.
//!
//! Promise: both mean the entry that the read itself would get. Parameters are read as those in the
//! body of a `POST` or `QUERY` are, also for a resource that has neither, or that has no path.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::resource::{
    Arguments, BadParameter, Given, Members, ReadMethod, Resource, Resources, Wrong,
};
use larder_cache::{InvalidationTarget, KeyText};

use super::problem::Problem;
use super::{body, path};

const WITHOUT_PARAMS: &str = "an object: the parameters of the resource by their names";
const WITHOUT_RESOURCE: &str = "the name of a resource, beside its params";

/// See the module.
pub(super) enum Asked {
    /// A request path with its query.
    Path(String),
    /// A resource, with all its parameters as an object: those of its path too.
    Params {
        resource: String,
        params: Box<RawValue>,
    },
}

/// Why no entry is meant.
pub(super) enum Misnamed {
    /// Nothing is read there. The text says what is missing.
    Nothing(&'static str),
    /// Not by this path. The text says how else.
    NotByGet(String),
    /// The parameters are not a JSON object.
    NoObject,
    /// A parameter is not valid.
    Parameter(BadParameter),
}

impl Misnamed {
    /// Whether there is nothing by this name at all.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Misnamed::Nothing(_))
    }

    /// As a problem of a body whose field `field` has the path or the resource.
    pub(super) fn in_body(self, field: &str) -> Problem {
        match self {
            Misnamed::Nothing(_) if field == "resource" => {
                Problem::bad_field(field, "the name of a declared resource that is read")
            }
            Misnamed::Nothing(_) => {
                Problem::bad_field(field, "paths of declared resources, with their query")
            }
            Misnamed::NotByGet(how) => Problem::bad_field(field, &how),
            Misnamed::NoObject => Problem::bad_field("params", WITHOUT_PARAMS),
            Misnamed::Parameter(bad) if field == "resource" => Problem::bad_member(bad),
            Misnamed::Parameter(bad) => Problem::bad_field(field, &bad.to_string()),
        }
    }

    /// As a problem of a query.
    pub(super) fn in_query(self) -> Problem {
        match self {
            Misnamed::Nothing(what) => Problem::NotFound(what),
            Misnamed::NotByGet(how) => bad_parameter("path", Wrong::NotValid, &how),
            Misnamed::NoObject => bad_parameter("params", Wrong::NotValid, WITHOUT_PARAMS),
            Misnamed::Parameter(bad) => bad.into(),
        }
    }
}

fn bad_parameter(name: &str, wrong: Wrong, valid: &str) -> Problem {
    Problem::BadParameter(BadParameter {
        name: name.to_owned(),
        wrong,
        valid: valid.to_owned(),
    })
}

impl Asked {
    /// Takes `resource` and `params` out of a body. `None`: it has neither.
    ///
    /// # Errors
    /// If it has one of them only, or the name is not a text.
    pub(super) fn named(
        body: &mut BTreeMap<String, Box<RawValue>>,
    ) -> Result<Option<Asked>, Problem> {
        let name = body::take::<String>(body, "resource", WITHOUT_RESOURCE)?;
        match (name, body.remove("params")) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Problem::bad_field("resource", WITHOUT_RESOURCE)),
            (Some(_), None) => Err(Problem::bad_field("params", WITHOUT_PARAMS)),
            (Some(resource), Some(params)) => Ok(Some(Asked::Params { resource, params })),
        }
    }

    /// What a body of `path`, or of `resource` and `params`, asks for.
    ///
    /// # Errors
    /// If it has both, or neither, or anything else.
    pub(super) fn of_body(mut body: BTreeMap<String, Box<RawValue>>) -> Result<Asked, Problem> {
        let one = "either path, or resource and params";
        let path = body::take(&mut body, "path", "a request path with its query")?;
        let named = Asked::named(&mut body)?;
        match (path.map(Asked::Path), named, body.keys().next()) {
            (_, _, Some(unknown)) => Err(Problem::bad_field(unknown, one)),
            (Some(asked), None, None) | (None, Some(asked), None) => Ok(asked),
            (None, None, None) | (Some(_), Some(_), None) => Err(Problem::bad_field("body", one)),
        }
    }

    /// What the query of a request asks for: `path=`, or `resource=` and `params=`, which is JSON.
    ///
    /// # Errors
    /// If it has both or neither.
    pub(super) fn of_query(query: Vec<(String, String)>) -> Result<Asked, Problem> {
        let value = |wanted: &str| {
            let mut named = query.iter().filter(|(name, _)| name == wanted);
            let value = named.next().map(|(_, value)| value.clone());
            value.filter(|value| !value.is_empty())
        };
        match (value("path"), value("resource"), value("params")) {
            (Some(path), None, None) => Ok(Asked::Path(path)),
            (None, Some(resource), Some(params)) => match RawValue::from_string(params) {
                Ok(params) => Ok(Asked::Params { resource, params }),
                Err(_) => Err(Misnamed::NoObject.in_query()),
            },
            (None, Some(_), None) => Err(bad_parameter("params", Wrong::Missing, WITHOUT_PARAMS)),
            (None, None, Some(_)) => {
                Err(bad_parameter("resource", Wrong::Missing, WITHOUT_RESOURCE))
            }
            (None, None, None) => {
                let valid =
                    "a request path with its query, percent-encoded; or resource and params";
                Err(bad_parameter("path", Wrong::Missing, valid))
            }
            (Some(_), ..) => {
                let valid = "either path, or resource and params";
                Err(bad_parameter("path", Wrong::NotValid, valid))
            }
        }
    }

    /// Calls `then` with the resource and the arguments of the read.
    ///
    /// # Errors
    /// If no resource is read so, or an argument is not valid.
    pub(super) fn find<T>(
        &self,
        resources: &Resources,
        then: impl FnOnce(&Arc<Resource>, Arguments<'_>) -> Result<T, BadParameter>,
    ) -> Result<T, Misnamed> {
        match self {
            Asked::Path(path) => {
                let (at, query) = path::with_query(path);
                let nothing = "Nothing is served at this path.";
                let found = resources.find(&at).ok_or(Misnamed::Nothing(nothing))?;
                let resource = found.resource;
                if !resource.is_read() {
                    return Err(Misnamed::Nothing("Nothing is read at this path."));
                }
                if !resource.is_read_by(ReadMethod::Get) {
                    return Err(Misnamed::NotByGet(format!(
                        "a path that is read by GET. This one is read by {}: name its entries by \
                         \"resource\": \"{}\" and \"params\", an object with all parameters",
                        resource.settings().read,
                        resource.name(),
                    )));
                }
                let given = Given::Query(query);
                let path = &found.path_arguments;
                then(resource, Arguments { path, given }).map_err(Misnamed::Parameter)
            }
            Asked::Params { resource, params } => {
                let mut all = resources.all().iter();
                let resource = all
                    .find(|known| known.name() == resource)
                    .ok_or(Misnamed::Nothing("There is no resource with this name."))?;
                if !resource.is_read() {
                    return Err(Misnamed::Nothing("This resource is only written."));
                }
                let members = Members::parse(params.get().as_bytes());
                let members = members.map_err(|_| Misnamed::NoObject)?;
                let arguments = Arguments {
                    path: &Default::default(),
                    given: Given::Body(&members),
                };
                // This checks the parameters that are no part of the key, too.
                let checked = resource.key(arguments, &mut KeyText::default());
                checked
                    .and_then(|_| then(resource, arguments))
                    .map_err(Misnamed::Parameter)
            }
        }
    }

    /// What invalidates the entry and its parts. `field` of the body has the path or the resource.
    pub(super) fn targets(
        &self,
        field: &str,
        resources: &Resources,
    ) -> Result<Vec<InvalidationTarget>, Problem> {
        let targets = self.find(resources, |resource, arguments| resource.targets(arguments));
        targets.map_err(|misnamed| misnamed.in_body(field))
    }
}
