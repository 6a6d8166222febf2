//! Objects out of what the API server sends: checked, without `managedFields` (bookkeeping of the server, often half of
//! an object), and with Calico's metadata where they belong.

use manx_datastore::Error;
use manx_model::{Invalid, Kind, Object, calico_metadata};
use serde_json::{Map, Value, json};

/// What the server calls an object of which it sends only the metadata.
const PARTIAL: &str = "PartialObjectMetadata";

/// The object that a call got.
pub(crate) fn stored(kind: Kind, key: &str, body: &[u8]) -> Result<Object, Error> {
    let value = serde_json::from_slice(body)
        .map_err(|error| Error::Unavailable(format!("the answer is no JSON: {}", place(&error))))?;
    object(kind, value, Whole::Whole).map_err(|mut invalid| {
        if invalid.name.is_empty() {
            key.clone_into(&mut invalid.name);
        }
        Error::Invalid(invalid)
    })
}

/// How much of an object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    /// All of it.
    Whole,
    /// What Manx uses, of kinds that are not Calico's.
    Used,
}

/// An object, from a list, a watch or alone. Within a list of a kind of Kubernetes' own, `kind` and `apiVersion` are
/// missing.
///
/// # Errors
/// Which object and what is wrong; the name is empty where it has none.
pub(crate) fn object(kind: Kind, mut value: Value, whole: Whole) -> Result<Object, Invalid> {
    let key = key(kind, &value);
    let invalid = |reason: String| Invalid {
        kind,
        name: key.clone(),
        field: "object".into(),
        // What a decoder says may quote what it found.
        reason: if kind == Kind::Secret { "cannot be read (a Secret is not quoted)".into() } else { reason },
    };
    let found = value.get("kind").and_then(Value::as_str);
    if found.is_none_or(|found| found == PARTIAL)
        && let Value::Object(fields) = &mut value
    {
        fields.insert("kind".into(), kind.as_str().into());
        fields.insert("apiVersion".into(), kind.api_version().into());
    }
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    if whole == Whole::Used && kind == Kind::Pod {
        value = used_of_pod(&value);
    }
    let object = Object::from_value(kind, value).map_err(invalid)?;
    match path_safe(&object) {
        true => Ok(calico_metadata::expand(object)),
        false => Err(invalid("has a name or namespace that none can have".into())),
    }
}

/// A watch and a later call must speak of the same object.
fn path_safe(object: &Object) -> bool {
    manx_model::check_key(object.kind, &object.key()).is_ok()
}

/// The key of what may be an object; empty where it has no name.
pub(crate) fn key(kind: Kind, value: &Value) -> String {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    match kind.is_namespaced() {
        true if !text("name").is_empty() => format!("{}/{}", text("namespace"), text("name")),
        _ => text("name").to_owned(),
    }
}

/// A pod's metadata, where it runs, its named ports, its addresses and whether it is ready.
fn used_of_pod(pod: &Value) -> Value {
    let ports = |container: &Value| Value::from(pick(container, &["name", "ports"]));
    let mut spec = pick(&pod["spec"], &["nodeName", "hostNetwork"]);
    if let Some(containers) = pod["spec"]["containers"].as_array() {
        spec.insert("containers".into(), containers.iter().map(ports).collect());
    }
    let mut status = pick(&pod["status"], &["phase", "podIP", "podIPs"]);
    if let Some(conditions) = pod["status"]["conditions"].as_array() {
        let ready = conditions.iter().filter(|condition| condition["type"] == "Ready").cloned().collect();
        status.insert("conditions".into(), ready);
    }
    let mut whole = pick(pod, &["apiVersion", "kind", "metadata"]);
    whole.insert("spec".into(), spec.into());
    whole.insert("status".into(), status.into());
    whole.into()
}

fn pick(value: &Value, fields: &[&str]) -> Map<String, Value> {
    let found = |field: &&str| Some(((*field).to_owned(), value.get(field)?.clone()));
    fields.iter().filter_map(found).collect()
}

/// Where JSON could not be read, without what stands there.
pub(crate) fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// The object as the API server is to store it, as JSON: what it sets itself is left out of a new one. Of what IPAM writes
/// again and again it is asked not to keep a book of who wrote which field (an empty entry ends that, and a new object
/// cannot do without): of a full block that is a quarter of what an update costs it.
pub(crate) fn encode(object: Object, new: bool) -> Vec<u8> {
    let mut object = calico_metadata::collapse(object);
    let metadata = &mut object.metadata;
    metadata.rest.remove("managedFields");
    if !new && is_ipams(object.kind) {
        metadata.rest.insert("managedFields".into(), json!([{}]));
    }
    if new {
        metadata.resource_version = None;
        metadata.uid = None;
        for field in ["creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            metadata.rest.remove(field);
        }
    }
    serde_json::to_vec(&object).expect("objects are JSON")
}

/// Whether people and their tools leave objects of this kind to IPAM, which writes them all the time.
pub(crate) fn is_ipams(kind: Kind) -> bool {
    matches!(kind, Kind::IPAMBlock | Kind::BlockAffinity | Kind::IPAMHandle)
}

/// What a deletion of exactly this version asks for.
pub(crate) fn preconditions(object: &Object) -> Vec<u8> {
    let metadata = &object.metadata;
    let mut preconditions = json!({"resourceVersion": metadata.resource_version});
    if let Some(uid) = &metadata.uid {
        preconditions["uid"] = uid.as_str().into();
    }
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "ns", "labels": {"a": "b"}, "managedFields": [{"manager": "x"}]},
            "spec": {"nodeName": "n1", "hostNetwork": true, "volumes": [{"name": "v"}],
                "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "1.2.3.4",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]}})
    }

    #[test]
    fn of_a_watched_pod_only_what_manx_uses_is_kept() {
        let object = object(Kind::Pod, pod(), Whole::Used).unwrap();
        assert_eq!(
            object.to_value(),
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "namespace": "ns", "labels": {"a": "b"}},
                "spec": {"nodeName": "n1", "hostNetwork": true,
                    "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                    "conditions": [{"type": "Ready", "status": "True"}]}})
        );
    }

    #[test]
    fn what_is_no_object_of_its_kind_is_named_and_a_secret_is_never_quoted() {
        let wrong = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "p", "namespace": "ns", "labels": "hunter2"}});
        let invalid = object(Kind::Pod, wrong.clone(), Whole::Whole).unwrap_err();
        assert_eq!(invalid.name, "ns/p");
        assert!(invalid.reason.contains("labels") || invalid.reason.contains("hunter2"), "{invalid}");
        let mut secret = wrong;
        secret["kind"] = "Secret".into();
        let invalid = object(Kind::Secret, secret.clone(), Whole::Whole).unwrap_err();
        assert!(!invalid.to_string().contains("hunter2"), "{invalid}");
        assert!(object(Kind::Node, secret, Whole::Whole).is_err(), "a Secret is no Node");
        assert!(object(Kind::Node, json!("x"), Whole::Used).is_err());
        assert!(object(Kind::Node, json!({"metadata": {"name": "../n"}}), Whole::Used).is_err());
    }

    #[test]
    fn a_node_of_which_only_the_metadata_came_is_a_node() {
        let partial = json!({"kind": PARTIAL, "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "n1"}});
        let node = object(Kind::Node, partial, Whole::Used).unwrap();
        assert_eq!((node.kind, node.name(), &node.spec), (Kind::Node, "n1", &Value::Null));
    }
}
