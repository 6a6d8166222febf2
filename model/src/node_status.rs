//! What somebody wants to be told about a node, and what the node tells: CalicoNodeStatus.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::read::strict;
use crate::{Invalid, NodeName, Object};

/// The longest time between two updates, in seconds: a day.
const MAX_PERIOD: u32 = 86_400;

/// `spec` of a CalicoNodeStatus.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatusSpec {
    /// The node that is asked.
    pub node: NodeName,
    /// What it is asked about.
    #[serde(default)]
    pub classes: BTreeSet<StatusClass>,
    /// It answers every so many seconds, 10 when absent; 0: no more.
    #[serde(default = "ten")]
    pub update_period_seconds: u32,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

fn ten() -> u32 {
    10
}

/// What a node can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum StatusClass {
    /// The BGP speaker.
    Agent,
    /// Its peers.
    #[serde(rename = "BGP")]
    Bgp,
    /// Its routes.
    Routes,
}

impl NodeStatusSpec {
    /// Reads and checks a CalicoNodeStatus.
    ///
    /// # Errors
    /// [`Invalid`] with the field and what is allowed.
    pub fn from_object(object: &Object) -> Result<Self, Invalid> {
        let spec: Self = strict(object)?;
        match spec.update_period_seconds {
            0..=MAX_PERIOD => Ok(spec),
            seconds => Err(object
                .invalid("spec.updatePeriodSeconds", format!("{seconds} is not within 0 to {MAX_PERIOD}"))),
        }
    }
}

/// `status` of a CalicoNodeStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// When it was written, RFC 3339.
    pub last_updated: String,
    /// The speaker, one entry for each family.
    pub agent: AgentStatus,
    /// Its peers.
    pub bgp: BgpStatus,
    /// Its routes.
    pub routes: RoutesStatus,
}

/// The speakers; Calico has one for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "one for each family")]
pub struct AgentStatus {
    #[serde(rename = "birdV4")]
    pub ipv4: SpeakerStatus,
    #[serde(rename = "birdV6")]
    pub ipv6: SpeakerStatus,
}

/// A speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatus {
    /// `Ready` or `NotReady`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// Its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its router id.
    #[serde(rename = "routerID", skip_serializing_if = "String::is_empty")]
    pub router_id: String,
    /// When it started.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_boot_time: String,
    /// When it was configured last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_reconfiguration_time: String,
}

/// The peers of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "one for each family")]
pub struct BgpStatus {
    pub number_established_v4: usize,
    pub number_established_v6: usize,
    pub number_not_established_v4: usize,
    pub number_not_established_v6: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers_v4: Vec<PeerStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers_v6: Vec<PeerStatus>,
}

/// One peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    /// Its address.
    #[serde(rename = "peerIP")]
    pub peer_ip: String,
    /// `NodeMesh`, `NodePeer` or `GlobalPeer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm`, `Established` or `Close`.
    pub state: String,
    /// Since when.
    pub since: String,
}

/// The routes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "one for each family")]
pub struct RoutesStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes_v4: Vec<RouteStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes_v6: Vec<RouteStatus>,
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// `FIB`, in the kernel, or `RIB`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The prefix.
    pub destination: String,
    /// The next hop, or `N/A`.
    pub gateway: String,
    /// The interface, or `N/A`.
    pub interface: String,
    /// Who told it.
    pub learned_from: LearnedFrom,
}

/// Who told a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedFrom {
    /// `Kernel`, `Static`, `Direct`, `NodeMesh` or `BGPPeer`.
    pub source_type: String,
    /// The peer, if it was one.
    #[serde(rename = "peerIP", skip_serializing_if = "Option::is_none")]
    pub peer_ip: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::json;

    fn read(spec: &Value) -> Result<NodeStatusSpec, Invalid> {
        NodeStatusSpec::from_object(&Object::new(Kind::CalicoNodeStatus, "s", spec))
    }

    #[test]
    fn a_question_to_a_node_names_what_is_wrong_with_it() {
        let spec =
            read(&json!({"node": "n1", "classes": ["BGP", "Agent"], "updatePeriodSeconds": 20})).unwrap();
        assert_eq!(spec.classes, [StatusClass::Agent, StatusClass::Bgp].into());
        for (spec, field) in [
            (json!({"classes": []}), "spec"),
            (json!({"node": "n1", "classes": ["Bgp"]}), "spec.classes[0]"),
            (json!({"node": "n1", "updatePeriodSeconds": 86_401}), "spec.updatePeriodSeconds"),
        ] {
            assert_eq!(read(&spec).unwrap_err().field, field, "{spec}");
        }
    }

    #[test]
    fn an_answer_has_calicos_names() {
        let peer =
            PeerStatus { kind: "NodeMesh".into(), peer_ip: "10.0.0.1".into(), ..PeerStatus::default() };
        let bgp = BgpStatus { number_established_v4: 1, peers_v4: vec![peer], ..BgpStatus::default() };
        let status = serde_json::to_value(NodeStatus { bgp, ..NodeStatus::default() }).unwrap();
        assert_eq!(status["bgp"]["numberEstablishedV4"], 1);
        assert_eq!(status["bgp"]["peersV4"][0]["type"], "NodeMesh");
        assert_eq!(status["bgp"]["peersV4"][0]["peerIP"], "10.0.0.1");
    }
}
