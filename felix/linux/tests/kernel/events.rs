use manx_felix::{Kernel, Operation, Protocol, Route, RouteKey, Target};

use crate::common::{Netns, Node, pod};

fn blackhole(third: u8) -> Route {
    let destination = format!("192.168.{third}.0/26").parse().expect("a CIDR");
    Route { key: RouteKey { destination, priority: 0 }, protocol: Protocol::MANX, target: Target::Blackhole }
}

#[test]
fn what_others_change_is_told() {
    let node = Node::new();
    let add = |third| Operation::AddRoute(blackhole(third));
    node.wait(node.kernel.apply(vec![add(1), add(2)]));
    node.settle();
    for change in [
        "ip route del blackhole 192.168.1.0/26",
        "ip route add default via 172.171.5.1",
        "ip route flush proto 77",
        "ip addr add 172.171.5.100/24 dev eth0",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 down",
        "ip link add foreign type veth peer name foreigner",
        "ip link del foreign",
    ] {
        node.netns.run(change);
        node.expect_change();
        node.settle();
    }
}

#[test]
fn what_we_change_is_not_told() {
    let (node, netns) = (Node::new(), Netns::new());
    node.settle();
    let add = Operation::AddRoute(blackhole(1));
    assert_eq!(node.wait(node.kernel.apply(vec![add])), [Ok(())]);
    assert!(!node.is_told_of_a_change(), "a route");
    node.attach(&netns, &pod(3)).unwrap();
    assert!(!node.is_told_of_a_change(), "a pod attached");
    node.wait(node.kernel.detach(&pod(3).host_device, &pod(3).handle)).unwrap();
    assert!(!node.is_told_of_a_change(), "a pod detached");
}

#[test]
fn routes_of_other_bgp_speakers_and_other_tables_are_not_told() {
    let node = Node::new();
    node.settle();
    node.netns.run("ip route add blackhole 10.1.0.0/16 proto bird");
    node.netns.run("ip route add blackhole 10.2.0.0/16 proto static table 100");
    assert!(!node.is_told_of_a_change());
}

#[test]
fn a_change_that_nobody_waited_for_is_told_later() {
    let (node, netns) = (Node::new(), Netns::new());
    node.settle();
    node.netns.run("ip route add blackhole 10.1.0.0/16");
    node.attach(&netns, &pod(3)).unwrap(); // reads the queue on its way
    node.expect_change();
}

#[test]
fn events_that_were_lost_are_told_as_a_change() {
    let node = Node::with_event_buffer(1);
    node.settle();
    let batch: String =
        (0..2000).map(|n| format!("route add blackhole 10.{}.{}.0/24\n", n / 250, n % 250)).collect();
    let file = std::env::temp_dir().join(&node.netns.name);
    std::fs::write(&file, batch).unwrap();
    node.netns.run(&format!("ip -batch {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    node.expect_change();
    assert_eq!(node.read().foreign().filter(|route| route.target == Target::Blackhole).count(), 2000);
    node.settle();
    node.netns.run("ip route del blackhole 10.1.1.0/24");
    node.expect_change();
}
