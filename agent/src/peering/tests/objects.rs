use super::*;

#[test]
fn a_peer_is_for_every_node_for_one_or_for_those_with_a_label() {
    let mut world = meshless();
    world.label("b", "rack");
    world.peer("1", json!({"peerIP": "10.1.0.1", "asNumber": 65001}));
    world.peer("2", json!({"node": "a", "peerIP": "10.1.0.2", "asNumber": 65001}));
    world.peer("3", json!({"nodeSelector": "has(rack)", "peerIP": "10.1.0.3:1790", "asNumber": 65001}));
    assert_eq!(world.names("a"), ["Global_10_1_0_1", "Node_10_1_0_2"]);
    assert_eq!(world.names("b"), ["Global_10_1_0_1", "Node_10_1_0_3_port_1790"]);
    assert_eq!(world.names("c"), ["Global_10_1_0_1"]);
    let peering = world.at("b");
    let peer = peering.peer("10.1.0.3");
    assert_eq!((peer.config.port, peer.object.as_deref(), peer.config.passive), (1790, Some("3"), false));
}

#[test]
fn a_peer_that_is_everybodys_is_not_a_nodes_own_besides() {
    let mut world = meshless();
    world.peer("a-own", json!({"node": "a", "peerIP": "10.1.0.1", "asNumber": 65002}));
    world.peer("global", json!({"peerIP": "10.1.0.1", "asNumber": 65001}));
    let peering = world.at("a");
    assert_eq!(peering.peer("10.1.0.1").config.asn, asn(65001));
    assert_eq!(peering.complaints, []);
}

#[test]
fn of_two_wishes_about_one_address_the_second_is_told_that_it_has_no_effect() {
    let mut world = meshless();
    world.peer("one", json!({"peerIP": "10.1.0.1", "asNumber": 65001}));
    world.peer("two", json!({"peerIP": "10.1.0.1", "asNumber": 65002}));
    world.peer("port", json!({"node": "a", "peerIP": "10.1.0.1:1790", "asNumber": 65001}));
    let peering = world.at("a");
    assert_eq!(peering.peers.len(), 1);
    assert!(peering.says("BGPPeer two: has no effect: 10.1.0.1 is what BGPPeer one peers with already"));
    assert!(peering.says("BGPPeer port: has no effect: 10.1.0.1 has a session already, at port 179"));
}

#[test]
fn a_node_never_peers_with_itself() {
    let mut world = meshless();
    world.peer("p", json!({"peerIP": "10.0.0.1", "asNumber": 64512}));
    world.peer("q", json!({"peerSelector": "all()"}));
    assert_eq!(world.names("a"), ["Global_10_0_0_2", "Global_10_0_0_3"]);
}

#[test]
fn nodes_with_a_label_are_peers_and_peer_back() {
    let mut world = meshless();
    world.label("a", "reflector");
    world.node("b", |node| node.asn = Some(asn(65001)));
    world.configure("node.b", json!({"listenPort": 1790}));
    world.peer("p", json!({"nodeSelector": "!has(reflector)", "peerSelector": "has(reflector)"}));
    assert_eq!(world.names("b"), ["Node_10_0_0_1"]);
    assert_eq!(world.names("a"), ["Node_10_0_0_2_port_1790", "Node_10_0_0_3"]);
    let peering = world.at("a");
    assert_eq!(peering.peer("10.0.0.2").config.asn, asn(65001));
}

#[test]
fn a_node_that_a_peers_address_belongs_to_peers_back_if_as_and_port_are_its_own() {
    for (peer, port, names) in [
        (json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 64512}), None, vec!["Node_10_0_0_1"]),
        (json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 65001}), None, vec![]),
        (json!({"node": "a", "peerIP": "10.0.0.2:1790", "asNumber": 64512}), None, vec![]),
        (
            json!({"node": "a", "peerIP": "10.0.0.2:1790", "asNumber": 64512}),
            Some(1790),
            vec!["Node_10_0_0_1"],
        ),
    ] {
        let mut world = meshless();
        if let Some(port) = port {
            world.configure("node.b", json!({"listenPort": port}));
        }
        world.peer("p", peer.clone());
        assert_eq!(world.names("b"), names, "{peer}");
    }
}

#[test]
fn a_peers_address_without_a_port_means_the_port_of_the_node_that_has_it() {
    let mut world = meshless();
    world.configure("node.b", json!({"listenPort": 1790}));
    world.peer("p", json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 64512}));
    world.peer("q", json!({"node": "c", "peerIP": "10.0.0.2", "asNumber": 65001}));
    assert_eq!(world.names("a"), ["Node_10_0_0_2_port_1790"]);
    assert_eq!(world.names("c"), ["Node_10_0_0_2"]);
}

#[test]
fn with_manual_reverse_peering_nobody_peers_back() {
    let mut world = meshless();
    world.label("a", "reflector");
    world.peer("p", json!({"nodeSelector": "!has(reflector)", "peerSelector": "has(reflector)", "reversePeering": "Manual"}));
    assert_eq!(world.names("b"), ["Node_10_0_0_1"]);
    assert_eq!(world.names("a"), [""; 0]);
}

#[test]
fn an_explicit_peering_counts_before_one_that_follows_from_another() {
    let mut world = meshless();
    world.peer("a", json!({"node": "b", "peerIP": "10.0.0.1", "asNumber": 64512, "keepaliveTime": "10s"}));
    world.peer("z", json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 64512, "keepaliveTime": "20s"}));
    let peering = world.at("a");
    assert_eq!(peering.peer("10.0.0.2").config.keepalive, Some(Duration::from_secs(20)));
    assert_eq!(peering.complaints, []);
}

#[test]
fn a_peering_by_object_counts_before_the_mesh() {
    let mut world = three();
    world.peer("p", json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 64512}));
    assert_eq!(world.names("a"), ["Node_10_0_0_2", "Mesh_10_0_0_3"]);
    assert_eq!(world.names("b"), ["Node_10_0_0_1", "Mesh_10_0_0_3"]);
}

#[test]
fn of_two_nodes_that_an_object_for_every_node_joins_one_is_sure_to_dial() {
    let mut world = meshless();
    world.label("b", "reflector");
    world.peer("p", json!({"peerSelector": "has(reflector)"}));
    let (a, b) = (world.at("a"), world.at("b"));
    assert!(a.peer("10.0.0.2").config.passive && !b.peer("10.0.0.1").config.passive);
    assert!(!world.at("c").peer("10.0.0.2").config.passive);
    // Nobody would dial if the other did not peer back.
    world.peer("p", json!({"peerSelector": "has(reflector)", "reversePeering": "Manual"}));
    assert!(!world.at("a").peer("10.0.0.2").config.passive);
}

#[test]
fn who_peers_with_a_node_that_calls_itself_otherwise_is_peered_back_under_that_name() {
    let mut world = meshless();
    world.peer("p", json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 64512, "localASNumber": 65009}));
    assert_eq!(world.at("a").peer("10.0.0.2").config.local_asn, Some(asn(65009)));
    let peering = world.at("b");
    let back = peering.peer("10.0.0.1");
    assert_eq!((back.config.asn, back.config.local_asn), (asn(65009), None));
}

#[test]
fn a_reflectors_peers_inside_its_as_are_its_clients_unless_they_are_of_its_cluster() {
    let mut world = meshless();
    let cluster = |last| Some(Ipv4Addr::new(1, 0, 0, last));
    world.node("a", |node| node.cluster_id = cluster(1));
    world.node("b", |node| node.cluster_id = cluster(1));
    world.node("c", |node| node.cluster_id = cluster(2));
    world.node("d", |node| node.address = Some("10.0.0.4/24".parse().unwrap()));
    world.node("e", |node| {
        (node.address, node.asn) = (Some("10.0.0.5/24".parse().unwrap()), Some(asn(65001)));
    });
    world.peer("p", json!({"peerSelector": "all()"}));
    let peering = world.at("a");
    let clients: Vec<bool> = peering.peers.values().map(|peer| peer.config.client).collect();
    assert_eq!(clients, [false, true, true, false]);
    assert!(peering.peers.values().all(|peer| peer.config.export == ExportPolicy::Transit));
    let of_d = world.at("d");
    assert!(of_d.peers.values().all(|peer| !peer.config.client && peer.config.export == ExportPolicy::Own));
}
