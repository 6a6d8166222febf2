//! Services and where their pods are, as far as their addresses are announced.

use std::net::IpAddr;

use serde::Deserialize;

use crate::read::strict;
use crate::{Invalid, NodeName, Object, absent};

/// The label by which an EndpointSlice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its own addresses; none when it is headless or only a name.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses that somebody else leads to the nodes.
    pub external_ips: Vec<IpAddr>,
    /// The addresses of its load balancer.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Whether traffic from outside is for the node's own pods only.
    pub external_traffic_local: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", deserialize_with = "absent::null")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "absent::null")]
    external_ips: Vec<String>,
    #[serde(rename = "externalTrafficPolicy")]
    external_traffic_policy: Option<String>,
}

impl Service {
    /// Reads a Service. What is no address is none: `None` of a headless service, a name of a load balancer.
    ///
    /// # Errors
    /// [`Invalid`] with the field and what is allowed.
    pub fn from_object(object: &Object) -> Result<Self, Invalid> {
        let spec: ServiceSpec = strict(object)?;
        let parsed =
            |texts: &[String]| -> Vec<IpAddr> { texts.iter().filter_map(|text| text.parse().ok()).collect() };
        let mut cluster_ips = parsed(&spec.cluster_ips);
        if cluster_ips.is_empty() {
            cluster_ips = parsed(spec.cluster_ip.as_slice());
        }
        let is_name = spec.kind.as_deref() == Some("ExternalName");
        let ingress = object.rest.get("status").map(|status| &status["loadBalancer"]["ingress"]);
        let ingress = ingress.and_then(|ingress| ingress.as_array()).into_iter().flatten();
        Ok(Self {
            cluster_ips: if is_name { Vec::new() } else { cluster_ips },
            external_ips: parsed(&spec.external_ips),
            load_balancer_ips: ingress.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect(),
            external_traffic_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        })
    }
}

/// One slice of the places where a service's pods are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// `namespace/name` of the service.
    pub service: String,
    /// The family of its addresses.
    pub ipv4: bool,
    /// Where pods are ready to serve.
    pub endpoints: Vec<ServiceEndpoint>,
}

/// A pod of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// The node on which it runs, if that is known.
    pub node: Option<NodeName>,
    /// It takes new connections: it is ready, or nobody said that it is not.
    pub ready: bool,
    /// It still serves, ready or about to end.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointEntry {
    #[serde(default)]
    conditions: Conditions,
    node_name: Option<NodeName>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl EndpointSlice {
    /// Reads an EndpointSlice; `None` where it belongs to no service, or holds names and not addresses.
    ///
    /// # Errors
    /// [`Invalid`] with the field.
    pub fn from_object(object: &Object) -> Result<Option<Self>, Invalid> {
        let Some(service) = object.metadata.labels.get(SERVICE_NAME) else { return Ok(None) };
        let field = |name| object.rest.get(name).cloned().unwrap_or_default();
        let ipv4 = match field("addressType").as_str() {
            Some("IPv4") => true,
            Some("IPv6") => false,
            _ => return Ok(None),
        };
        let entries: Option<Vec<EndpointEntry>> =
            serde_json::from_value(field("endpoints")).map_err(|error| object.invalid("endpoints", error))?;
        let endpoints = entries.unwrap_or_default().into_iter().map(ServiceEndpoint::from).collect();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        Ok(Some(Self { service: format!("{namespace}/{service}"), ipv4, endpoints }))
    }
}

impl From<EndpointEntry> for ServiceEndpoint {
    /// Kubernetes: what is unknown counts as ready; `serving` is like `ready` where nobody says otherwise.
    fn from(EndpointEntry { conditions, node_name }: EndpointEntry) -> Self {
        let ready = conditions.ready.unwrap_or(true);
        Self {
            node: node_name,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::{Value, json};

    #[test]
    fn a_service_has_the_addresses_that_are_addresses() {
        for (spec, cluster_ips) in [
            (
                json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}),
                vec!["10.96.0.1", "fd00::1"],
            ),
            (json!({"clusterIP": "10.96.0.1"}), vec!["10.96.0.1"]),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), vec![]),
            (json!({"type": "ExternalName", "clusterIP": "10.96.0.1"}), vec![]),
        ] {
            let object = Object::new_in(Kind::Service, "ns", "s", &spec);
            let found = Service::from_object(&object).unwrap().cluster_ips;
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), cluster_ips, "{spec}");
        }
    }

    #[test]
    fn a_load_balancers_addresses_are_those_of_its_status() {
        let spec = json!({"externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.1", "x"]});
        let mut object = Object::new_in(Kind::Service, "ns", "s", &spec);
        let ingress =
            json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"hostname": "example.com"}]}});
        object.rest.insert("status".into(), ingress);
        let service = Service::from_object(&object).unwrap();
        assert_eq!((service.external_ips.len(), service.load_balancer_ips.len()), (1, 1));
        assert!(service.external_traffic_local);
    }

    fn slice(endpoints: &Value) -> Result<Option<EndpointSlice>, Invalid> {
        let mut object = Object::new_in(Kind::EndpointSlice, "ns", "s-1", &Value::Null);
        object.metadata.labels.insert(SERVICE_NAME.into(), "s".into());
        object.rest.insert("addressType".into(), "IPv4".into());
        object.rest.insert("endpoints".into(), endpoints.clone());
        EndpointSlice::from_object(&object)
    }

    #[test]
    fn an_endpoint_of_which_nothing_is_said_is_ready() {
        for (conditions, expected) in [
            (json!({}), (true, true, false)),
            (json!({"ready": null}), (true, true, false)),
            (json!({"ready": false}), (false, false, false)),
            (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
        ] {
            let slice = slice(&json!([{"nodeName": "n1", "conditions": conditions}])).unwrap().unwrap();
            let endpoint = &slice.endpoints[0];
            assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), expected, "{conditions}");
            assert_eq!(slice.service, "ns/s");
        }
        assert!(slice(&Value::Null).unwrap().unwrap().endpoints.is_empty());
        assert_eq!(slice(&json!("x")).unwrap_err().field, "endpoints");
    }
}
