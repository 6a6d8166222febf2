//! The facts, as the expansion asks for them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use manx_model::{
    Asn, BgpConfigurationSpec, BgpPeer, BindMode, Complaint, InterfaceAddress, IpPool, Kind, LogSeverity,
    Node, NodeName, PeeringNodes,
};

use super::{Facts, too_long};

/// Calico's metric of routes from BGP.
const NORMAL_PRIORITY: u32 = 1024;

/// The facts with this node's part worked out.
pub(super) struct View<'a> {
    pub(super) facts: Facts<'a>,
    /// This node's address.
    pub(super) address: Ipv4Addr,
    /// This node; of a node that has published nothing, only the name is known.
    pub(super) own: Node,
    /// This node's AS.
    pub(super) asn: Asn,
    /// The BGPConfiguration `default`.
    pub(super) default: Arc<BgpConfigurationSpec>,
}

impl<'a> View<'a> {
    pub(super) fn new(facts: &Facts<'a>) -> Self {
        let known = facts.nodes.get(facts.node.as_str());
        let own = known.map_or_else(|| Node::new(facts.node.clone()), |node| Node::clone(node));
        let default = facts.configurations.get("default").cloned().unwrap_or_default();
        let asn = facts.own_asn.or(own.asn).or(default.as_number).unwrap_or(Asn::DEFAULT);
        Self { facts: *facts, address: facts.address, own, asn, default }
    }

    /// What this node has for itself: the BGPConfiguration `node.NAME`.
    pub(super) fn own_configuration(&self) -> Option<&'a BgpConfigurationSpec> {
        self.configuration_of(self.facts.node)
    }

    fn configuration_of(&self, node: &NodeName) -> Option<&'a BgpConfigurationSpec> {
        self.facts.configurations.get(&format!("node.{node}")).map(|spec| &**spec)
    }

    /// Where this node listens, if anybody has said so.
    pub(super) fn own_port(&self) -> Option<u16> {
        self.port_of(self.facts.node)
    }

    /// Where a node listens, if anybody has said so.
    pub(super) fn port_of(&self, node: &NodeName) -> Option<u16> {
        self.configuration_of(node).and_then(|spec| spec.listen_port).or(self.default.listen_port)
    }

    /// The AS of a node.
    pub(super) fn asn_of(&self, node: &Node) -> Asn {
        node.asn.or(self.default.as_number).unwrap_or(Asn::DEFAULT)
    }

    /// The other nodes that have published an address.
    pub(super) fn others(&self) -> impl Iterator<Item = (&'a Node, Ipv4Addr)> + use<'a> {
        let own = self.facts.node;
        let others = self.facts.nodes.values().map(|node| &**node).filter(move |node| node.name != *own);
        others.filter_map(|node| Some((node, node.address.map(InterfaceAddress::address)?)))
    }

    /// The other node that has this address.
    pub(super) fn node_at(&self, address: Ipv4Addr) -> Option<&'a Node> {
        self.others().find(|(_, at)| *at == address).map(|(node, _)| node)
    }

    pub(super) fn pools(&self) -> &'a [IpPool] {
        self.facts.pools
    }

    /// Whether a BGPPeer is for a node.
    pub(super) fn is_for(object: &BgpPeer, node: &Node) -> bool {
        match &object.nodes {
            PeeringNodes::All => true,
            PeeringNodes::One(name) => *name == node.name,
            PeeringNodes::Selected(selector) => selector.matches(&node.labels),
        }
    }

    /// What the BGPConfigurations of this node ask for, and we do not do.
    pub(super) fn complaints(&self) -> Vec<Complaint> {
        let default = &self.default;
        let about = |name: String, field: &str| {
            Complaint::not_supported(Kind::BGPConfiguration, name, format!("spec.{field}"))
        };
        let normal = |priority: Option<u32>| priority.is_none_or(|priority| priority == NORMAL_PRIORITY);
        let logs = |severity: Option<LogSeverity>| severity.is_some_and(|it| it != LogSeverity::Info);
        let every_address = default.bind_mode == Some(BindMode::None);
        let asked = [
            (every_address, "bindMode: None"),
            (default.local_workload_peering_ip_v4.is_some(), "localWorkloadPeeringIPV4"),
            (default.local_workload_peering_ip_v6.is_some(), "localWorkloadPeeringIPV6"),
            (!normal(default.ipv4_normal_route_priority), "ipv4NormalRoutePriority"),
            (!normal(default.ipv6_normal_route_priority), "ipv6NormalRoutePriority"),
            (logs(default.log_severity_screen), "logSeverityScreen"),
        ];
        let known = asked.into_iter().filter(|(asked, _)| *asked).map(|(_, field)| field);
        let unknown = default.rest.iter().filter(|(_, value)| !value.is_null());
        let unknown = unknown.map(|(field, _)| field.as_str());
        let of_default = known.chain(unknown).map(|field| about("default".into(), field));
        let own_logs = logs(self.own_configuration().and_then(|spec| spec.log_severity_screen));
        let own = own_logs.then(|| about(format!("node.{}", self.facts.node), "logSeverityScreen"));
        let long = too_long(default.node_mesh_max_restart_time.map(|time| time.0)).then(|| {
            let message =
                "spec.nodeMeshMaxRestartTime: is more than the 4095 s that BGP can say, which is taken";
            Complaint::new(Kind::BGPConfiguration, "default", message)
        });
        of_default.chain(own).chain(long).chain(crate::services::complaints(default)).collect()
    }
}
