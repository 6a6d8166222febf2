//! Pods with IPv6 addresses, beside IPv4 ones or alone.

use std::collections::BTreeSet;

use manx_felix::{Facts, Kernel, PodLink, Sweep, desired, plan};

use crate::common::{Netns, Node, dual, pod};

/// What a node with these pods wants, and writes.
fn reconcile(node: &Node, pods: &[&PodLink], blocks: &[&str]) {
    let mut facts = Facts::new("172.171.5.95/24".parse().expect("an address"));
    let endpoints = pods.iter().flat_map(|pod| pod.addresses.iter().map(|it| (*it, pod.host_device.clone())));
    facts.endpoints = endpoints.collect();
    facts.blocks = blocks.iter().map(|block| block.parse().expect("a block")).collect();
    let snapshot = node.read();
    for result in node.wait(node.kernel.apply(plan(&desired(&facts, &snapshot), &snapshot, Sweep::ALL))) {
        result.expect("the kernel does as it is asked");
    }
    let snapshot = node.read();
    assert_eq!(
        plan(&desired(&facts, &snapshot), &snapshot, Sweep::ALL),
        vec![],
        "there is nothing left to do"
    );
}

/// The IPv6 main table as `ip` shows it, without what the kernel itself writes.
fn table(node: &Node) -> BTreeSet<String> {
    let text = node.netns.run("ip -6 route");
    let others = text.lines().filter(|line| !line.contains("proto kernel"));
    others.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_pod_with_both_families_has_what_calico_gives_it() {
    let (node, netns) = (Node::new(), Netns::new());
    netns.run("sysctl -q net.ipv6.conf.all.disable_ipv6=1");
    node.attach(&netns, &dual(3)).unwrap();
    let routes = netns.run("ip -6 route");
    assert!(routes.contains("default via fe80::ecee:eeff:feee:eeee dev eth0"), "{routes}");
    let addresses = netns.run("ip -6 -o addr show dev eth0");
    assert!(addresses.contains("inet6 fd00:10::3/128 scope global nodad"), "{addresses}");
    let tentative = netns.run("ip -6 -o addr show tentative");
    assert_eq!(tentative, "", "nothing is waited for");
    let neighbours = netns.run("ip -6 neigh");
    assert!(
        neighbours.contains("fe80::ecee:eeff:feee:eeee dev eth0 lladdr ee:ee:ee:ee:ee:ee"),
        "{neighbours}"
    );
    assert!(neighbours.contains("PERMANENT"), "{neighbours}");
    assert_eq!(netns.sysctl("net/ipv6/conf/lo/disable_ipv6"), "0");
    assert!(netns.run("ip route").contains("default via 169.254.1.1 dev eth0"));
    let name = &dual(3).host_device;
    let host = node.netns.run(&format!("ip -6 -o addr show dev {name}"));
    assert!(host.contains("inet6 fe80::ecee:eeff:feee:eeee/64 scope link nodad"), "{host}");
    assert_eq!(host.lines().count(), 1, "{host}");
    assert_eq!(table(&node), [format!("fd00:10::3 dev {name} proto 77 metric 1024 pref medium")].into());
    for (parameter, value) in [
        ("accept_ra", "0"),
        ("disable_ipv6", "0"),
        ("accept_dad", "0"),
        ("proxy_ndp", "1"),
        ("forwarding", "1"),
    ] {
        assert_eq!(node.netns.sysctl(&format!("net/ipv6/conf/{name}/{parameter}")), value, "{parameter}");
    }
    assert_eq!(node.check(&netns, &dual(3)), Vec::<String>::new());
}

#[test]
fn a_pod_with_both_families_reaches_its_node_and_another_pod_over_both() {
    let (node, one, other) = (Node::new(), Netns::new(), Netns::new());
    node.netns.run("ip addr add fd00:5::95/64 dev eth0 nodad");
    node.wait(node.kernel.prepare("eth0", true)).unwrap();
    node.attach(&one, &dual(3)).unwrap();
    node.attach(&other, &dual(4)).unwrap();
    for target in ["172.171.5.95", "192.168.236.4", "fd00:5::95", "fd00:10::4"] {
        one.run(&format!("ping -c1 -W5 {target}"));
    }
    node.netns.run("ping -c1 -W5 fd00:10::3");
    // Whatever the pod forgets about its neighbours, it never needs to ask.
    one.run("ip -6 neigh flush all");
    one.run("ping -c1 -W5 fd00:10::4");
}

#[test]
fn a_pod_with_ipv6_alone_has_no_ipv4() {
    let (node, one, other) = (Node::new(), Netns::new(), Netns::new());
    let alone = |n| PodLink { addresses: dual(n).addresses.split_off(1), ..dual(n) };
    node.wait(node.kernel.prepare("eth0", true)).unwrap();
    node.attach(&one, &alone(3)).unwrap();
    node.attach(&other, &alone(4)).unwrap();
    one.run("ping -c1 -W5 fd00:10::4");
    assert_eq!(one.run("ip -4 route"), "");
    assert_eq!(node.check(&one, &alone(3)), Vec::<String>::new());
}

#[test]
fn the_node_forwards_ipv6_from_its_first_pod_with_it_unless_forwarding_is_disabled() {
    for (forwarding, pod, forwards) in [(true, pod(3), "0"), (false, dual(3), "0"), (true, dual(3), "1")] {
        let (node, netns) = (Node::new(), Netns::new());
        node.netns.run("sysctl -q net.ipv6.conf.all.forwarding=0");
        node.wait(node.kernel.prepare("eth0", forwarding)).unwrap();
        node.attach(&netns, &pod).unwrap();
        assert_eq!(node.netns.sysctl("net/ipv6/conf/all/forwarding"), forwards, "{forwarding} {pod:?}");
    }
}

#[test]
fn a_check_names_each_difference_of_ipv6() {
    let (node, netns) = (Node::new(), Netns::new());
    node.attach(&netns, &dual(3)).unwrap();
    for parameter in ["accept_ra=1", "accept_dad=1", "proxy_ndp=0", "forwarding=0"] {
        node.netns.run(&format!("sysctl -q net.ipv6.conf.cali00000000003.{parameter}"));
    }
    node.netns.run("ip -6 route del fd00:10::3");
    node.netns.run("ip -6 addr del fe80::ecee:eeff:feee:eeee/64 dev cali00000000003");
    netns.run("ip addr add fd00:99::1/128 dev eth0");
    netns.run("ip addr del fd00:10::3/128 dev eth0");
    netns.run("ip -6 route del default");
    netns.run("ip -6 neigh del fe80::ecee:eeff:feee:eeee dev eth0");
    netns.run("sysctl -q net.ipv6.conf.eth0.accept_ra=1");
    assert_eq!(
        node.check(&netns, &dual(3)),
        [
            "net.ipv6.conf.cali00000000003.accept_ra is 1, not 0",
            "net.ipv6.conf.cali00000000003.accept_dad is 1, not 0",
            "net.ipv6.conf.cali00000000003.proxy_ndp is 0, not 1",
            "net.ipv6.conf.cali00000000003.forwarding is 0, not 1",
            "cali00000000003 has no address fe80::ecee:eeff:feee:eeee/64",
            "the host has no route fd00:10::3/128 dev cali00000000003 scope link",
            "the pod's eth0 has no address fd00:10::3/128",
            "the pod's eth0 has the address fd00:99::1/128, which is not its own",
            "the pod has no route default via fe80::ecee:eeff:feee:eeee dev eth0",
            "the pod has no permanent neighbour fe80::ecee:eeff:feee:eeee ee:ee:ee:ee:ee:ee",
            "in the pod net.ipv6.conf.eth0.accept_ra is 1, not 0",
        ]
    );
    netns.run("sysctl -q net.ipv6.conf.all.disable_ipv6=1");
    let differences = node.check(&netns, &dual(3));
    assert!(differences.contains(&"in the pod net.ipv6.conf.eth0.disable_ipv6 is 1, not 0".to_owned()));
    // And all of it is mended by the ADD that follows.
    node.attach(&netns, &dual(3)).unwrap();
    assert_eq!(node.check(&netns, &dual(3)), Vec::<String>::new());
}

#[test]
fn ipv6_routes_of_ours_are_kept_repaired_and_swept_and_others_are_left() {
    let (node, netns) = (Node::new(), Netns::new());
    node.netns.run("ip -6 route add blackhole fd00:77::/64");
    node.netns.run("ip -6 route add blackhole fd00:10::/122 proto 77 table 100");
    node.attach(&netns, &dual(3)).unwrap();
    let blocks = ["192.168.236.0/26", "fd00:10::/122"];
    reconcile(&node, &[&dual(3)], &blocks);
    let pod = "fd00:10::3 dev cali00000000003 proto 77 metric 1024 pref medium".to_owned();
    let block = "blackhole fd00:10::/122 dev lo proto 77 metric 1024 pref medium".to_owned();
    let foreign = "blackhole fd00:77::/64 dev lo metric 1024 pref medium".to_owned();
    let all = BTreeSet::from([pod, block, foreign.clone()]);
    assert_eq!(table(&node), all);
    node.settle();
    for lost in ["fd00:10::3", "blackhole fd00:10::/122"] {
        node.netns.run(&format!("ip -6 route del {lost}"));
        node.expect_change();
        reconcile(&node, &[&dual(3)], &blocks);
        assert_eq!(table(&node), all, "{lost}");
        node.settle();
    }
    // The link goes down and comes back, and IPv6 with it.
    node.netns.run("ip link set cali00000000003 down");
    node.netns.run("ip link set cali00000000003 up");
    reconcile(&node, &[&dual(3)], &blocks);
    assert_eq!(node.check(&netns, &dual(3)), Vec::<String>::new());
    netns.run("ping -c1 -W5 fe80::ecee:eeff:feee:eeee%eth0");
    reconcile(&node, &[], &[]);
    assert_eq!(table(&node), BTreeSet::from([foreign]));
    assert!(node.netns.run("ip -6 route show table 100").contains("fd00:10::/122"));
}

#[test]
fn another_programs_ipv6_route_to_the_pods_address_is_told_and_stays() {
    let (node, netns) = (Node::new(), Netns::new());
    node.netns.run("ip -6 route add fd00:10::3 dev eth0");
    let error = node.attach(&netns, &dual(3)).unwrap_err();
    assert!(
        error.reason.contains("another program (protocol boot) has the route fd00:10::3/128 dev eth0"),
        "{error}"
    );
    assert!(node.read().link(&dual(3).host_device).is_none());
    assert!(table(&node).iter().any(|route| route.contains("fd00:10::3 dev eth0")));
    assert!(!node.netns.run("ip route").contains("192.168.236.3"));
}

#[test]
fn attaching_again_and_an_agents_restart_change_nothing_about_ipv6() {
    let (node, netns) = (Node::new(), Netns::new());
    node.attach(&netns, &dual(3)).unwrap();
    let before = node.read();
    node.attach(&netns, &dual(3)).unwrap();
    assert_eq!(node.read(), before);
    let second = node.again();
    assert_eq!(node.wait(second.read()).unwrap(), before);
    reconcile(&node, &[&dual(3)], &[]);
    assert_eq!(node.read(), before);
}

#[test]
fn what_we_change_about_ipv6_is_not_told() {
    let (node, netns) = (Node::new(), Netns::new());
    node.settle();
    node.attach(&netns, &dual(3)).unwrap();
    assert!(!node.is_told_of_a_change(), "a pod attached");
    node.wait(node.kernel.detach(&dual(3).host_device, &dual(3).handle)).unwrap();
    assert!(!node.is_told_of_a_change(), "a pod detached");
}

#[test]
fn a_pod_with_a_borrowed_ipv6_address_is_reached() {
    let (node, netns) = (Node::new(), Netns::new());
    let borrower = PodLink { addresses: vec!["fd00:20::5".parse().unwrap()], ..dual(3) };
    node.wait(node.kernel.prepare("eth0", true)).unwrap();
    node.attach(&netns, &borrower).unwrap();
    reconcile(&node, &[&borrower], &["fd00:10::/122"]);
    node.netns.run("ping -c1 -W5 fd00:20::5");
}
