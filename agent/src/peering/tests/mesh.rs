use super::*;

#[test]
fn without_any_object_every_node_peers_with_every_other() {
    let peering = three().at("a");
    assert_eq!((peering.asn, peering.listen_port, peering.cluster_id), (Asn::DEFAULT, 179, None));
    assert_eq!(three().names("a"), ["Mesh_10_0_0_2", "Mesh_10_0_0_3"]);
    let b = peering.peer("10.0.0.2");
    assert_eq!((b.kind, b.config.asn, b.config.port), (PeerKind::Mesh, Asn::DEFAULT, 179));
    assert_eq!(b.config.local_address, Some(Ipv4Addr::new(10, 0, 0, 1).into()));
    assert_eq!(peering.complaints, []);
}

#[test]
fn in_a_mesh_the_address_that_sorts_higher_as_text_dials_as_in_calico() {
    let world = World::of(&[("a", "10.0.0.10"), ("b", "10.0.0.9")]);
    assert!(world.at("a").peer("10.0.0.9").config.passive);
    assert!(!world.at("b").peer("10.0.0.10").config.passive);
}

#[test]
fn a_mesh_can_be_switched_off() {
    assert_eq!(meshless().names("a"), [""; 0]);
}

#[test]
fn a_node_without_an_address_is_no_peer() {
    let mut world = three();
    world.node("b", |node| node.address = None);
    assert_eq!(world.names("a"), ["Mesh_10_0_0_3"]);
}

#[test]
fn a_reflector_is_not_in_the_mesh_of_others_and_has_none_itself() {
    let mut world = three();
    world.node("b", |node| node.cluster_id = Some(Ipv4Addr::new(1, 0, 0, 1)));
    assert_eq!(world.names("a"), ["Mesh_10_0_0_3"]);
    assert_eq!(world.names("b"), [""; 0]);
    assert_eq!(world.at("b").cluster_id, Some(Ipv4Addr::new(1, 0, 0, 1)));
}

#[test]
fn a_nodes_as_is_its_own_or_the_clusters_and_the_environment_comes_first() {
    let mut world = three();
    world.configure("default", json!({"asNumber": 65000}));
    world.node("b", |node| node.asn = Some(asn(65001)));
    assert_eq!(world.at("a").asn, asn(65000));
    assert_eq!(world.at("a").peer("10.0.0.2").config.asn, asn(65001));
    assert_eq!(world.at("a").peer("10.0.0.3").config.asn, asn(65000));
    assert_eq!(world.at("b").asn, asn(65001));
    let node = "b".parse().unwrap();
    let facts = Facts {
        node: &node,
        address: Ipv4Addr::new(10, 0, 0, 2),
        own_asn: Some(asn(65002)),
        nodes: &world.nodes,
        configurations: &world.configurations,
        peers: &world.peers,
        filters: &world.filters,
        pools: &world.pools,
    };
    assert_eq!(peering(&facts).asn, asn(65002));
}

#[test]
fn a_node_listens_where_its_own_configuration_says_and_else_where_the_clusters_does() {
    let mut world = three();
    world.configure("default", json!({"listenPort": 1790}));
    world.configure("node.b", json!({"listenPort": 1791}));
    assert_eq!((world.at("a").listen_port, world.at("b").listen_port), (1790, 1791));
    let a = world.at("a");
    assert_eq!((a.peer("10.0.0.2").config.port, a.peer("10.0.0.3").config.port), (1791, 1790));
    assert_eq!(world.names("a"), ["Mesh_10_0_0_2", "Mesh_10_0_0_3"]);
}

#[test]
fn the_mesh_has_its_password_and_its_restart_time() {
    let mut world = three();
    world.configure(
        "default",
        json!({"nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}}, "nodeMeshMaxRestartTime": "5m"}),
    );
    let peering = world.at("a");
    let b = peering.peer("10.0.0.2");
    assert_eq!(b.password, Some(SecretRef { name: "s".into(), key: "k".into() }));
    assert_eq!(b.config.restart_time, Some(Duration::from_secs(300)));
}

#[test]
fn two_nodes_with_one_address_are_named() {
    let mut world = three();
    world.node("thief", |node| node.address = Some("10.0.0.1/24".parse().unwrap()));
    let peering = world.at("a");
    assert!(
        peering.says("Node thief: has published the address 10.0.0.1 of node a"),
        "{:?}",
        peering.complaints
    );
    assert_eq!(peering.peers.len(), 2);
}
