//! The peers that BGPPeers ask for: those for every node, those for this one, and those that follow the other way round.

use std::net::{IpAddr, Ipv4Addr};

use manx_model::{BgpPeer, Complaint, Kind, Node, PeerEndpoint, PeeringNodes, Peers, ReversePeering};

use super::view::View;
use super::{Candidate, Draft, PeerKind, too_long};

pub(super) fn add(draft: &mut Draft<'_>) {
    let objects = draft.view.facts.peers;
    for object in objects.values() {
        if let PeeringNodes::One(node) = &object.nodes
            && !draft.view.facts.nodes.contains_key(node.as_str())
        {
            let message = format!("spec.node: there is no Node {node}");
            draft.complaints.push(Complaint::new(Kind::BGPPeer, &object.name, message));
        }
    }
    let ours = |kind: PeerKind| {
        let of_kind =
            move |object: &&BgpPeer| (object.nodes == PeeringNodes::All) == (kind == PeerKind::Global);
        objects.values().map(|object| &**object).filter(of_kind)
    };
    for kind in [PeerKind::Global, PeerKind::Node] {
        for object in ours(kind) {
            if View::is_for(object, &draft.view.own) {
                complain(draft, object);
                add_forward(draft, kind, object);
            }
        }
    }
    for object in objects.values().filter(|object| object.reverse == ReversePeering::Auto) {
        if names_this_node(&draft.view, object) {
            if !View::is_for(object, &draft.view.own) {
                complain(draft, object);
            }
            add_reverse(draft, object);
        }
    }
}

/// What the object asks for, and we do not do.
fn complain(draft: &mut Draft<'_>, object: &BgpPeer) {
    let mut complain = |message: String| {
        draft.complaints.push(Complaint::new(Kind::BGPPeer, &object.name, message));
    };
    let not_supported = |field: &str| format!("spec.{field} is not supported yet and has no effect");
    match &object.peers {
        Peers::Address { endpoint, .. } if endpoint.address.is_ipv6() => {
            complain(format!("spec.peerIP: {endpoint}: IPv6 is not supported yet: there is no session"));
        }
        Peers::LocalWorkloads(..) => {
            complain("spec.localWorkloadSelector is not supported yet: there is no session".into());
        }
        _ => {}
    }
    object.unknown.iter().for_each(|field| complain(not_supported(field)));
    if too_long(object.max_restart_time.map(|time| time.0)) {
        complain("spec.maxRestartTime: is more than the 4095 s that BGP can say, which is taken".into());
    }
    for (index, name) in object.filters.iter().enumerate() {
        if !draft.view.facts.filters.contains_key(name) {
            complain(format!(
                "spec.filters[{index}]: there is no BGPFilter {name} that can be used: \
                 until there is, what no filter before it has decided is rejected, in both directions"
            ));
        }
    }
}

fn add_forward<'a>(draft: &mut Draft<'a>, kind: PeerKind, object: &'a BgpPeer) {
    match &object.peers {
        Peers::Address { endpoint: PeerEndpoint { address: IpAddr::V4(address), port }, asn, .. } => {
            let node = draft.view.node_at(*address);
            // A node listens where it says; a stranger that happens to have its address, where everybody does.
            let same = node.filter(|node| draft.view.asn_of(node) == *asn);
            let port = port.or_else(|| same.and_then(|node| draft.view.port_of(&node.name)));
            draft.admit(&Candidate {
                kind,
                object: Some(object),
                address: *address,
                port,
                asn: *asn,
                node,
                reverse: false,
            });
        }
        Peers::Nodes(selector) => {
            for (node, address) in draft.view.others().filter(|(node, _)| selector.matches(&node.labels)) {
                draft.admit(&Candidate {
                    kind,
                    object: Some(object),
                    address,
                    port: draft.view.port_of(&node.name),
                    asn: draft.view.asn_of(node),
                    node: Some(node),
                    reverse: false,
                });
            }
        }
        Peers::Address { .. } | Peers::LocalWorkloads(..) => {}
    }
}

/// This node is what the object peers with: it peers back with the nodes that the object is for.
fn add_reverse<'a>(draft: &mut Draft<'a>, object: &'a BgpPeer) {
    let for_them = |(node, _): &(&Node, Ipv4Addr)| View::is_for(object, node);
    for (node, address) in draft.view.others().filter(for_them) {
        draft.admit(&Candidate {
            kind: PeerKind::Node,
            object: Some(object),
            address,
            port: draft.view.port_of(&node.name),
            asn: object.local_asn.unwrap_or_else(|| draft.view.asn_of(node)),
            node: Some(node),
            reverse: true,
        });
    }
}

fn names_this_node(view: &View<'_>, object: &BgpPeer) -> bool {
    match &object.peers {
        Peers::Nodes(selector) => selector.matches(&view.own.labels),
        Peers::Address { endpoint, asn, .. } => {
            let port = view.own_port().unwrap_or(super::BGP_PORT);
            endpoint.address == IpAddr::V4(view.address)
                && *asn == view.asn
                && endpoint.port.is_none_or(|named| named == port)
        }
        Peers::LocalWorkloads(..) => false,
    }
}
