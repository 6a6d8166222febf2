//! The mesh: every node with every other, except route reflectors, whose peers BGPPeers name.

use manx_model::{Complaint, Kind};

use super::{Candidate, Draft, PeerKind};

pub(super) fn add(draft: &mut Draft<'_>) {
    for (other, address) in draft.view.others() {
        if address == draft.view.address {
            let message = format!(
                "has published the address {address} of node {}: one of the two is wrong",
                draft.view.own.name
            );
            draft.complaints.push(Complaint::new(Kind::Node, other.name.as_str(), message));
            continue;
        }
        let enabled = draft.view.default.node_to_node_mesh_enabled.unwrap_or(true);
        if !enabled || draft.view.own.cluster_id.is_some() || other.cluster_id.is_some() {
            continue;
        }
        draft.admit(&Candidate {
            kind: PeerKind::Mesh,
            object: None,
            address,
            port: draft.view.port_of(&other.name),
            asn: draft.view.asn_of(other),
            node: Some(other),
            reverse: false,
        });
    }
}
