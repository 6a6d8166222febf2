use serde_json::json;

use super::*;
use crate::Kind;

fn read(spec: Value) -> Result<BgpPeer, String> {
    BgpPeer::from_object(&Object::new(Kind::BGPPeer, "p", &spec)).map_err(|invalid| invalid.to_string())
}

#[test]
fn every_field_of_calicos_is_read() {
    let peer = read(json!({
        "nodeSelector": "rack == 'a'", "peerIP": "10.0.0.1:1790", "asNumber": 65001, "localASNumber": "1.10",
        "keepOriginalNextHop": false, "nextHopMode": "Self", "sourceAddress": "None", "maxRestartTime": "2m",
        "password": {"secretKeyRef": {"name": "s", "key": "k"}}, "keepaliveTime": "20s", "ttlSecurity": 1,
        "numAllowedLocalASNumbers": 2, "reachableBy": "10.0.0.254", "filters": ["b", "a"],
        "reversePeering": "Manual", "fromTheFuture": {"x": 1}, "node": "", "peerSelector": "",
        "localWorkloadSelector": null,
    }))
    .unwrap();
    let endpoint = PeerEndpoint { address: "10.0.0.1".parse().unwrap(), port: Some(1790) };
    let reachable_by = Some("10.0.0.254".parse().unwrap());
    assert_eq!(peer.peers, Peers::Address { endpoint, asn: Asn::new(65001).unwrap(), reachable_by });
    assert_eq!(peer.nodes, PeeringNodes::Selected("rack == 'a'".parse().unwrap()));
    assert_eq!((peer.next_hop, peer.source), (NextHopMode::Own, SourceAddress::None));
    assert_eq!((peer.reverse, peer.ttl_security), (ReversePeering::Manual, Some(1)));
    assert_eq!(peer.password.unwrap().secret_key_ref.key, "k");
    assert_eq!(peer.filters, ["b", "a"]);
    assert_eq!(peer.unknown, ["fromTheFuture"]);
}

#[test]
fn a_peer_is_for_every_node_unless_it_says_otherwise() {
    for (spec, nodes) in [
        (json!({"peerIP": "10.0.0.1", "asNumber": 1}), PeeringNodes::All),
        (
            json!({"peerIP": "10.0.0.1", "asNumber": 1, "node": "n1"}),
            PeeringNodes::One("n1".parse().unwrap()),
        ),
    ] {
        assert_eq!(read(spec).unwrap().nodes, nodes);
    }
}

#[test]
fn the_deprecated_way_to_keep_the_next_hop_still_works() {
    let peer = read(json!({"peerSelector": "all()", "keepOriginalNextHop": true})).unwrap();
    assert_eq!(peer.next_hop, NextHopMode::Keep);
}

#[test]
fn fields_that_do_not_go_together_are_refused_by_name() {
    for (spec, field, words) in [
        (json!({}), "peerIP", "is missing"),
        (json!({"peerIP": "10.0.0.1"}), "asNumber", "required with peerIP"),
        (json!({"peerIP": "10.0.0.1", "asNumber": 0}), "asNumber", "required with peerIP"),
        (json!({"localWorkloadSelector": "all()"}), "asNumber", "required with localWorkloadSelector"),
        (json!({"peerSelector": "all()", "asNumber": 1}), "asNumber", "does not go with peerSelector"),
        (json!({"peerSelector": "all()", "peerIP": "10.0.0.1"}), "peerSelector", "peerIP"),
        (json!({"localWorkloadSelector": "all()", "peerIP": "10.0.0.1"}), "localWorkloadSelector", "peerIP"),
        (
            json!({"localWorkloadSelector": "all()", "peerSelector": "all()"}),
            "localWorkloadSelector",
            "peerSel",
        ),
        (json!({"peerSelector": "all()", "node": "a", "nodeSelector": "all()"}), "nodeSelector", "only one"),
        (json!({"peerSelector": "has("}), "peerSelector", "at character 5"),
        (json!({"peerSelector": "global()"}), "peerSelector", "global()"),
        (json!({"peerSelector": "all()", "nodeSelector": "global()"}), "nodeSelector", "global()"),
        (json!({"peerSelector": "all()", "node": "A"}), "node", "no node name"),
        (json!({"peerIP": "10.0.0.0/24", "asNumber": 1}), "peerIP", "no address"),
        (json!({"peerIP": "0.0.0.0", "asNumber": 1}), "peerIP", "no address"),
        (json!({"peerIP": "224.0.0.1", "asNumber": 1}), "peerIP", "no address"),
        (json!({"peerIP": "10.0.0.1:0", "asNumber": 1}), "peerIP", "no address"),
        (json!({"peerIP": "fd00::1:x", "asNumber": 1}), "peerIP", "no address"),
        (json!({"peerSelector": "all()", "reachableBy": "10.0.0.1"}), "reachableBy", "needs a peerIP"),
        (json!({"peerIP": "fd00::1", "asNumber": 1, "reachableBy": "10.0.0.1"}), "reachableBy", "family"),
        (json!({"peerSelector": "all()", "ttlSecurity": 256}), "ttlSecurity", "256"),
        (json!({"peerSelector": "all()", "numAllowedLocalASNumbers": -1}), "numAllowedLocalASNumbers", "-1"),
        (json!({"peerSelector": "all()", "nextHopMode": "Other"}), "nextHopMode", "Keep"),
        (
            json!({"peerSelector": "all()", "nextHopMode": "Self", "keepOriginalNextHop": true}),
            "keepOriginalNextHop",
            "contradicts",
        ),
        (json!({"peerSelector": "all()", "sourceAddress": "eth0"}), "sourceAddress", "UseNodeIP"),
        (json!({"peerSelector": "all()", "reversePeering": "No"}), "reversePeering", "Manual"),
        (json!({"peerSelector": "all()", "maxRestartTime": "120"}), "maxRestartTime", "span of time"),
        (json!({"peerSelector": "all()", "keepaliveTime": "-1s"}), "keepaliveTime", "span of time"),
        (json!({"peerSelector": "all()", "password": {}}), "password", "secretKeyRef"),
        (
            json!({"peerSelector": "all()", "password": {"secretKeyRef": {"name": "s"}}}),
            "password.secretKeyRef",
            "key",
        ),
        (json!({"peerSelector": "all()", "filters": "a"}), "filters", "sequence"),
    ] {
        let error = read(spec.clone()).unwrap_err();
        assert!(error.starts_with(&format!("BGPPeer p: spec.{field}: ")), "{spec}: {error}");
        assert!(error.contains(words), "{spec}: {error}");
    }
}

#[test]
fn the_address_of_a_peer_may_be_of_ipv6_and_have_a_port() {
    for text in ["10.0.0.1", "10.0.0.1:179", "fd00::1", "[fd00::1]:179"] {
        assert_eq!(text.parse::<PeerEndpoint>().unwrap().to_string(), text);
    }
}
