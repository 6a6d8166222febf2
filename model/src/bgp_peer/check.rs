//! The rules about which fields of a BGPPeer go together.

use super::{BgpPeer, BgpPeerSpec, NextHopMode, PeeringNodes, Peers};

/// The field that is wrong, and why.
type Wrong = (&'static str, String);

pub(super) fn peer(name: &str, spec: BgpPeerSpec) -> Result<BgpPeer, Wrong> {
    Ok(BgpPeer {
        name: name.to_owned(),
        nodes: nodes(&spec)?,
        peers: peers(&spec)?,
        next_hop: next_hop(&spec)?,
        local_asn: spec.local_as_number,
        password: spec.password,
        source: spec.source_address.unwrap_or_default(),
        max_restart_time: spec.max_restart_time,
        keepalive_time: spec.keepalive_time,
        allowed_local_asns: spec.num_allowed_local_as_numbers.unwrap_or(0),
        ttl_security: spec.ttl_security,
        filters: spec.filters,
        reverse: spec.reverse_peering.unwrap_or_default(),
        unknown: spec
            .rest
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(field, _)| field)
            .collect(),
    })
}

fn nodes(spec: &BgpPeerSpec) -> Result<PeeringNodes, Wrong> {
    match (&spec.node, &spec.node_selector) {
        (Some(_), Some(_)) => Err(("nodeSelector", "is given beside node; only one of them can be".into())),
        (Some(node), None) => Ok(PeeringNodes::One(node.clone())),
        (None, Some(selector)) if selector.uses_global() => {
            Err(("nodeSelector", "uses global(), which has no meaning for nodes".into()))
        }
        (None, Some(selector)) => Ok(PeeringNodes::Selected(selector.clone())),
        (None, None) => Ok(PeeringNodes::All),
    }
}

fn peers(spec: &BgpPeerSpec) -> Result<Peers, Wrong> {
    let asn = |field| spec.as_number.ok_or(("asNumber", format!("is missing; it is required with {field}")));
    if let Some(reachable_by) = spec.reachable_by
        && spec.peer_ip.is_none_or(|peer| peer.address.is_ipv4() != reachable_by.is_ipv4())
    {
        let reason = format!("{reachable_by} needs a peerIP, and one of the same family");
        return Err(("reachableBy", reason));
    }
    match (spec.peer_ip, &spec.peer_selector, &spec.local_workload_selector) {
        (Some(endpoint), None, None) => {
            Ok(Peers::Address { endpoint, asn: asn("peerIP")?, reachable_by: spec.reachable_by })
        }
        (None, Some(_), None) if spec.as_number.is_some() => {
            Err(("asNumber", "does not go with peerSelector: every node has its own".into()))
        }
        (None, Some(selector), None) if selector.uses_global() => {
            Err(("peerSelector", "uses global(), which has no meaning for nodes".into()))
        }
        (None, Some(selector), None) => Ok(Peers::Nodes(selector.clone())),
        (None, None, Some(selector)) => {
            Ok(Peers::LocalWorkloads(selector.clone(), asn("localWorkloadSelector")?))
        }
        (None, None, None) => {
            Err(("peerIP", "is missing, and so are peerSelector and localWorkloadSelector".into()))
        }
        (Some(_), Some(_), _) => Err(("peerSelector", "does not go with peerIP".into())),
        (_, _, Some(_)) => {
            Err(("localWorkloadSelector", "does not go with peerIP, nor with peerSelector".into()))
        }
    }
}

fn next_hop(spec: &BgpPeerSpec) -> Result<NextHopMode, Wrong> {
    match (spec.keep_original_next_hop, spec.next_hop_mode) {
        (true, Some(NextHopMode::Auto | NextHopMode::Own)) => Err((
            "keepOriginalNextHop",
            "true contradicts nextHopMode, and is deprecated: leave it out".into(),
        )),
        (true, _) => Ok(NextHopMode::Keep),
        (false, mode) => Ok(mode.unwrap_or_default()),
    }
}
