//! What a network configuration may ask of this agent: what it carries out, refuses, or lists as being without effect.

use manx_cni::settings::{Source, Wishes};
use manx_cni::{CniError, Code, Settings};
use manx_model::NodeName;

use crate::cluster::Cluster;
use crate::demand::Demand;
use crate::information::{LOCKED, is_locked};

/// Refuses what would give the pod another network than was asked for, whoever asked.
///
/// # Errors
/// [`Code::UNSUPPORTED_FIELD`], with the key and its value.
pub fn refuse(settings: &Settings, demand: &Demand) -> Result<(), CniError> {
    let ipam = &settings.ipam;
    if ipam.source == Source::PodCidr {
        return Err(not_yet("ipam.subnet", "usePodCidr", "use \"calico-ipam\""));
    }
    if !demand.ipv4 && !demand.ipv6 {
        return Err(not_yet("ipam.assign_ipv4", false, "let pods have an address of one family at least"));
    }
    if let Some(route) = settings.routes.destinations.first() {
        return Err(not_yet("ipam.routes", route, "remove it, and pods get a default route"));
    }
    Ok(())
}

/// Why no pod could have an address now, as far as the objects say.
pub fn unserved(cluster: &Cluster, demand: &Demand) -> Option<String> {
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
    let not_yet = |what: String| format!("{what} is not supported yet and has no effect");
    let queues = settings.queues.filter(|queues| *queues > 1);
    let gates = (!settings.readiness_gates.is_empty()).then(|| settings.readiness_gates.join(", "));
    let elsewhere = settings.node.as_ref().filter(|name| **name != node.to_string());
    let chained = "the capability bandwidth has no effect: give it to the bandwidth plugin behind manx-cni";
    let said = [
        queues.map(|queues| not_yet(format!("num_queues: {queues}"))),
        gates.map(|gates| not_yet(format!("readiness_gates: {gates}"))),
        elsewhere
            .map(|name| format!("nodename is {name:?}, and this node is {node}: the agent's name counts")),
        wishes.bandwidth.map(|_| chained.to_owned()),
    ];
    let said = settings.without_effect.iter().cloned().chain(said.into_iter().flatten());
    said.map(|text| format!("{network}: {text}")).collect()
}

#[cfg(test)]
mod tests {
    use manx_cni::settings::{Bandwidth, PodRoutes};

    use super::*;
    use crate::demand::{About, demand};

    fn asking(change: impl FnOnce(&mut Settings, &mut Wishes)) -> (Settings, Wishes) {
        let (mut settings, mut wishes) = Default::default();
        change(&mut settings, &mut wishes);
        (settings, wishes)
    }

    #[test]
    fn what_would_be_another_network_than_was_asked_for_is_refused_by_key_and_value() {
        let refuse = |settings: &Settings, wishes: &Wishes| {
            refuse(settings, &demand(&settings.ipam, wishes, About::default()).unwrap())
        };
        assert_eq!(refuse(&Settings::default(), &Wishes::default()), Ok(()));
        for ((settings, wishes), said) in [
            (asking(|s, _| s.ipam.source = Source::PodCidr), "ipam.subnet is usePodCidr"),
            (asking(|s, _| s.ipam.assign_ipv4 = false), "ipam.assign_ipv4 is false"),
            (
                asking(|s, _| {
                    let destinations = vec!["10.0.0.0/8".parse().unwrap()];
                    s.routes = PodRoutes { destinations, defaults_too: false };
                }),
                "ipam.routes is 10.0.0.0/8",
            ),
        ] {
            let error = refuse(&settings, &wishes).unwrap_err();
            assert_eq!(error.code, Code::UNSUPPORTED_FIELD);
            assert!(error.msg.contains(said), "{}", error.msg);
        }
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
        assert_eq!(unserved(&cluster(vec![pool("10.0.0.0/16", false)]), &four), None);
        for pools in [vec![], vec![pool("10.0.0.0/16", true)], vec![pool("fd00::/64", false)]] {
            assert!(unserved(&cluster(pools), &four).is_some_and(|reason| reason.contains("IPv4")));
        }
        assert_eq!(unserved(&cluster(vec![pool("fd00::/64", false)]), &six), None);
    }

    #[test]
    fn what_has_no_effect_is_listed_with_its_network() {
        let node: NodeName = "node1".parse().unwrap();
        let (settings, wishes) = asking(|settings, wishes| {
            settings.queues = Some(2);
            settings.readiness_gates = vec!["http://x".to_owned()];
            settings.node = Some("node2".to_owned());
            settings.without_effect = vec!["etcd_endpoints is ...".to_owned()];
            wishes.bandwidth = Some(Bandwidth::default());
        });
        let said = without_effect("net", &settings, &wishes, &node);
        for (text, words) in said.iter().zip(["etcd_", "num_queues: 2", "http://x", "node2", "bandwidth"]) {
            assert!(text.starts_with("net: ") && text.contains(words), "{text}");
        }
        assert_eq!(said.len(), 5);
        let (settings, wishes) = asking(|settings, _| settings.node = Some("node1".to_owned()));
        assert_eq!(without_effect("net", &settings, &wishes, &node), Vec::<String>::new());
    }
}
