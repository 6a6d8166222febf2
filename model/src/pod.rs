//! Pods, as far as their node's network is concerned with them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::Object;

/// The annotations in which a CNI plugin leaves what it gave to a pod.
pub mod pod_annotation {
    /// Its first address, as a CIDR of one address; empty once it has been taken away.
    pub const POD_IP: &str = "cni.projectcalico.org/podIP";
    /// All its addresses, with commas between them.
    pub const POD_IPS: &str = "cni.projectcalico.org/podIPs";
    /// The id of its sandbox.
    pub const CONTAINER_ID: &str = "cni.projectcalico.org/containerID";
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another pod of the same name has another one.
    pub uid: Option<String>,
    /// It uses the node's network, and so has no address of its own.
    pub host_network: bool,
    /// It has ended, and owns no address any more.
    pub finished: bool,
    /// Its addresses, as Kubernetes knows them or the annotations say; none once it has finished.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations about the network: those with `projectcalico.org/` in their name, and kubernetes' of bandwidth.
    pub annotations: BTreeMap<String, String>,
}

impl Pod {
    /// Reads a Pod. What cannot be read as an address is none.
    pub fn from_object(object: &Object) -> Self {
        let metadata = &object.metadata;
        let of_network = |(key, _): &(&String, &String)| {
            key.contains("projectcalico.org/") || key.starts_with("kubernetes.io/")
        };
        let annotations = metadata.annotations.iter().filter(of_network);
        let finished = is_finished(object);
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            host_network: object.spec["hostNetwork"] == true,
            addresses: if finished { Vec::new() } else { addresses(object) },
            finished,
            labels: metadata.labels.clone(),
            annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}

fn status(object: &Object) -> &Value {
    object.rest.get("status").unwrap_or(&Value::Null)
}

/// Failed or succeeded; or going away, and the plugin has said that the address is taken away.
fn is_finished(object: &Object) -> bool {
    let released = object.metadata.annotations.get(pod_annotation::POD_IP).is_some_and(String::is_empty);
    let going = object.metadata.rest.get("deletionTimestamp").is_some_and(|at| !at.is_null());
    let phase = status(object)["phase"].as_str();
    matches!(phase, Some("Failed" | "Succeeded" | "Completed")) || (going && released)
}

/// The first that there is: the status' list, its one address, the annotations.
fn addresses(object: &Object) -> Vec<IpAddr> {
    let status = status(object);
    let listed = status["podIPs"].as_array().into_iter().flatten().filter_map(|entry| entry["ip"].as_str());
    let annotated = |key| {
        let text = object.metadata.annotations.get(key).map(String::as_str).unwrap_or_default();
        text.split(',').filter_map(address).collect::<Vec<IpAddr>>()
    };
    let mut found: Vec<IpAddr> = listed.filter_map(address).collect();
    if found.is_empty() {
        found.extend(status["podIP"].as_str().and_then(address));
    }
    for key in [pod_annotation::POD_IPS, pod_annotation::POD_IP] {
        if found.is_empty() {
            found = annotated(key);
        }
    }
    found
}

fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::json;

    fn pod(annotations: &[(&str, &str)], whole: &Value) -> Pod {
        let mut object = Object::new_in(Kind::Pod, "ns", "p", &whole["spec"]);
        object.rest.insert("status".into(), whole["status"].clone());
        if whole["deleted"] == true {
            object.metadata.rest.insert("deletionTimestamp".into(), "2026-01-01T00:00:00Z".into());
        }
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        object.metadata.annotations = annotations.iter().map(owned).collect();
        Pod::from_object(&object)
    }

    #[test]
    fn a_pods_addresses_are_the_first_that_somebody_names() {
        let both =
            [(pod_annotation::POD_IPS, "10.0.0.3/32,fd00::3/128"), (pod_annotation::POD_IP, "10.0.0.3/32")];
        for (annotations, status, expected) in [
            (
                &both[..],
                json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
                "10.0.0.1 fd00::1",
            ),
            (&both, json!({"podIP": "10.0.0.2"}), "10.0.0.2"),
            (&both, json!({}), "10.0.0.3 fd00::3"),
            (&both[1..], json!({"phase": "Running"}), "10.0.0.3"),
            (&[], json!({"phase": "Pending"}), ""),
            (&[], json!({"podIP": "nonsense"}), ""),
        ] {
            let addresses = pod(annotations, &json!({"status": status})).addresses;
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            assert_eq!(texts.join(" "), expected, "{status}");
        }
    }

    #[test]
    fn a_finished_pod_owns_no_address() {
        let released = [(pod_annotation::POD_IP, "")];
        let held = [(pod_annotation::POD_IP, "10.0.0.1/32")];
        for (annotations, phase, deleted, finished) in [
            (&held, "Succeeded", false, true),
            (&held, "Failed", false, true),
            (&held, "Running", true, false),
            (&released, "Running", false, false),
            (&released, "Running", true, true),
        ] {
            let whole = json!({"status": {"podIP": "10.0.0.1", "phase": phase}, "deleted": deleted});
            let pod = pod(annotations, &whole);
            assert_eq!(
                (pod.finished, pod.addresses.is_empty()),
                (finished, finished),
                "{annotations:?} {whole}"
            );
        }
    }

    #[test]
    fn of_its_annotations_those_about_the_network_are_kept() {
        let annotations =
            [("cni.projectcalico.org/ipAddrs", "x"), ("kubernetes.io/ingress-bandwidth", "1M"), ("a/b", "c")];
        let pod = pod(&annotations, &json!({"spec": {"hostNetwork": true}}));
        assert!(pod.host_network);
        assert_eq!(pod.annotations.keys().collect::<Vec<_>>(), [annotations[0].0, annotations[1].0]);
    }
}
