//! Reading a spec so that an error names the very field.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use crate::{Invalid, Object};

type Error = serde_path_to_error::Error<serde_json::Error>;

/// The spec as the type `S`, all of it or nothing: for objects where half of what was asked for would be something else.
pub(crate) fn strict<S: DeserializeOwned>(object: &Object) -> Result<S, Invalid> {
    serde_path_to_error::deserialize(&object.spec)
        .map_err(|error: Error| object.invalid(field(error.path(), 0), error.inner()))
}

/// The spec as the type `S`, without the top-level fields, or the entries of lists, that cannot be read: for settings
/// which stand each for itself, where the default of all would be worse than the default of one. An absent spec is an
/// empty one.
pub(crate) fn lenient<S: DeserializeOwned + Default>(object: &Object) -> (S, Vec<Invalid>) {
    let mut fields = match &object.spec {
        Value::Null => Map::new(),
        Value::Object(fields) => fields.clone(),
        other => return (S::default(), vec![object.invalid("spec", format!("{other} is no mapping"))]),
    };
    let mut refused = Vec::new();
    // Entries taken out of each list so far: by so much the later ones have moved up.
    let mut moved: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let error: Error = match serde_path_to_error::deserialize(&Value::Object(fields.clone())) {
            Ok(spec) => return (spec, refused),
            Err(error) => error,
        };
        let path: Vec<&Segment> = error.path().iter().collect();
        let Some(Segment::Map { key }) = path.first().copied() else {
            refused.push(object.invalid("spec", error.inner()));
            return (S::default(), refused);
        };
        let moved = moved.entry(key.clone()).or_default();
        refused.push(object.invalid(field(error.path(), *moved), error.inner()));
        match (fields.get_mut(key), path.get(1)) {
            (Some(Value::Array(list)), Some(Segment::Seq { index })) if *index < list.len() => {
                list.remove(*index);
                *moved += 1;
            }
            _ => drop(fields.remove(key)),
        }
    }
}

/// A path as `spec.list[3].field`, where the first list has lost `moved` entries before this one.
fn field(path: &Path, moved: usize) -> String {
    let mut text = "spec".to_owned();
    for (depth, segment) in path.iter().enumerate() {
        match segment {
            Segment::Seq { index } if depth == 1 => text += &format!("[{}]", index + moved),
            Segment::Seq { index } => text += &format!("[{index}]"),
            Segment::Map { key } => text += &format!(".{key}"),
            Segment::Enum { variant } => text += &format!(".{variant}"),
            Segment::Unknown => {}
        }
    }
    text
}
