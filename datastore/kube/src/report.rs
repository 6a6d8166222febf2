//! What is to be said about an object, as an Event beside it: `kubectl describe` and `kubectl get events` show it.
//!
//! An Event's name follows from what it says of which object. However many agents say the same, and however often, it is
//! one Event; the API server forgets it after an hour, and then it may be said again.

use http::StatusCode;
use jiff::Timestamp;
use manx_datastore::{Error, Report};
use manx_model::Object;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::connection::Connection;
use crate::refusal::Refusal;
use crate::request::Call;

/// How long a message may be, in bytes: the API server's limit.
const LONGEST: usize = 1024;

/// How long a reason and the reporter's name may be, in bytes.
const LONGEST_WORD: usize = 128;

/// [`manx_datastore::Datastore::report`].
pub(crate) async fn report(connection: &Connection, object: &Object, report: &Report) -> Result<(), Error> {
    // What has no namespace is reported in `default`; the API server takes it nowhere else.
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let event = event(&connection.reporter, namespace, object, report, Timestamp::now());
    let call = Call::report(path, event.to_string().into_bytes());
    let answer = connection.call(Some(object.kind), &call).await?;
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::CONFLICT => Ok(()),
        _ => Err(Error::Unavailable(Refusal::read(object.kind, &answer).to_string())),
    }
}

fn event(reporter: &str, namespace: &str, object: &Object, report: &Report, now: Timestamp) -> Value {
    let message = shortened(&report.message, LONGEST);
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name(object, report), "namespace": namespace},
        "eventTime": format!("{now:.6}"),
        "type": if report.warning { "Warning" } else { "Normal" },
        "reason": shortened(&report.reason, LONGEST_WORD),
        "note": message,
        "action": shortened(&report.reason, LONGEST_WORD),
        "reportingController": "manx",
        "reportingInstance": shortened(reporter, LONGEST_WORD),
        "regarding": {
            "apiVersion": object.kind.api_version(),
            "kind": object.kind.as_str(),
            "name": object.name(),
            "namespace": object.metadata.namespace,
            "uid": object.metadata.uid,
            "resourceVersion": object.metadata.resource_version,
        },
    })
}

/// The object's name and a hash of which object, why and what: at most 253 characters.
fn name(object: &Object, report: &Report) -> String {
    let mut hash = Sha256::new();
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    for part in [object.kind.as_str(), &object.key(), uid, &report.reason, &report.message] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let keep = shortened(object.name(), 253 - 1 - hash.len()).trim_end_matches(['.', '-']);
    format!("{keep}.{hash}")
}

fn shortened(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use manx_model::Kind;

    use super::*;

    fn report(message: &str) -> Report {
        Report { warning: true, reason: "InvalidSpec".into(), message: message.into() }
    }

    #[test]
    fn the_same_said_of_the_same_object_is_one_event_and_anything_else_another() {
        let mut object = Object::new(Kind::IPPool, "a".repeat(253), &());
        object.metadata.uid = Some("1".into());
        let first = name(&object, &report("x"));
        assert_eq!(first, name(&object, &report("x")));
        assert!(first.len() <= 253, "{first}");
        assert_ne!(first, name(&object, &report("y")));
        object.metadata.uid = Some("2".into());
        assert_ne!(first, name(&object, &report("x")));
    }

    #[test]
    fn what_is_too_long_for_an_event_is_cut_between_characters() {
        let object = Object::new(Kind::IPPool, "p", &());
        let event = event("n1", "default", &object, &report(&"ü".repeat(1000)), Timestamp::UNIX_EPOCH);
        assert_eq!(event["note"], "ü".repeat(512));
        assert_eq!(event["eventTime"], "1970-01-01T00:00:00.000000Z");
    }
}
