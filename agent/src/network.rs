//! What a network configuration may ask of this agent: what it carries out, refuses, or lists as being without effect.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use manx_cni::settings::{Cidr, Source, Wishes};
use manx_cni::{CniError, Code, Settings};
use manx_model::NodeName;

use crate::cluster::Cluster;
use crate::demand::Demand;
use crate::information::{LOCKED, is_locked};
use crate::pod_cidrs::{self, Own};

/// Refuses what would give the pod another network than was asked for, whoever asked.
///
/// # Errors
/// [`Code::UNSUPPORTED_FIELD`], with the key and its value.
pub fn refuse(demand: &Demand) -> Result<(), CniError> {
    if !demand.ipv4 && !demand.ipv6 {
        return Err(not_yet("ipam.assign_ipv4", false, "let pods have an address of one family at least"));
    }
    Ok(())
}

/// Where a pod's routes over its gateway lead: nowhere in particular, where it has the default routes alone.
pub fn destinations(settings: &Settings) -> Vec<IpNet> {
    let routes = &settings.routes;
    let read = |cidr: &Cidr| IpNet::new(cidr.address, cidr.bits).ok().map(|net| net.trunc());
    let mut destinations: Vec<IpNet> = routes.destinations.iter().filter_map(read).collect();
    if routes.defaults_too && !destinations.is_empty() {
        destinations.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
    }
    destinations
}

/// Why no pod could have an address now, as far as the objects say.
pub fn unserved(cluster: &Cluster, own: &Own, source: Source, demand: &Demand) -> Option<String> {
    if source == Source::PodCidr {
        let families = [(demand.ipv4, true), (demand.ipv6, false)].into_iter();
        let mut without = families.filter(|(wanted, ipv4)| *wanted && own.of_family(*ipv4).is_none());
        return without.next().map(|(_, ipv4)| pod_cidrs::missing(&own.node, ipv4));
    }
    if is_locked(cluster) {
        return Some(LOCKED.to_owned());
    }
    let has =
        |ipv4: bool| cluster.pools.iter().any(|pool| !pool.disabled && pool.cidr.addr().is_ipv4() == ipv4);
    let missing = [(demand.ipv4 && !has(true), "IPv4"), (demand.ipv6 && !has(false), "IPv6")];
    let family = missing.into_iter().find(|(missing, _)| *missing).map(|(_, family)| family)?;
    Some(format!("there is no enabled IPPool of {family}: create one, or set disabled: false"))
}

fn not_yet(key: &str, value: impl ToString, remedy: &str) -> CniError {
    let value = value.to_string();
    CniError::new(
        Code::UNSUPPORTED_FIELD,
        format!("unsupported field in the network configuration: {key} is {value}"),
        format!("{key} is {value}, which is not supported yet: {remedy}"),
    )
}

/// Everything that `network` asks for in vain, in words for the operator.
pub fn without_effect(network: &str, settings: &Settings, wishes: &Wishes, node: &NodeName) -> Vec<String> {
    let elsewhere = settings.node.as_ref().filter(|name| **name != node.to_string());
    let chained = "the capability bandwidth has no effect: give it to the bandwidth plugin behind manx-cni";
    let said = [
        elsewhere
            .map(|name| format!("nodename is {name:?}, and this node is {node}: the agent's name counts")),
        wishes.bandwidth.map(|_| chained.to_owned()),
        settings
            .policy_timeout_seconds
            .map(|seconds| format!("policy_setup_timeout_seconds: {seconds}: ADD waits for no policy")),
    ];
    let said = settings.without_effect.iter().cloned().chain(said.into_iter().flatten());
    said.map(|text| format!("{network}: {text}")).collect()
}

#[cfg(test)]
mod tests {
    use manx_cni::settings::{Bandwidth, PodRoutes};

    use super::*;
    use crate::demand::{About, demand};

    fn own() -> Own {
        let store = std::sync::Arc::new(manx_datastore::Memory::new());
        Own::new("n1".parse().unwrap(), store, &Cluster::default())
    }

    fn asking(change: impl FnOnce(&mut Settings, &mut Wishes)) -> (Settings, Wishes) {
        let (mut settings, mut wishes) = Default::default();
        change(&mut settings, &mut wishes);
        (settings, wishes)
    }

    #[test]
    fn what_would_be_another_network_than_was_asked_for_is_refused_by_key_and_value() {
        let refuse = |settings: &Settings, wishes: &Wishes| {
            refuse(&demand(&settings.ipam, wishes, About::default()).unwrap())
        };
        assert_eq!(refuse(&Settings::default(), &Wishes::default()), Ok(()));
        let (settings, wishes) = asking(|s, _| s.ipam.assign_ipv4 = false);
        let error = refuse(&settings, &wishes).unwrap_err();
        assert_eq!(error.code, Code::UNSUPPORTED_FIELD);
        assert!(error.msg.contains("ipam.assign_ipv4 is false"), "{}", error.msg);
    }

    #[test]
    fn routes_lead_where_the_configuration_says_and_elsewhere_only_if_it_says_so() {
        let texts = |destinations: &[&str], defaults_too| {
            let destinations = destinations.iter().map(|text| text.parse().unwrap()).collect();
            let (settings, _) = asking(|s, _| s.routes = PodRoutes { destinations, defaults_too });
            super::destinations(&settings).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(&["10.1.2.3/8", "fd00::/8"], false), ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(texts(&["10.0.0.0/8"], true), ["10.0.0.0/8", "0.0.0.0/0", "::/0"]);
        assert_eq!((texts(&[], true).len(), texts(&[], false).len()), (0, 0), "the default routes");
    }

    #[test]
    fn without_a_pool_of_the_pods_family_no_pod_can_be_attached() {
        let pool = |cidr: &str, disabled: bool| {
            let spec = serde_json::json!({"cidr": cidr, "disabled": disabled});
            let object = manx_model::Object::new(manx_model::Kind::IPPool, "p", &spec);
            manx_model::IpPool::from_object(&object).unwrap()
        };
        let cluster = |pools| Cluster { pools: std::sync::Arc::new(pools), ..Cluster::default() };
        let (four, six) =
            (Demand { ipv4: true, ..Demand::default() }, Demand { ipv6: true, ..Demand::default() });
        let unserved = |cluster: &Cluster, demand: &Demand| unserved(cluster, &own(), Source::Blocks, demand);
        assert_eq!(unserved(&cluster(vec![pool("10.0.0.0/16", false)]), &four), None);
        for pools in [vec![], vec![pool("10.0.0.0/16", true)], vec![pool("fd00::/64", false)]] {
            assert!(unserved(&cluster(pools), &four).is_some_and(|reason| reason.contains("IPv4")));
        }
        assert_eq!(unserved(&cluster(vec![pool("fd00::/64", false)]), &six), None);
    }

    #[test]
    fn a_network_of_pod_cidrs_needs_one_of_the_node_and_no_pool() {
        let (four, six) =
            (Demand { ipv4: true, ..Demand::default() }, Demand { ipv6: true, ..Demand::default() });
        let (own, cluster) = (own(), Cluster::default());
        own.known.send_replace(vec!["10.1.0.0/24".parse().unwrap()]);
        assert_eq!(unserved(&cluster, &own, Source::PodCidr, &four), None);
        let missing = unserved(&cluster, &own, Source::PodCidr, &six);
        assert!(missing.is_some_and(|reason| reason.contains("no IPv6 network in spec.podCIDRs")));
    }

    #[test]
    fn what_has_no_effect_is_listed_with_its_network() {
        let node: NodeName = "node1".parse().unwrap();
        let (settings, wishes) = asking(|settings, wishes| {
            settings.node = Some("node2".to_owned());
            settings.without_effect = vec!["etcd_endpoints is ...".to_owned()];
            wishes.bandwidth = Some(Bandwidth::default());
        });
        let said = without_effect("net", &settings, &wishes, &node);
        for (text, words) in said.iter().zip(["etcd_", "node2", "bandwidth"]) {
            assert!(text.starts_with("net: ") && text.contains(words), "{text}");
        }
        assert_eq!(said.len(), 3);
        let (settings, wishes) = asking(|settings, _| settings.node = Some("node1".to_owned()));
        assert_eq!(without_effect("net", &settings, &wishes, &node), Vec::<String>::new());
    }
}
