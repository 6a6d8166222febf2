use std::collections::BTreeMap;

use manx_felix::{Hop, IfIndex, Link, Protocol, RouteKey};

use super::*;

const POD: u32 = 3;
const TUNNEL: u32 = 4;

fn link(index: u32, name: &str, alias: Option<&str>) -> (IfIndex, Link) {
    let (index, name, alias) = (IfIndex(index), name.to_owned(), alias.map(str::to_owned));
    (index, Link { index, name, up: true, mtu: 1500, alias, addresses: Vec::new() })
}

fn route(destination: &str, device: u32, protocol: Protocol) -> Route {
    let hop = Hop { device: IfIndex(device), gateway: None, onlink: false };
    Route { key: RouteKey::of(destination.parse().unwrap()), protocol, target: Target::Hops(vec![hop]) }
}

fn node(links: &[(IfIndex, Link)], routes: Vec<Route>) -> Snapshot {
    Snapshot { links: BTreeMap::from_iter(links.iter().cloned()), routes }
}

#[test]
fn of_a_node_without_pods_every_route_of_ours_goes_and_the_tunnel_and_nothing_else() {
    let (ours, others) =
        (route("10.1.0.0/26", TUNNEL, Protocol::MANX), route("10.9.0.0/26", 2, Protocol(12)));
    let plan = decide(&node(&[link(TUNNEL, "tunl0", None)], vec![ours.clone(), others]), "cali");
    assert_eq!(plan.operations, [Operation::DeleteRoute(ours), Operation::TunnelDown]);
    assert!(plan.pods.is_empty());
}

#[test]
fn while_a_pod_runs_its_packets_keep_their_way_and_it_is_named() {
    let routes =
        vec![route("10.1.0.1/32", POD, Protocol::MANX), route("10.2.0.0/26", TUNNEL, Protocol::MANX)];
    let links = [link(POD, "cali1", Some("k8s-pod-network.c1")), link(TUNNEL, "tunl0", None)];
    let plan = decide(&node(&links, routes), "cali");
    assert_eq!(plan, Plan { operations: Vec::new(), pods: vec!["cali1".into()], kept_routes: 2 });
}

#[test]
fn a_link_of_calicos_own_and_a_tunnel_that_others_route_through_are_none_of_ours() {
    let links = [link(POD, "cali1", None), link(TUNNEL, "tunl0", None)];
    let plan = decide(&node(&links, vec![route("10.2.0.0/26", TUNNEL, Protocol(80))]), "cali");
    assert_eq!(plan, Plan::default());
}

#[test]
fn what_has_been_taken_away_is_not_taken_away_again() {
    let (index, mut tunnel) = link(TUNNEL, "tunl0", None);
    tunnel.up = false;
    assert_eq!(decide(&node(&[(index, tunnel)], vec![]), "cali"), Plan::default());
}
