//! Where Calico keeps the metadata of an object that it has written.
//!
//! Below Calico's v3 API, which its users see, an object of the storage group carries the v3 metadata as JSON in one
//! annotation, `projectcalico.org/metadata`; IPAM's kinds do not. What users call the object's labels and annotations
//! is that JSON's *and* the object's own, and where both have a key the JSON's counts (Calico's
//! `libcalico-go/lib/backend/k8s/resources/resources.go`; releases before 3.31 leave all of them outside of the JSON).
//! An object that was written without Calico has no such annotation, and is what it seems.
//!
//! [`expand`] shows an object as users see it, [`collapse`] is its way back: each key goes where it came from, and all
//! that neither touches (`creationTimestamp`, owners, fields of newer releases) stays as it is. A key that is new goes
//! to the object itself, where every release of Calico looks and `kubectl` selects.
//!
//! Not done here: the uid, which v3 shows with the bits of its bytes reversed, and the references to owners, which it
//! turns with it. Both stay as they are stored.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Kind, Metadata, Object};

/// The annotation; while an object is expanded, the field of its metadata that remembers how to go back.
pub const METADATA: &str = "projectcalico.org/metadata";

/// What the JSON and the object's own metadata both have.
const PARTS: [&str; 2] = ["labels", "annotations"];

type Texts = BTreeMap<String, String>;

/// The object with the labels and annotations that Calico's users see. One without the annotation, or with one that is
/// not what Calico writes, stays as it is.
#[must_use]
pub fn expand(mut object: Object) -> Object {
    if !is_kept_so(object.kind) {
        return object;
    }
    let Some(inner) = object.metadata.annotations.get(METADATA).and_then(|text| Inner::read(text)) else {
        return object;
    };
    let text = object.metadata.annotations.remove(METADATA);
    let mut memory = json!({ "text": text });
    for part in PARTS {
        let own = texts(&mut object.metadata, part);
        let mut hidden = Map::new();
        for (key, value) in inner.texts(part) {
            if let Some(own) = own.insert(key.clone(), value) {
                hidden.insert(key, own.into());
            }
        }
        memory[part] = hidden.into();
    }
    object.metadata.rest.insert(METADATA.to_owned(), memory);
    object
}

/// The way back from [`expand`], with the changes that were made in between. One that was not expanded stays as it is.
#[must_use]
pub fn collapse(mut object: Object) -> Object {
    let Some(memory) = object.metadata.rest.remove(METADATA) else { return object };
    let text = memory["text"].as_str().unwrap_or_default().to_owned();
    let Some(mut inner) = Inner::read(&text) else { return object };
    let mut changed = false;
    for part in PARTS {
        let own = texts(&mut object.metadata, part);
        let before = inner.texts(part);
        let mut after = Texts::new();
        for (key, old) in &before {
            let Some(now) = own.remove(key) else { continue };
            if let Some(hidden) = memory[part][key].as_str() {
                let visible = if now == *old { hidden } else { &now };
                own.insert(key.clone(), visible.to_owned());
            }
            after.insert(key.clone(), now);
        }
        if after != before {
            changed = true;
            inner.set(part, after);
        }
    }
    let text = if changed { Value::Object(inner.0).to_string() } else { text };
    object.metadata.annotations.insert(METADATA.to_owned(), text);
    object
}

/// Whether Calico keeps metadata of this kind in the annotation.
fn is_kept_so(kind: Kind) -> bool {
    let of_ipam = matches!(kind, Kind::IPAMBlock | Kind::BlockAffinity | Kind::IPAMHandle | Kind::IPAMConfig);
    kind.is_calicos() && !of_ipam
}

fn texts<'a>(metadata: &'a mut Metadata, part: &str) -> &'a mut Texts {
    match part {
        "labels" => &mut metadata.labels,
        _ => &mut metadata.annotations,
    }
}

/// The JSON of the annotation.
struct Inner(Map<String, Value>);

impl Inner {
    /// `None` where it is not what Calico writes: an object whose labels and annotations are texts.
    fn read(text: &str) -> Option<Self> {
        let read: Map<String, Value> = serde_json::from_str(text).ok()?;
        let are_texts = |part: &Value| match part {
            Value::Null => true,
            Value::Object(fields) => fields.values().all(Value::is_string),
            _ => false,
        };
        // An annotation of the same name within would have no place to go to.
        let nested = read.get("annotations").is_some_and(|inner| inner.get(METADATA).is_some());
        (!nested && PARTS.iter().all(|part| read.get(*part).is_none_or(are_texts))).then_some(Self(read))
    }

    fn texts(&self, part: &str) -> Texts {
        let fields = self.0.get(part).and_then(Value::as_object).into_iter().flatten();
        fields.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    }

    fn set(&mut self, part: &str, texts: Texts) {
        match texts.is_empty() {
            true => drop(self.0.remove(part)),
            false => {
                let fields = texts.into_iter().map(|(key, value)| (key, value.into()));
                drop(self.0.insert(part.to_owned(), Value::Object(fields.collect())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
