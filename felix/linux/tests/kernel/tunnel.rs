use manx_felix::{Hop, Kernel, Operation, Protocol, Route, RouteKey, Target};

use crate::common::{Netns, Node, pod, run};

fn up(last: u8) -> Operation {
    Operation::TunnelUp { address: [192, 168, 236, last].into(), mtu: 1480 }
}

fn carry_out(node: &Node, operations: Vec<Operation>) {
    for result in node.wait(node.kernel.apply(operations)) {
        result.expect("the kernel takes it");
    }
}

#[test]
fn ipip_the_tunnel_comes_up_with_exactly_its_address_and_goes_down_bare() {
    let node = Node::new();
    node.settle();
    carry_out(&node, vec![up(0)]);
    assert!(!node.is_told_of_a_change(), "our own change");
    node.netns.run("ip addr add 10.7.7.7/24 dev tunl0");
    carry_out(&node, vec![up(1), up(1)]);
    let tunnel = node.read().link("tunl0").cloned().unwrap();
    assert_eq!((tunnel.up, tunnel.mtu), (true, 1480));
    assert_eq!(tunnel.addresses, ["192.168.236.1/32".parse().unwrap()]);
    assert_eq!(node.netns.sysctl("net/ipv4/conf/tunl0/rp_filter"), "2");
    assert_eq!(node.netns.sysctl("net/ipv4/conf/tunl0/forwarding"), "1");
    node.settle();
    carry_out(&node, vec![Operation::TunnelDown, Operation::TunnelDown]);
    assert!(!node.is_told_of_a_change(), "our own change");
    let tunnel = node.read().link("tunl0").cloned().unwrap();
    assert_eq!((tunnel.up, tunnel.addresses), (false, vec![]));
}

#[test]
fn ipip_pods_of_two_nodes_reach_each_other_through_the_tunnel() {
    let (one, other) = (Node::new(), Node::new());
    let (pod_of_one, pod_of_other) = (Netns::new(), Netns::new());
    // One wire between the nodes, instead of the two that end in themselves.
    one.netns.run("ip link del eth0");
    other.netns.run("ip link del eth0");
    run(&format!(
        "ip -n {} link add eth0 type veth peer name eth0 netns {}",
        one.netns.name, other.netns.name
    ));
    for (node, address) in [(&one, "172.171.5.95/24"), (&other, "172.171.5.96/24")] {
        node.netns.run(&format!("ip addr add {address} dev eth0"));
        node.netns.run("ip link set eth0 up");
        node.wait(node.kernel.prepare("eth0", true)).unwrap();
    }
    one.attach(&pod_of_one, &pod(3)).unwrap();
    other.attach(&pod_of_other, &pod(4)).unwrap();
    for (node, tunnel, peer, pod) in [(&one, 0, 96, 4), (&other, 1, 95, 3)] {
        carry_out(node, vec![up(tunnel)]);
        let device = node.read().link("tunl0").unwrap().index;
        let hop = Hop { device, gateway: Some([172, 171, 5, peer].into()), onlink: true };
        let destination = format!("192.168.236.{pod}/32").parse().unwrap();
        let key = RouteKey { destination, priority: 0 };
        let route = Route { key, protocol: Protocol::MANX, target: Target::Hops(vec![hop]) };
        carry_out(node, vec![Operation::AddRoute(route.clone())]);
        assert!(node.read().ours().any(|it| *it == route), "it reads back as it was written");
    }
    pod_of_one.run("ping -c1 -W20 192.168.236.4");
    let packets = one.netns.run("cat /sys/class/net/tunl0/statistics/tx_packets");
    assert_ne!(packets.trim(), "0");
}

#[test]
fn a_kernel_that_has_no_tunnel_is_told_with_what_to_do() {
    let node = Node::new();
    let result = node.wait(node.kernel.apply(vec![up(0)])).remove(0);
    // A kernel that has ipip says nothing; the other tests are for that one.
    if let Err(error) = result {
        assert!(error.reason.contains("load the module `ipip`"), "{error}");
    }
}
