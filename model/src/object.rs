//! Objects as a datastore keeps them: Kubernetes' envelope around a `spec` that we may know only in part.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::Kind;

/// The part of Kubernetes' ObjectMeta that we act on; the rest is kept in `rest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Unique within a kind and namespace. A DNS-1123 subdomain: at most 253 characters of `a-z`, `0-9`, `-` and `.`.
    pub name: String,
    /// The namespace, of kinds that live in one. A DNS-1123 label: at most 63 characters of `a-z`, `0-9` and `-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The version that a compare-and-swap compares: opaque, set by the datastore. `None` on an object not yet stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Set by the datastore when the object is created; another object of the same name has another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else, as it was read.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind, which also gives its `apiVersion`.
    pub kind: Kind,
    /// Its metadata.
    pub metadata: Metadata,
    /// Its `spec`, raw; `Null` where there is none.
    pub spec: Value,
    /// All other top-level fields (`status`, `data`, …), as they were read.
    pub rest: Map<String, Value>,
}

impl Object {
    /// A new object, not stored yet.
    pub fn new(kind: Kind, name: impl Into<String>, spec: &impl Serialize) -> Self {
        let metadata = Metadata { name: name.into(), ..Metadata::default() };
        Self { kind, metadata, spec: to_value(spec), rest: Map::new() }
    }

    /// A new object in a namespace, not stored yet.
    pub fn new_in(
        kind: Kind,
        namespace: impl Into<String>,
        name: impl Into<String>,
        spec: &impl Serialize,
    ) -> Self {
        let mut object = Self::new(kind, name, spec);
        object.metadata.namespace = Some(namespace.into());
        object
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// By which a datastore finds it among those of its kind: its name, or `namespace/name`.
    pub fn key(&self) -> String {
        match &self.metadata.namespace {
            Some(namespace) => format!("{namespace}/{}", self.metadata.name),
            None => self.metadata.name.clone(),
        }
    }

    /// Its spec as the type `S`.
    ///
    /// # Errors
    /// [`Invalid`] with the object's kind and name and what the decoder said of the field.
    pub fn spec<S: DeserializeOwned>(&self) -> Result<S, Invalid> {
        S::deserialize(&self.spec).map_err(|error| self.invalid("spec", error))
    }

    /// The same object with another spec. Fields that the type does not know survive if it keeps them (`flatten`).
    #[must_use]
    pub fn with_spec(mut self, spec: &impl Serialize) -> Self {
        self.spec = to_value(spec);
        self
    }

    /// An [`Invalid`] that names this object.
    pub fn invalid(&self, field: impl Into<String>, reason: impl fmt::Display) -> Invalid {
        Invalid { kind: self.kind, name: self.key(), field: field.into(), reason: reason.to_string() }
    }

    /// The whole object as JSON (or, by way of a YAML writer, as a manifest).
    pub fn to_value(&self) -> Value {
        to_value(self)
    }

    /// Reads a whole object of the expected kind.
    ///
    /// # Errors
    /// A sentence that says what is wrong: not a mapping, another `kind` or `apiVersion`, no `metadata.name`.
    pub fn from_value(expected: Kind, value: Value) -> Result<Self, String> {
        let Value::Object(mut whole) = value else {
            return Err(format!(
                "is not a mapping with apiVersion, kind, metadata and spec, as a {expected} must be"
            ));
        };
        expect_field(&mut whole, "apiVersion", &expected.api_version())?;
        expect_field(&mut whole, "kind", expected.as_str())?;
        let metadata = whole.remove("metadata").unwrap_or(Value::Null);
        let metadata: Metadata =
            serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        let spec = whole.remove("spec").unwrap_or(Value::Null);
        Ok(Self { kind: expected, metadata, spec, rest: whole })
    }
}

/// Written as [`Object::to_value`] has it, without a copy of what may be large.
impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = [
            ("apiVersion", self.kind.api_version().into()),
            ("kind", self.kind.as_str().into()),
            ("metadata", to_value(&self.metadata)),
        ];
        let mut whole: BTreeMap<&str, &Value> = head.iter().map(|(field, value)| (*field, value)).collect();
        if !self.spec.is_null() {
            whole.insert("spec", &self.spec);
        }
        whole.extend(self.rest.iter().map(|(field, value)| (field.as_str(), value)));
        serializer.collect_map(whole)
    }
}

fn expect_field(whole: &mut Map<String, Value>, field: &str, expected: &str) -> Result<(), String> {
    match whole.remove(field) {
        Some(Value::String(found)) if found == expected => Ok(()),
        Some(found) => Err(format!("{field} is {found}, expected {expected:?}")),
        None => Err(format!("{field} is missing, expected {expected:?}")),
    }
}

/// Our own types serialize to JSON by construction: string keys, no foreign `Serialize`.
fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("our types serialize to JSON")
}

/// A stored object that cannot be used: which one, which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize)]
#[error("{kind} {name}: {field}: {reason}")]
pub struct Invalid {
    /// The kind of the object.
    pub kind: Kind,
    /// Its key: the name, or `namespace/name`.
    pub name: String,
    /// The path of the field, from the top of the object, as in `spec.ipipMode`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}
