//! Which addresses of services this node announces, and why. Pure.
//!
//! The ranges that BGPConfiguration lists are announced by every node: whoever gets a packet passes it on to a pod. A
//! single address is announced beside them where it matters which node the packet comes to, or where no range covers it:
//!
//! - the service wants its traffic on nodes that have a pod of it (`externalTrafficPolicy: Local`): by those nodes;
//! - its load balancer's address is listed as a range of one address, which is announced only while there is a service
//!   that has it: by every node;
//! - load balancers are not to be aggregated: by every node, as long as there is a pod anywhere.
//!
//! A node that is excluded from load balancers announces nothing of all this. A range of all addresses allows every
//! address, as in Calico, and is itself not announced: it would be a default route to nowhere.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use manx_model::{
    BgpConfigurationSpec, Complaint, EndpointSlice, Kind, NodeName, Service, ServiceEndpoint, ServiceRange,
    Switch,
};

/// What the announcements of a node follow from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// This node.
    pub node: &'a NodeName,
    /// It is not to attract the traffic of services ([`manx_model::Node::is_excluded_from_load_balancers`]).
    pub excluded: bool,
    /// The BGPConfiguration `default`.
    pub bgp: &'a BgpConfigurationSpec,
    /// Services by `namespace/name`.
    pub services: &'a BTreeMap<String, Arc<Service>>,
    /// EndpointSlices by `namespace/name`.
    pub slices: &'a BTreeMap<String, Arc<EndpointSlice>>,
}

/// What a node announces, of both families, and for each prefix every reason: it is announced as long as one is left.
pub type Announced = BTreeMap<IpNet, BTreeSet<Reason>>;

/// Why a prefix is announced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// BGPConfiguration lists it, in this field.
    Range(&'static str),
    /// A service of this key wants its traffic where its pods are, and one is here.
    Local(String),
    /// It is listed as a range of one address, and a service of this key has it.
    Listed(String),
    /// Load balancers are not aggregated, and a service of this key has it and pods.
    Single(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(field) => write!(f, "BGPConfiguration default lists it in {field}"),
            Self::Local(service) => write!(f, "a pod of Service {service} is here"),
            Self::Listed(service) => write!(f, "Service {service} has it, and it is listed alone"),
            Self::Single(service) => write!(f, "Service {service} has it, and is not aggregated"),
        }
    }
}

/// The ranges of services: what is learned about them is for peers, and not for this node's kernel.
pub fn ranges(bgp: &BgpConfigurationSpec) -> BTreeSet<IpNet> {
    let all = fields(bgp).into_iter().flat_map(|(_, ranges)| ranges).filter(|range| !is_everything(range));
    all.map(|range| range.cidr).collect()
}

/// What BGPConfiguration `default` asks for and does not get.
pub fn complaints(bgp: &BgpConfigurationSpec) -> Vec<Complaint> {
    let everything = fields(bgp).into_iter().filter(|(_, ranges)| ranges.iter().any(is_everything));
    let everything = everything.map(|(field, _)| {
        let message = format!(
            "spec.{field}: a range of all addresses allows all of them, and is not announced itself: \
             it would draw all traffic here"
        );
        Complaint::new(Kind::BGPConfiguration, "default", message)
    });
    everything.collect()
}

/// Whether it matters for an announcement where the pods of a service are. Every node that asks is told of every pod of
/// every service, so nobody asks who need not know.
pub fn follows_pods(bgp: &BgpConfigurationSpec, service: &Service) -> bool {
    if service.cluster_ips.is_empty() {
        return false;
    }
    let mut balanced = listed(&service.load_balancer_ips, &bgp.service_load_balancer_ips);
    if !service.external_traffic_local {
        return !aggregates(bgp) && balanced.any(|address| !is_listed_alone(bgp, address));
    }
    let mut others = listed(&service.cluster_ips, &bgp.service_cluster_ips)
        .chain(listed(&service.external_ips, &bgp.service_external_ips));
    balanced.next().is_some() || others.next().is_some()
}

/// What the node announces now.
pub fn announced(facts: &Facts<'_>) -> Announced {
    let mut announced = Announced::new();
    if facts.excluded || !facts.bgp.announces_services() {
        return announced;
    }
    add_ranges(&mut announced, facts.bgp);
    let ready = Ready::of(facts);
    for (key, service) in facts.services {
        for (address, reason) in singles(facts, &ready, key, service) {
            announced.entry(IpNet::from(address)).or_default().insert(reason);
        }
    }
    announced
}

fn add_ranges(announced: &mut Announced, bgp: &BgpConfigurationSpec) {
    for (field, ranges) in fields(bgp) {
        let balanced = field == LOAD_BALANCERS;
        for range in ranges.iter().filter(|range| !is_everything(range)) {
            // Of load balancers only what is aggregated: the rest is announced as services have it.
            if !balanced || (aggregates(bgp) && !is_single(range)) {
                announced.entry(range.cidr).or_default().insert(Reason::Range(field));
            }
        }
    }
}

const LOAD_BALANCERS: &str = "serviceLoadBalancerIPs";

fn fields(bgp: &BgpConfigurationSpec) -> [(&'static str, &[ServiceRange]); 3] {
    [
        ("serviceClusterIPs", &bgp.service_cluster_ips),
        ("serviceExternalIPs", &bgp.service_external_ips),
        (LOAD_BALANCERS, &bgp.service_load_balancer_ips),
    ]
}

fn is_everything(range: &ServiceRange) -> bool {
    range.cidr.prefix_len() == 0
}

/// The addresses of a service that are announced alone.
fn singles(facts: &Facts<'_>, ready: &Ready<'_>, key: &str, service: &Service) -> Vec<(IpAddr, Reason)> {
    if service.cluster_ips.is_empty() {
        // Headless, or only a name: nothing forwards to its pods.
        return Vec::new();
    }
    let bgp = facts.bgp;
    let balanced = listed(&service.load_balancer_ips, &bgp.service_load_balancer_ips);
    if service.external_traffic_local {
        let others = listed(&service.cluster_ips, &bgp.service_cluster_ips)
            .chain(listed(&service.external_ips, &bgp.service_external_ips));
        let here = balanced.chain(others).filter(|address| ready.here(key, *address));
        return here.map(|address| (address, Reason::Local(key.to_owned()))).collect();
    }
    let reason = |address: IpAddr| match (is_listed_alone(bgp, address), aggregates(bgp)) {
        (true, _) => Some(Reason::Listed(key.to_owned())),
        (false, false) if ready.anywhere(key, address) => Some(Reason::Single(key.to_owned())),
        _ => None,
    };
    balanced.filter_map(|address| Some((address, reason(address)?))).collect()
}

/// Those of a service's addresses that are within a range that is announced: nobody attracts an address by writing it
/// into a Service.
fn listed(addresses: &[IpAddr], ranges: &[ServiceRange]) -> impl Iterator<Item = IpAddr> {
    let within = |address: &&IpAddr| ranges.iter().any(|range| range.cidr.contains(*address));
    addresses.iter().filter(within).copied()
}

/// Whether a load balancer's address is a range of its own.
fn is_listed_alone(bgp: &BgpConfigurationSpec, address: IpAddr) -> bool {
    let range = IpNet::from(address);
    bgp.service_load_balancer_ips.iter().any(|listed| listed.cidr == range)
}

fn aggregates(bgp: &BgpConfigurationSpec) -> bool {
    bgp.service_load_balancer_aggregation != Some(Switch::Disabled)
}

fn is_single(range: &ServiceRange) -> bool {
    range.cidr.prefix_len() == range.cidr.max_prefix_len()
}

/// Where pods are ready, by service and family.
struct Ready<'a> {
    anywhere: BTreeSet<(&'a str, bool)>,
    here: BTreeSet<(&'a str, bool)>,
}

impl<'a> Ready<'a> {
    fn of(facts: &Facts<'a>) -> Self {
        let mut ready = Self { anywhere: BTreeSet::new(), here: BTreeSet::new() };
        for slice in facts.slices.values() {
            let key = (slice.service.as_str(), slice.ipv4);
            for endpoint in slice.endpoints.iter().filter(|endpoint| takes_traffic(endpoint)) {
                ready.anywhere.insert(key);
                if endpoint.node.as_ref() == Some(facts.node) {
                    ready.here.insert(key);
                }
            }
        }
        ready
    }

    fn anywhere(&self, service: &str, address: IpAddr) -> bool {
        self.anywhere.contains(&(service, address.is_ipv4()))
    }

    fn here(&self, service: &str, address: IpAddr) -> bool {
        self.here.contains(&(service, address.is_ipv4()))
    }
}

/// A pod that is about to end counts only where it is said to be ready nevertheless, and still serves.
fn takes_traffic(endpoint: &ServiceEndpoint) -> bool {
    endpoint.ready && (!endpoint.terminating || endpoint.serving)
}
