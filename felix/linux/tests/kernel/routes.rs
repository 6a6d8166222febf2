use std::collections::BTreeSet;

use ipnet::IpNet;
use manx_felix::{Desired, Hop, IfIndex, Kernel, Operation, Protocol, Route, RouteKey, Sweep, Target, plan};
use serde_json::Value;

use crate::common::Node;

fn key(destination: &str) -> RouteKey {
    RouteKey { destination: destination.parse().expect("a CIDR"), priority: 0 }
}

fn ours(destination: &str, target: Target) -> Route {
    Route { key: key(destination), protocol: Protocol::MANX, target }
}

fn via(device: IfIndex, gateways: &[&str]) -> Target {
    let hop =
        |gateway: &&str| Hop { device, gateway: Some(gateway.parse().expect("an address")), onlink: false };
    Target::Hops(gateways.iter().map(hop).collect())
}

fn eth0(node: &Node) -> IfIndex {
    node.read().link("eth0").expect("eth0").index
}

/// Brings the node to these routes, and looks that a second plan is empty.
fn reach(node: &Node, routes: &[Route]) {
    let desired = Desired {
        routes: routes.iter().map(|route| (route.key, route.clone())).collect(),
        ..Desired::default()
    };
    let operations = plan(&desired, &node.read(), Sweep::ALL);
    for result in node.wait(node.kernel.apply(operations)) {
        result.expect("the kernel takes it");
    }
    assert_eq!(plan(&desired, &node.read(), Sweep::ALL), vec![]);
}

/// The main table as `ip` shows it: destination, gateways, protocol.
fn table(node: &Node) -> BTreeSet<String> {
    let routes: Vec<Value> = serde_json::from_str(&node.netns.run("ip -j route")).expect("JSON");
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("-").to_owned();
    let line = |route: &Value| {
        let hops: Vec<Value> = route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
        let hops: Vec<String> = hops.iter().map(|hop| text(hop, "gateway")).collect();
        format!(
            "{} {} {} {}",
            text(route, "type"),
            text(route, "dst"),
            hops.join("+"),
            text(route, "protocol")
        )
    };
    routes.iter().map(line).collect()
}

fn lines(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn a_plan_applied_is_what_ip_route_shows() {
    let node = Node::new();
    let device = eth0(&node);
    node.netns.run("ip route add 10.1.0.0/16 via 172.171.5.9 proto static");
    node.netns.run("ip route add 10.2.0.0/16 via 172.171.5.9 proto bird");
    let block = ours("192.168.236.0/26", Target::Blackhole);
    let near = ours("192.168.190.192/26", via(device, &["172.171.5.96"]));
    let several = ours("192.168.7.0/26", via(device, &["172.171.5.1", "172.171.5.2"]));
    let on_link = ours("192.168.236.3/32", Target::Hops(vec![Hop { device, gateway: None, onlink: false }]));
    let onlink = Hop { device, gateway: Some([10, 9, 9, 9].into()), onlink: true };
    let beyond = ours("192.168.8.0/26", Target::Hops(vec![onlink]));
    let foreign =
        ["- 172.171.5.0/24 - kernel", "- 10.1.0.0/16 172.171.5.9 static", "- 10.2.0.0/16 172.171.5.9 bird"];
    reach(&node, &[block.clone(), near, several, on_link, beyond]);
    let mut expected = lines(&foreign);
    expected.extend(lines(&[
        "blackhole 192.168.236.0/26 - 77",
        "- 192.168.190.192/26 172.171.5.96 77",
        "- 192.168.7.0/26 172.171.5.1+172.171.5.2 77",
        "- 192.168.236.3 - 77",
        "- 192.168.8.0/26 10.9.9.9 77",
    ]));
    assert_eq!(table(&node), expected);
    // A replacement, a change of kind, and deletions.
    let moved = ours("192.168.190.192/26", via(device, &["172.171.5.97"]));
    let lost = ours("192.168.236.0/26", via(device, &["172.171.5.97"]));
    reach(&node, &[moved, lost]);
    let mut expected = lines(&foreign);
    expected.extend(lines(&["- 192.168.190.192/26 172.171.5.97 77", "- 192.168.236.0/26 172.171.5.97 77"]));
    assert_eq!(table(&node), expected);
    reach(&node, &[]);
    assert_eq!(table(&node), lines(&foreign));
}

#[test]
fn an_address_that_was_lent_is_reached_through_the_borrower_out_of_the_blackhole() {
    let node = Node::new();
    let lent = ours("192.168.236.9/32", via(eth0(&node), &["172.171.5.96"]));
    reach(&node, &[ours("192.168.236.0/26", Target::Blackhole), lent]);
    let way = node.netns.run("ip route get 192.168.236.9");
    assert!(way.contains("via 172.171.5.96 dev eth0"), "{way}");
}

#[test]
fn another_programs_route_is_never_replaced_even_when_the_snapshot_did_not_show_it() {
    let node = Node::new();
    let device = eth0(&node);
    node.netns.run("ip route add 192.168.7.0/26 via 172.171.5.9 proto bird");
    let wanted = ours("192.168.7.0/26", via(device, &["172.171.5.96"]));
    let good = ours("192.168.8.0/26", via(device, &["172.171.5.96"]));
    let operations = vec![Operation::AddRoute(wanted), Operation::AddRoute(good)];
    let results = node.wait(node.kernel.apply(operations));
    let error = results[0].clone().unwrap_err();
    assert!(
        error.reason.contains(
            "another program (protocol bird) has the route 192.168.7.0/26 via 172.171.5.9 dev eth0"
        ),
        "{error}"
    );
    assert_eq!(results[1], Ok(()));
    assert!(table(&node).contains("- 192.168.7.0/26 172.171.5.9 bird"));
}

#[test]
fn a_route_of_ours_that_appeared_meanwhile_is_replaced() {
    let node = Node::new();
    let device = eth0(&node);
    for gateway in ["172.171.5.96", "172.171.5.97"] {
        let route = ours("192.168.7.0/26", via(device, &[gateway]));
        assert_eq!(node.wait(node.kernel.apply(vec![Operation::AddRoute(route)])), [Ok(())]);
    }
    assert!(table(&node).contains("- 192.168.7.0/26 172.171.5.97 77"));
}

#[test]
fn each_operation_has_its_own_answer() {
    let node = Node::new();
    let device = eth0(&node);
    let unreachable = ours("192.168.7.0/26", via(device, &["10.9.9.9"]));
    let absent = ours("192.168.8.0/26", Target::Blackhole);
    let unwritten = ours("192.168.10.0/26", Target::Other);
    let good = ours("192.168.9.0/26", Target::Blackhole);
    let results = node.wait(node.kernel.apply(vec![
        Operation::AddRoute(unreachable),
        Operation::AddRoute(unwritten),
        Operation::DeleteRoute(absent),
        Operation::AddRoute(good),
    ]));
    let told = |index: usize| results[index].as_ref().unwrap_err().to_string();
    assert!(told(0).starts_with("adding route 192.168.7.0/26 via 10.9.9.9 dev eth0"), "{}", told(0));
    assert!(told(0).contains("not on a connected subnet"), "{}", told(0));
    assert!(told(1).contains("of a kind that is never written"), "{}", told(1));
    assert_eq!(results[2..], [Ok(()), Ok(())]);
}

#[test]
fn only_routes_of_our_protocol_are_ours() {
    let node = Node::new();
    node.netns.run("ip route add blackhole 192.168.7.0/26 proto 77");
    node.netns.run("ip route add blackhole 192.168.8.0/26 proto static");
    node.netns.run("ip route add blackhole 192.168.9.0/26 proto bird");
    node.netns.run("ip route add blackhole 192.168.7.0/26 proto 77 table 100");
    let snapshot = node.read();
    let ours: Vec<_> = snapshot.ours().map(|route| route.key.to_string()).collect();
    assert_eq!(ours, ["192.168.7.0/26"]);
    let bird: IpNet = "192.168.9.0/26".parse().unwrap();
    assert!(snapshot.routes.iter().all(|route| route.key.destination != bird));
}

#[test]
fn thousands_of_routes_are_written_and_taken_back() {
    let node = Node::new();
    let device = eth0(&node);
    let routes: Vec<Route> = (0..5000u32)
        .map(|n| ours(&format!("10.{}.{}.0/26", n / 250, n % 250), via(device, &["172.171.5.96"])))
        .collect();
    reach(&node, &routes);
    assert_eq!(node.read().ours().count(), 5000);
    assert!(!node.is_told_of_a_change(), "our own writes are not told");
    reach(&node, &[]);
    assert_eq!(node.read().ours().count(), 0);
}
