//! One line of a watch.

use manx_datastore::Listed;
use manx_model::Kind;
use serde::Deserialize;
use serde_json::Value;

use crate::decode::{self, Whole};
use crate::refusal::{Refusal, Status};

/// The annotation of the bookmark that ends a list which came as a watch.
const ENDS_LIST: &str = "k8s.io/initial-events-end";

/// What the server says.
#[derive(Debug)]
pub(super) enum Message {
    /// An object as it is now, or what is wrong with it.
    Object { object: Box<Listed>, version: String },
    /// The object of this key is not there any more.
    Deleted { key: String, version: String },
    /// Everything up to this version has been said.
    Bookmark { version: String, ends_list: bool },
    /// The watch cannot go on.
    Error(Refusal),
}

#[derive(Deserialize)]
struct Line {
    r#type: Type,
    object: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Type {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// A sentence, when it is none of a watch: then nothing that follows can be relied on. An object that cannot be read
    /// is no such case, as long as it has a name.
    pub(super) fn read(kind: Kind, line: &[u8]) -> Result<Self, String> {
        let Line { r#type, object } = serde_json::from_slice(line)
            .map_err(|error| format!("what came is no event of a watch: {}", decode::place(&error)))?;
        let metadata = &object["metadata"];
        let version = metadata["resourceVersion"].as_str().unwrap_or_default().to_owned();
        if matches!(r#type, Type::Added | Type::Modified | Type::Deleted)
            && decode::key(kind, &object).is_empty()
        {
            return Err(format!("what came as a {kind} has no name"));
        }
        Ok(match r#type {
            Type::Added | Type::Modified => {
                Self::Object { object: Box::new(decode::object(kind, object, Whole::Used)), version }
            }
            Type::Deleted => Self::Deleted { key: decode::key(kind, &object), version },
            Type::Bookmark => {
                Self::Bookmark { version, ends_list: metadata["annotations"][ENDS_LIST] == "true" }
            }
            Type::Error => {
                let status: Status = serde_json::from_value(object).unwrap_or_default();
                Self::Error(Refusal::in_watch(kind, status))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use manx_model::Object;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn line() -> Vec<u8> {
        let labels = json!({"a": "b"});
        let metadata = json!({"name": "p", "namespace": "ns", "resourceVersion": "7", "labels": labels});
        let spec = json!({"nodeName": "n1", "containers": [{"ports": [{"containerPort": 80}]}]});
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec});
        json!({"type": "ADDED", "object": pod}).to_string().into_bytes()
    }

    proptest! {
        #[test]
        fn damaged_lines_are_errors_or_objects_that_can_be_named(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut line = line();
            for (index, byte) in damage {
                let length = line.len();
                line[index.index(length)] = byte;
            }
            match Message::read(Kind::Pod, &line) {
                Ok(Message::Object { object, .. }) => {
                    let key = object.map_or_else(|invalid| invalid.name, |object: Object| object.key());
                    prop_assert!(!key.is_empty());
                }
                Ok(Message::Deleted { key, .. }) => prop_assert!(!key.is_empty()),
                Ok(_) | Err(_) => {}
            }
        }

        #[test]
        fn what_is_no_line_is_an_error(bytes: Vec<u8>) {
            prop_assert!(Message::read(Kind::Node, &bytes).is_err());
        }
    }
}
