//! BGP of the whole cluster, and what single nodes have for themselves.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::read::{lenient, misnamed};
use crate::{Asn, Community, Interval, Invalid, Object, Password, absent};

/// Calico takes no more communities, and no more prefix advertisements.
const MAX_ENTRIES: usize = 500;
/// Nor more communities for one prefix.
const MAX_COMMUNITIES_OF_A_PREFIX: usize = 50;

/// The fields that a BGPConfiguration `node.NAME` can set; all others are for `default` only.
const OF_A_NODE: [&str; 3] = ["prefixAdvertisements", "listenPort", "logSeverityScreen"];

/// `spec` of a BGPConfiguration: `default` for the cluster, `node.NAME` for what one node has for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpConfigurationSpec {
    /// What is logged; `Info` when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub log_severity_screen: Option<LogSeverity>,
    /// The cluster's AS; 64512 when absent.
    #[serde(deserialize_with = "absent::zero")]
    pub as_number: Option<Asn>,
    /// Whether all nodes peer with each other; true when absent.
    pub node_to_node_mesh_enabled: Option<bool>,
    /// The TCP port on which nodes listen; 179 when absent.
    #[serde(deserialize_with = "absent::zero")]
    pub listen_port: Option<u16>,
    /// Whether sessions are accepted on every address; `None`, yes, when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub bind_mode: Option<BindMode>,
    /// The password of the sessions of the mesh.
    pub node_mesh_password: Option<Password>,
    /// For how long the nodes of the mesh keep the routes of one that restarts; 120 s when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub node_mesh_max_restart_time: Option<Interval>,
    /// Names for communities.
    #[serde(deserialize_with = "absent::null")]
    pub communities: Vec<NamedCommunity>,
    /// Which prefixes get which communities.
    #[serde(deserialize_with = "absent::null")]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// The ranges of services' own addresses.
    #[serde(rename = "serviceClusterIPs", deserialize_with = "absent::null")]
    pub service_cluster_ips: Vec<ServiceRange>,
    /// In which external addresses of services are announced.
    #[serde(rename = "serviceExternalIPs", deserialize_with = "absent::null")]
    pub service_external_ips: Vec<ServiceRange>,
    /// In which addresses of load balancers are announced.
    #[serde(rename = "serviceLoadBalancerIPs", deserialize_with = "absent::null")]
    pub service_load_balancer_ips: Vec<ServiceRange>,
    /// Whether load balancers are announced as ranges, or each alone; `Enabled` when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub service_load_balancer_aggregation: Option<Switch>,
    /// Interfaces whose subnets are not taken into BIRD's table.
    #[serde(deserialize_with = "absent::null")]
    pub ignored_interfaces: Vec<String>,
    /// The address which pods that speak BGP with their node know it by.
    #[serde(rename = "localWorkloadPeeringIPV4", deserialize_with = "absent::empty")]
    pub local_workload_peering_ip_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    #[serde(rename = "localWorkloadPeeringIPV6", deserialize_with = "absent::empty")]
    pub local_workload_peering_ip_v6: Option<Ipv6Addr>,
    /// Which routes to other nodes' blocks BGP writes, as opposed to Felix.
    #[serde(deserialize_with = "absent::empty")]
    pub program_cluster_routes: Option<ProgramClusterRoutes>,
    /// The metric of routes from BGP; 1024 when absent.
    #[serde(deserialize_with = "absent::zero")]
    pub ipv4_normal_route_priority: Option<u32>,
    /// The same for IPv6.
    #[serde(deserialize_with = "absent::zero")]
    pub ipv6_normal_route_priority: Option<u32>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A name for a community.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NamedCommunity {
    /// By which prefix advertisements call it.
    pub name: String,
    /// What it is.
    pub value: Community,
}

/// Which communities a prefix gets, and all within it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PrefixAdvertisement {
    /// The prefix.
    pub cidr: IpNet,
    /// Communities, or names of BGPConfiguration `default`.
    #[serde(default)]
    pub communities: Vec<String>,
}

/// A range of addresses of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ServiceRange {
    /// The range.
    pub cidr: IpNet,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum LogSeverity {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

/// Where sessions are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum BindMode {
    /// On every address.
    None,
    /// On the node's address only.
    NodeIP,
}

/// On or off, as Calico writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Switch {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

/// Who writes the routes to other nodes' blocks: BGP, or Felix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are Calico's; Manx has one writer, whatever they say")]
pub enum ProgramClusterRoutes {
    Enabled,
    Disabled,
    EnabledNoEncapOnly,
    EnabledIPIPOnly,
}

impl BgpConfigurationSpec {
    /// Reads a BGPConfiguration, without what cannot be read: the AS of a whole cluster must not change because of a
    /// misspelt community.
    pub fn from_object(object: &Object) -> (Self, Vec<Invalid>) {
        let (mut spec, mut refused) = lenient::<Self>(object);
        let mut refuse = |field: String, reason: String| refused.push(object.invalid(field, reason));
        for (field, length) in [
            ("communities", spec.communities.len()),
            ("prefixAdvertisements", spec.prefix_advertisements.len()),
        ] {
            if length > MAX_ENTRIES {
                refuse(format!("spec.{field}"), format!("has {length} entries, more than {MAX_ENTRIES}"));
            }
        }
        spec.communities.truncate(MAX_ENTRIES);
        spec.prefix_advertisements.truncate(MAX_ENTRIES);
        for (index, advertisement) in spec.prefix_advertisements.iter_mut().enumerate() {
            let length = advertisement.communities.len();
            if length > MAX_COMMUNITIES_OF_A_PREFIX {
                let reason = format!("has {length} entries, more than {MAX_COMMUNITIES_OF_A_PREFIX}");
                refuse(format!("spec.prefixAdvertisements[{index}].communities"), reason);
            }
            advertisement.communities.truncate(MAX_COMMUNITIES_OF_A_PREFIX);
            advertisement.cidr = advertisement.cidr.trunc();
        }
        for range in [
            &mut spec.service_cluster_ips,
            &mut spec.service_external_ips,
            &mut spec.service_load_balancer_ips,
        ] {
            range.iter_mut().for_each(|range| range.cidr = range.cidr.trunc());
        }
        refused.extend(misnamed(object));
        if object.name() != "default" {
            refused.extend(for_default_only(object));
        }
        (spec, refused)
    }

    /// Whether addresses of services are announced, and so have to be known.
    pub fn announces_services(&self) -> bool {
        let ranges = [&self.service_cluster_ips, &self.service_external_ips, &self.service_load_balancer_ips];
        ranges.iter().any(|ranges| !ranges.is_empty())
    }
}

fn for_default_only(object: &Object) -> Vec<Invalid> {
    let fields = object.spec.as_object().into_iter().flat_map(Map::keys);
    let others = fields.filter(|field| !OF_A_NODE.contains(&field.as_str()));
    others
        .map(|field| {
            let only = OF_A_NODE.join(", ");
            let reason =
                format!("has no effect here, only in BGPConfiguration default; a node has its own {only}");
            object.invalid(format!("spec.{field}"), reason)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::json;

    fn read(name: &str, spec: Value) -> (BgpConfigurationSpec, Vec<String>) {
        let object = Object::new(Kind::BGPConfiguration, name, &spec);
        let (spec, refused) = BgpConfigurationSpec::from_object(&object);
        (spec, refused.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_field_of_calicos_is_read() {
        let (spec, refused) = read(
            "default",
            json!({
                "logSeverityScreen": "Info", "nodeToNodeMeshEnabled": false, "asNumber": "1.10", "listenPort": 1790,
                "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "serviceExternalIPs": [{"cidr": "192.0.2.1/24"}],
                "serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}],
                "serviceLoadBalancerAggregation": "Disabled", "communities": [{"name": "a", "value": "65000:1:2"}],
                "prefixAdvertisements": [{"cidr": "10.0.0.0/16", "communities": ["a", "65000:2"]}],
                "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}}, "nodeMeshMaxRestartTime": "5m",
                "bindMode": "NodeIP", "ignoredInterfaces": ["eth9"], "localWorkloadPeeringIPV4": "169.254.2.1",
                "localWorkloadPeeringIPV6": "", "programClusterRoutes": "Enabled", "ipv4NormalRoutePriority": 512,
                "ipv6NormalRoutePriority": 0, "fromTheFuture": 1,
            }),
        );
        assert_eq!(refused, [""; 0]);
        assert_eq!(spec.as_number.unwrap().get(), 65546);
        assert_eq!(spec.service_external_ips[0].cidr, "192.0.2.0/24".parse().unwrap());
        assert_eq!(spec.rest.keys().collect::<Vec<_>>(), ["fromTheFuture"]);
        assert!(spec.announces_services() && !BgpConfigurationSpec::default().announces_services());
    }

    #[test]
    fn a_mistake_is_named_and_the_rest_stays_in_force() {
        let (spec, refused) = read(
            "default",
            json!({
                "asNumber": 65000, "bindMode": "Some", "listenPort": 99999,
                "communities": [{"name": "a", "value": "x"}, {"name": "b", "value": "1:2"}, {"name": "c"}],
                "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "ten"}],
            }),
        );
        assert_eq!(spec.as_number.unwrap().get(), 65000);
        assert_eq!((spec.communities.len(), spec.service_cluster_ips.len()), (1, 1));
        let fields: Vec<_> = refused.iter().map(|text| text.split(": ").nth(1).unwrap()).collect();
        assert_eq!(refused.len(), 5, "{refused:?}");
        for field in [
            "spec.bindMode",
            "spec.listenPort",
            "spec.communities[0].value",
            "spec.communities[2]",
            "spec.serviceClusterIPs[1].cidr",
        ] {
            assert!(fields.contains(&field), "{field} in {refused:?}");
        }
    }

    #[test]
    fn a_nodes_own_configuration_has_three_fields() {
        let (spec, refused) = read("node.n1", json!({"listenPort": 1790, "asNumber": 65000}));
        assert_eq!(spec.listen_port, Some(1790));
        assert!(refused[0].contains("BGPConfiguration node.n1: spec.asNumber: has no effect"), "{refused:?}");
    }

    #[test]
    fn an_object_of_no_known_name_is_told_that_it_has_no_effect() {
        for (name, count) in [("default", 0), ("node.n1", 0), ("node.", 1), ("node.A", 1), ("mine", 1)] {
            assert_eq!(read(name, json!({"listenPort": 1790})).1.len(), count, "{name}");
        }
    }

    #[test]
    fn more_entries_than_calico_takes_are_named_and_left_out() {
        let entries = |count: usize| vec![json!({"name": "a", "value": "1:2"}); count];
        let (spec, refused) = read("default", json!({"communities": entries(501)}));
        assert_eq!(spec.communities.len(), 500);
        assert!(refused[0].contains("spec.communities: has 501 entries"), "{refused:?}");
    }
}
