//! Reading a spec so that an error names the very field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::{Invalid, Object};

/// The spec as the type `S`, all of it or nothing: for objects where half of what was asked for would be something else.
pub(crate) fn strict<S: DeserializeOwned>(object: &Object) -> Result<S, Invalid> {
    serde_path_to_error::deserialize(&object.spec).map_err(|error| invalid(object, &error))
}

/// The spec as the type `S`, without the top-level fields that cannot be read: for settings which stand each for itself,
/// where the default of all would be worse than the default of one. An absent spec is an empty one.
pub(crate) fn lenient<S: DeserializeOwned + Default>(object: &Object) -> (S, Vec<Invalid>) {
    let mut fields = match &object.spec {
        Value::Null => Map::new(),
        Value::Object(fields) => fields.clone(),
        other => return (S::default(), vec![object.invalid("spec", format!("{other} is no mapping"))]),
    };
    let mut refused = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize(&Value::Object(fields.clone())) {
            Ok(spec) => return (spec, refused),
            Err(error) => error,
        };
        refused.push(invalid(object, &error));
        let removed = match error.path().iter().next() {
            Some(Segment::Map { key }) => fields.remove(key),
            _ => None,
        };
        if removed.is_none() {
            return (S::default(), refused);
        }
    }
}

fn invalid(object: &Object, error: &serde_path_to_error::Error<serde_json::Error>) -> Invalid {
    let field = match error.path().to_string().as_str() {
        "." => "spec".to_owned(),
        path => format!("spec.{path}"),
    };
    object.invalid(field, error.inner())
}
