//! Felix' parameters, from where Calico's users set them: the environment, else the FelixConfiguration of this node, else
//! that of the cluster, else Calico's default (Calico's order).
//!
//! Those of pods and of the tunnel are read once, at the start. What changes later is told, and waits for a restart, as it
//! does for the environment. Those of the ruleset ([`RulesetParameters`]) are acted on at once.

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use manx_felix::{Mtu, RulesetParameters};
use manx_model::{FelixConfigurationSpec, NatExclusions, Network, Switch};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::config::{self, FelixEnvironment};
use crate::problems::Problems;

/// The parameters that are acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FelixParameters {
    /// How the MTUs of `tunl0` and of pods are decided, and whether IPIP is ruled out.
    pub mtu: Mtu,
    /// The beginning of the name of every pod's host end; at most 4 bytes, so that 11 digits follow.
    pub interface_prefix: String,
    /// Whether `net.ipv4.ip_forward` is switched on.
    pub ip_forwarding: bool,
}

impl FelixParameters {
    /// The parameters, and what in the objects is not one.
    pub fn effective(environment: &FelixEnvironment, cluster: &Cluster) -> (Self, Vec<String>) {
        let objects: Vec<(&str, &FelixConfigurationSpec)> = objects(cluster).collect();
        let mut refused = Vec::new();
        let mtu = first(&objects, &mut refused, "ipipMTU", |spec| {
            spec.ipip_mtu.map(|mtu| config::mtu(&mtu.to_string()).map(|mtu| mtu.unwrap_or(0)))
        });
        let prefix = first(&objects, &mut refused, "interfacePrefix", |spec| {
            let prefixes = spec.interface_prefix.as_deref()?;
            prefixes.split(',').next().map(|prefix| config::prefix(prefix.trim()))
        });
        let enabled = first(&objects, &mut refused, "ipipEnabled", |spec| spec.ipip_enabled.map(Ok));
        let forwarding = first(&objects, &mut refused, "ipForwarding", |spec| {
            spec.ip_forwarding.map(|switch| Ok(switch == Switch::Enabled))
        });
        let parameters = Self {
            mtu: Mtu {
                configured: environment.ipip_mtu.or(mtu.filter(|mtu| *mtu != 0)),
                ipip_ruled_out: environment.ipip_enabled.or(enabled) == Some(false),
            },
            interface_prefix: environment
                .interface_prefix
                .clone()
                .or(prefix)
                .unwrap_or_else(|| "cali".into()),
            ip_forwarding: environment.ip_forwarding.or(forwarding).unwrap_or(true),
        };
        (parameters, refused)
    }
}

/// The parameters of the ruleset.
pub fn of_ruleset(environment: &FelixEnvironment, cluster: &Cluster) -> RulesetParameters {
    let objects: Vec<&FelixConfigurationSpec> = objects(cluster).map(|(_, spec)| spec).collect();
    let exclusions = objects.iter().find_map(|spec| spec.nat_outgoing_exclusions);
    let external = objects.iter().find_map(|spec| spec.external_nodes_list.as_ref());
    let external = environment.external_nodes.as_ref().or(external);
    let ipip = objects.iter().find_map(|spec| spec.allow_ipip_packets_from_workloads);
    RulesetParameters {
        nat_address: environment
            .nat_address
            .or_else(|| objects.iter().find_map(|spec| spec.nat_outgoing_address)),
        nat_ports: environment.nat_ports.or_else(|| objects.iter().find_map(|spec| spec.nat_port_range)),
        exclude_nodes: environment.nat_exclusions.or(exclusions) == Some(NatExclusions::IPPoolsAndHostIPs),
        external_nodes: external.into_iter().flatten().filter_map(ipv4).collect(),
        ipip_from_pods: environment.ipip_from_pods.or(ipip).unwrap_or(false),
    }
}

fn ipv4(network: &Network) -> Option<Ipv4Net> {
    match network.0 {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    }
}

/// The objects that speak to this node, in the order in which they count.
pub fn objects(cluster: &Cluster) -> impl Iterator<Item = (&'static str, &FelixConfigurationSpec)> {
    let of_node = cluster.felix_of_node.as_deref().map(|spec| ("of this node", spec));
    of_node.into_iter().chain([("default", &*cluster.felix)])
}

/// The value of the first object that has a good one.
fn first<T>(
    objects: &[(&str, &FelixConfigurationSpec)],
    refused: &mut Vec<String>,
    field: &str,
    read: impl Fn(&FelixConfigurationSpec) -> Option<Result<T, &'static str>>,
) -> Option<T> {
    for (whose, spec) in objects {
        match read(spec) {
            None => {}
            Some(Ok(value)) => return Some(value),
            Some(Err(reason)) => refused.push(format!("FelixConfiguration {whose}: spec.{field}: {reason}")),
        }
    }
    None
}

/// Tells what the objects say differently since the start, for ever.
pub async fn tell_changes(
    environment: FelixEnvironment,
    started: FelixParameters,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    problems: Problems,
) {
    loop {
        let (now, refused) = FelixParameters::effective(&environment, &cluster.borrow_and_update());
        let late = (now != started).then(|| {
            "what FelixConfiguration says has changed, and waits for a restart of this agent".to_owned()
        });
        problems.set("felix parameters", refused.into_iter().chain(late));
        if cluster.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::{Kind, Object, PortRange};
    use serde_json::{Value, json};

    fn cluster(default: &Value, of_node: Option<&Value>) -> Cluster {
        let read = |spec: &Value| {
            let object = Object::new(Kind::FelixConfiguration, "default", spec);
            Arc::new(FelixConfigurationSpec::from_object(&object).0)
        };
        Cluster { felix: read(default), felix_of_node: of_node.map(read), ..Cluster::default() }
    }

    #[test]
    fn the_environment_wins_over_the_nodes_object_and_that_over_the_clusters() {
        let cluster = cluster(
            &json!({"ipipMTU": 1400, "ipForwarding": "Disabled", "interfacePrefix": "azv,cali"}),
            Some(&json!({"ipipMTU": 1380, "ipipEnabled": false})),
        );
        let (parameters, refused) = FelixParameters::effective(&FelixEnvironment::default(), &cluster);
        assert_eq!(parameters.mtu, Mtu { configured: Some(1380), ipip_ruled_out: true });
        assert_eq!((parameters.interface_prefix.as_str(), parameters.ip_forwarding), ("azv", false));
        assert!(refused.is_empty());
        let environment = FelixEnvironment {
            ipip_mtu: Some(1300),
            ipip_enabled: Some(true),
            ..FelixEnvironment::default()
        };
        let (parameters, _) = FelixParameters::effective(&environment, &cluster);
        assert_eq!(parameters.mtu, Mtu { configured: Some(1300), ipip_ruled_out: false });
    }

    #[test]
    fn without_any_word_the_parameters_are_calicos_defaults() {
        let (parameters, _) = FelixParameters::effective(&FelixEnvironment::default(), &Cluster::default());
        let mtu = Mtu { configured: None, ipip_ruled_out: false };
        let expected = FelixParameters { mtu, interface_prefix: "cali".into(), ip_forwarding: true };
        assert_eq!(parameters, expected);
    }

    #[test]
    fn a_parameter_that_is_none_is_named_and_the_next_word_counts() {
        let cluster = cluster(
            &json!({"ipipMTU": 1400}),
            Some(&json!({"ipipMTU": 12, "interfacePrefix": "california"})),
        );
        let (parameters, refused) = FelixParameters::effective(&FelixEnvironment::default(), &cluster);
        assert_eq!((parameters.mtu.configured, parameters.interface_prefix.as_str()), (Some(1400), "cali"));
        assert_eq!(refused.len(), 2);
        assert!(refused[0].contains("ipipMTU") && refused[1].contains("interfacePrefix"), "{refused:?}");
    }
    #[test]
    fn of_the_ruleset_too_the_environment_wins_over_the_nodes_object_and_that_over_the_clusters() {
        let cluster = cluster(
            &json!({"natPortRange": "1:2", "natOutgoingAddress": "203.0.113.7", "allowIPIPPacketsFromWorkloads": true,
                "externalNodesList": ["10.0.0.0/8", "fd00::/8"]}),
            Some(&json!({"natOutgoingAddress": "203.0.113.8", "natOutgoingExclusions": "IPPoolsAndHostIPs"})),
        );
        let environment = FelixEnvironment { nat_ports: PortRange::new(3, 4), ..FelixEnvironment::default() };
        let expected = RulesetParameters {
            nat_address: Some([203, 0, 113, 8].into()),
            nat_ports: PortRange::new(3, 4),
            exclude_nodes: true,
            external_nodes: vec!["10.0.0.0/8".parse().unwrap()],
            ipip_from_pods: true,
        };
        assert_eq!(of_ruleset(&environment, &cluster), expected);
        let nothing = of_ruleset(&FelixEnvironment::default(), &Cluster::default());
        assert_eq!(nothing, RulesetParameters::default());
    }
}
