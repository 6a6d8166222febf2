//! Manifests: how an object is written for people, and what is said when one cannot be read.

use std::path::Path;

use manx_model::{Invalid, Kind, Object};
use serde_json::{Map, Value};

/// The object as a manifest, keys in the order in which `kubectl get -o yaml` has them.
pub(crate) fn render(object: &Object) -> Result<String, String> {
    let options = serde_saphyr::ser_options! { compact_list_indent: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(object, options).map_err(|error| error.to_string())
}

/// Reads the manifest of the `kind` with this key; an error names the file, and the line where that is known.
pub(crate) fn parse(kind: Kind, key: &str, path: &Path, bytes: &[u8]) -> Result<Object, Invalid> {
    let refuse = |line: Option<u64>, reason: String| {
        let line = line.map(|line| format!(" line {line}")).unwrap_or_default();
        Invalid { kind, name: key.to_owned(), field: format!("{}{line}", path.display()), reason }
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64;
        refuse(Some(line), "is not UTF-8 text".into())
    })?;
    if text.trim().is_empty() {
        return Err(refuse(None, format!("is empty; a {kind} has apiVersion, kind, metadata and spec")));
    }
    // YAML 1.2's booleans only: `country: no` stays Norway. A field that is a boolean then refuses `no` by name.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
        refuse(line, error.to_string())
    })?;
    check_strings(&value).map_err(|(key, reason)| refuse(line_of(text, &key), reason))?;
    let object = Object::from_value(kind, value).map_err(|reason| {
        let field =
            ["apiVersion", "kind"].into_iter().find(|field| reason.starts_with(&format!("{field} is")));
        refuse(field.and_then(|field| line_of(text, field)), reason)
    })?;
    match object.key() == key {
        true => Ok(object),
        false => {
            let reason = format!(
                "metadata.name is {:?}, and the file's name says {key:?}; rename one of the two",
                object.key()
            );
            Err(refuse(line_of(text, "name"), reason))
        }
    }
}

/// YAML reads `port: 80` as a number, and Kubernetes wants text in metadata. `Err` has the key and the whole story.
fn check_strings(value: &Value) -> Result<(), (String, String)> {
    let Some(metadata) = value.get("metadata").and_then(Value::as_object) else { return Ok(()) };
    for key in ["name", "namespace", "resourceVersion", "uid"] {
        if let Some(value) = metadata.get(key) {
            check_string("metadata", key, value)?;
        }
    }
    for field in ["labels", "annotations"] {
        let strings: Option<&Map<String, Value>> = metadata.get(field).and_then(Value::as_object);
        for (key, value) in strings.into_iter().flatten() {
            check_string(&format!("metadata.{field}"), key, value)?;
        }
    }
    Ok(())
}

fn check_string(parent: &str, key: &str, value: &Value) -> Result<(), (String, String)> {
    let what = match value {
        Value::String(_) => return Ok(()),
        Value::Null => "empty".to_owned(),
        Value::Bool(_) => format!("the boolean {value}"),
        Value::Number(_) => format!("the number {value}"),
        Value::Array(_) | Value::Object(_) => "a list or mapping".to_owned(),
    };
    let hint = match value {
        Value::Array(_) | Value::Object(_) => String::new(),
        Value::Null => r#", as in """#.to_owned(),
        value => format!(r#", as in "{value}""#),
    };
    Err((key.to_owned(), format!("{parent}: {key} is {what}, and must be text: put it in quotes{hint}")))
}

/// The first line that has this key, for errors of which the YAML reader knows nothing.
fn line_of(text: &str, key: &str) -> Option<u64> {
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'']);
        let rest = line.strip_prefix(key).map(|rest| rest.trim_start_matches(['"', '\'']));
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    text.lines().position(is_key).map(|index| index as u64 + 1)
}

#[cfg(test)]
mod tests;
