use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use manx_felix::{Facts, Kernel, MacAddress, PodLink, Sweep, desired, plan};

use crate::common::{Netns, Node, dual, pod};

#[test]
fn a_pod_has_what_calico_gives_it() {
    let (node, netns) = (Node::new(), Netns::new());
    let attached = node.wait(node.kernel.attach(netns.file().into(), &pod(3))).unwrap();
    assert_eq!(attached.host_mac.to_string(), "ee:ee:ee:ee:ee:ee");
    let link = netns.run("ip -o link show eth0");
    assert!(link.contains(&attached.pod_mac.to_string()) && link.contains("mtu 1480"), "{link}");
    assert_eq!(
        netns.run("ip route").lines().map(str::trim).collect::<Vec<_>>(),
        ["default via 169.254.1.1 dev eth0", "169.254.1.1 dev eth0 scope link"]
    );
    assert!(netns.run("ip -4 -o addr show eth0").contains("inet 192.168.236.3/32 scope global"));
    assert!(netns.run("ip neigh").contains("169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT"));
    assert!(netns.run("ip -o link show lo").contains("UP"));
    assert_eq!(netns.sysctl("net/ipv4/ip_forward"), "0");
    let name = &pod(3).host_device;
    assert!(node.netns.run(&format!("ip link show {name}")).contains("alias k8s-pod-network.container3"));
    assert_eq!(
        node.netns.run(&format!("ip route show 192.168.236.3 dev {name}")).trim(),
        "192.168.236.3 proto 77 scope link"
    );
    for (parameter, value) in [
        (format!("net/ipv4/conf/{name}/route_localnet"), "1"),
        (format!("net/ipv4/neigh/{name}/proxy_delay"), "0"),
        (format!("net/ipv4/conf/{name}/proxy_arp"), "1"),
        (format!("net/ipv4/conf/{name}/forwarding"), "1"),
        ("net/ipv4/conf/eth0/proxy_arp".to_owned(), "0"),
        ("net/ipv4/conf/all/proxy_arp".to_owned(), "0"),
    ] {
        assert_eq!(node.netns.sysctl(&parameter), value, "{parameter}");
    }
}

#[test]
fn a_pod_may_have_other_routes_than_a_default_one_and_several_queues() {
    let (node, netns) = (Node::new(), Netns::new());
    let destinations = ["10.96.0.0/12", "172.171.5.0/24", "10.96.0.0/12", "fd00:96::/64"];
    let destinations = destinations.map(|text| text.parse().unwrap()).into();
    let wanted = PodLink { destinations, queues: Some(4), ..dual(3) };
    node.attach(&netns, &wanted).unwrap();
    let routes = netns.run("ip route");
    assert_eq!(
        routes.lines().map(str::trim).collect::<Vec<_>>(),
        [
            "10.96.0.0/12 via 169.254.1.1 dev eth0",
            "169.254.1.1 dev eth0 scope link",
            "172.171.5.0/24 via 169.254.1.1 dev eth0"
        ]
    );
    let routes = netns.run("ip -6 route");
    assert!(routes.contains("fd00:96::/64 via fe80::ecee:eeff:feee:eeee dev eth0"), "{routes}");
    assert!(!routes.contains("default"), "{routes}");
    netns.run("ping -c1 -W5 172.171.5.95");
    let host = node.netns.run(&format!("ip -d link show {}", wanted.host_device));
    for link in [netns.run("ip -d link show eth0"), host] {
        assert!(link.contains("numtxqueues 4 numrxqueues 4"), "{link}");
    }
    assert_eq!(node.check(&netns, &wanted), Vec::<String>::new());
    netns.run("ip route del 10.96.0.0/12");
    let said = node.check(&netns, &wanted);
    assert_eq!(said, ["the pod has no route 10.96.0.0/12 via 169.254.1.1 dev eth0"]);
}

#[test]
fn a_pod_reaches_its_node_with_and_without_a_default_route() {
    let (node, netns) = (Node::new(), Netns::new());
    node.attach(&netns, &pod(3)).unwrap();
    netns.run("ping -c1 -W5 172.171.5.95");
    node.netns.run("ip route add default via 172.171.5.1");
    netns.run("ip neigh flush all");
    netns.run("ping -c1 -W5 172.171.5.95");
}

#[test]
fn pods_of_one_node_reach_each_other_once_the_node_is_prepared() {
    let (node, one, other) = (Node::new(), Netns::new(), Netns::new());
    node.attach(&one, &pod(3)).unwrap();
    node.attach(&other, &pod(4)).unwrap();
    assert_eq!(node.wait(node.kernel.prepare("eth0", true)), Ok(vec![]));
    assert_eq!(node.netns.sysctl("net/ipv4/ip_forward"), "1");
    one.run("ping -c1 -W5 192.168.236.4");
}

#[test]
fn a_strict_reverse_path_filter_is_told_and_left() {
    let node = Node::new();
    node.netns.run("sysctl -q net.ipv4.conf.eth0.rp_filter=1");
    let warnings = node.wait(node.kernel.prepare("eth0", false)).unwrap();
    assert!(warnings[0].contains("net.ipv4.conf.eth0.rp_filter is strict"), "{warnings:?}");
    assert_eq!(node.netns.sysctl("net/ipv4/conf/eth0/rp_filter"), "1");
}

#[test]
fn ends_that_were_made_before_the_addresses_are_known_become_the_link() {
    let node = Node::new();
    // The last turns out to have IPv6.
    for (pod, ipv6) in [(pod(3), false), (dual(4), true), (dual(5), false)] {
        let netns = Netns::new();
        let unknown = PodLink { addresses: Vec::new(), ..pod.clone() };
        let begun = node.wait(node.kernel.begin(netns.file(), &unknown, ipv6)).unwrap();
        let ends = begun.ends.unwrap();
        assert_eq!(node.read().link(&pod.host_device).unwrap().index, ends.host);
        assert!(!node.read().ours().any(|route| route.key.destination.addr() == pod.addresses[0]));
        let accept_dad = netns.run("cat /proc/sys/net/ipv6/conf/eth0/accept_dad");
        assert_eq!(accept_dad.trim(), if ipv6 { "0" } else { "1" }, "what needs no address is set");
        let attached = node.wait(node.kernel.attach(begun, &pod)).unwrap();
        assert_eq!(attached.mtu, 1480);
        assert_eq!(node.read().link(&pod.host_device).unwrap().index, ends.host, "the same link");
        assert_eq!(node.check(&netns, &pod), Vec::<String>::new());
        let again = node.wait(node.kernel.begin(netns.file(), &unknown, ipv6)).unwrap();
        assert!(again.ends.is_none(), "there is one");
        assert_eq!(node.wait(node.kernel.attach(again, &pod)).unwrap(), attached);
    }
}

#[test]
fn ends_that_cannot_be_finished_are_taken_away() {
    let node = Node::new();
    let netns = Netns::new();
    let begun = node.wait(node.kernel.begin(netns.file(), &pod(3), false)).unwrap();
    let unusable = PodLink { addresses: vec!["224.0.0.1".parse().unwrap()], ..pod(3) };
    let error = node.wait(node.kernel.attach(begun, &unusable)).unwrap_err();
    assert!(error.to_string().contains("is no address"), "{error}");
    assert!(node.read().link(&pod(3).host_device).is_none());
    node.attach(&netns, &pod(3)).unwrap();
    assert_eq!(node.check(&netns, &pod(3)), Vec::<String>::new());
}

#[test]
fn attaching_again_changes_nothing() {
    let (node, netns) = (Node::new(), Netns::new());
    let first = node.wait(node.kernel.attach(netns.file().into(), &pod(3))).unwrap();
    let before = node.read();
    let again = node.wait(node.kernel.attach(netns.file().into(), &pod(3))).unwrap();
    assert_eq!(again, first);
    assert_eq!(node.read(), before, "the link has kept its index");
}

#[test]
fn the_link_of_an_earlier_container_is_replaced() {
    let (node, old, new) = (Node::new(), Netns::new(), Netns::new());
    node.attach(&old, &pod(3)).unwrap();
    let successor = PodLink { handle: "k8s-pod-network.successor".into(), ..pod(3) };
    node.attach(&new, &successor).unwrap();
    assert_eq!(node.check(&new, &successor), Vec::<String>::new());
    assert!(!old.run("ip -o link").contains("eth0"));
}

#[test]
fn a_link_that_is_damaged_is_made_anew() {
    let (node, netns) = (Node::new(), Netns::new());
    node.attach(&netns, &pod(3)).unwrap();
    netns.run("ip addr flush dev eth0");
    node.attach(&netns, &pod(3)).unwrap();
    assert_eq!(node.check(&netns, &pod(3)), Vec::<String>::new());
}

#[test]
fn a_check_names_each_difference() {
    let (node, netns) = (Node::new(), Netns::new());
    let missing = node.check(&netns, &pod(3));
    assert_eq!(missing, ["the host has no link cali00000000003"]);
    node.attach(&netns, &pod(3)).unwrap();
    assert_eq!(node.check(&netns, &pod(3)), Vec::<String>::new());
    node.netns.run("ip route del 192.168.236.3");
    node.netns.run("ip link set cali00000000003 mtu 1400");
    node.netns.run("sysctl -q net.ipv4.conf.cali00000000003.proxy_arp=0");
    netns.run("ip addr add 10.0.0.1/32 dev eth0");
    netns.run("ip route del default");
    netns.run("ip neigh del 169.254.1.1 dev eth0");
    netns.run("ip link set lo down");
    netns.run("sysctl -q net.ipv4.ip_forward=1");
    assert_eq!(
        node.check(&netns, &pod(3)),
        [
            "net.ipv4.conf.cali00000000003.proxy_arp is 0, not 1",
            "the host has no route 192.168.236.3/32 dev cali00000000003 scope link",
            "the pod's eth0 has MTU 1480, its other end cali00000000003 has 1400",
            "the pod's eth0 has the address 10.0.0.1/32, which is not its own",
            "the pod has no route default via 169.254.1.1 dev eth0",
            "the pod has no permanent neighbour 169.254.1.1 ee:ee:ee:ee:ee:ee",
            "the pod's lo is down",
            "in the pod net.ipv4.ip_forward is 1, not 0",
        ]
    );
}

#[test]
fn a_pod_keeps_the_mtu_that_it_was_given() {
    let (node, netns) = (Node::new(), Netns::new());
    node.attach(&netns, &pod(3)).unwrap();
    let today = PodLink { mtu: 1400, ..pod(3) };
    assert_eq!(node.check(&netns, &today), Vec::<String>::new());
    let again = node.wait(node.kernel.attach(netns.file().into(), &today)).unwrap();
    assert_eq!(again.mtu, 1480);
    assert!(netns.run("ip -o link show eth0").contains("mtu 1480"));
}

#[test]
fn a_pod_has_the_mac_address_that_it_asks_for_and_a_check_sees_another() {
    let (node, netns) = (Node::new(), Netns::new());
    let pod = PodLink { pod_mac: Some(MacAddress([0x02, 0xca, 0xfe, 0, 0, 3])), ..pod(3) };
    let attached = node.wait(node.kernel.attach(netns.file().into(), &pod)).unwrap();
    assert_eq!(attached.pod_mac.to_string(), "02:ca:fe:00:00:03");
    assert!(netns.run("ip -o link show eth0").contains("02:ca:fe:00:00:03"));
    assert_eq!(node.check(&netns, &pod), Vec::<String>::new());
    netns.run("ip link set eth0 address 02:ca:fe:00:00:04");
    assert_eq!(
        node.check(&netns, &pod),
        [
            "the pod's eth0 has the MAC address 02:ca:fe:00:00:04, not 02:ca:fe:00:00:03",
            // The kernel forgets neighbours of an interface whose address changes, permanent ones too.
            "the pod has no permanent neighbour 169.254.1.1 ee:ee:ee:ee:ee:ee",
        ]
    );
}

#[test]
fn detaching_takes_only_the_own_containers_link_and_a_missing_one_is_success() {
    let (node, netns) = (Node::new(), Netns::new());
    let pod = pod(3);
    node.attach(&netns, &pod).unwrap();
    let detach = |handle: &str| node.wait(node.kernel.detach(&pod.host_device, handle));
    assert_eq!(detach("k8s-pod-network.other"), Ok(()));
    assert!(node.read().link(&pod.host_device).is_some());
    assert_eq!(detach(&pod.handle), Ok(()));
    assert!(node.read().link(&pod.host_device).is_none());
    assert_eq!(detach(&pod.handle), Ok(()));
    assert!(node.read().ours().next().is_none(), "the route went with the link");
}

#[test]
fn a_foreign_device_in_the_pod_is_told_and_nothing_is_left_behind() {
    let (node, netns) = (Node::new(), Netns::new());
    netns.run("ip link add eth0 type veth peer name other");
    let error = node.attach(&netns, &pod(3)).unwrap_err();
    assert!(error.reason.contains("already has a device eth0"), "{error}");
    assert!(node.read().link(&pod(3).host_device).is_none());
}

#[test]
fn a_foreign_route_to_the_pods_address_is_told_and_nothing_is_left_behind() {
    let (node, netns) = (Node::new(), Netns::new());
    node.netns.run("ip route add 192.168.236.3 dev eth0");
    let error = node.attach(&netns, &pod(3)).unwrap_err();
    assert!(
        error.reason.contains("another program (protocol boot) has the route 192.168.236.3/32"),
        "{error}"
    );
    assert!(node.read().link(&pod(3).host_device).is_none());
    assert!(!netns.run("ip -o link").contains("eth0"));
    assert!(node.netns.run("ip route").contains("192.168.236.3 dev eth0"));
}

#[test]
fn a_device_that_is_no_pods_is_never_replaced() {
    let (node, netns) = (Node::new(), Netns::new());
    node.netns.run("ip link add cali00000000003 type bridge");
    let error = node.attach(&netns, &pod(3)).unwrap_err();
    assert!(error.reason.contains("is no veth but bridge"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let (node, netns) = (Node::new(), Netns::new());
    let with_mac = |mac| PodLink { pod_mac: Some(MacAddress(mac)), ..pod(3) };
    for (pod, words) in [
        (
            PodLink { host_device: "cali0123456789ab".into(), ..pod(3) },
            "has 16 bytes; a device's name has at most 15",
        ),
        (PodLink { pod_device: "a/b".into(), ..pod(3) }, "must not contain '/'"),
        (PodLink { pod_device: String::new(), ..pod(3) }, "name is empty"),
        (PodLink { handle: "h".repeat(256), ..pod(3) }, "has 256 bytes; a link's alias holds at most 255"),
        (PodLink { addresses: vec![], ..pod(3) }, "has no address"),
        (
            PodLink { addresses: vec!["fe80::1".parse().unwrap()], ..pod(3) },
            "fe80::1 is no address for a pod",
        ),
        (PodLink { addresses: vec!["224.0.0.1".parse().unwrap()], ..pod(3) }, "224.0.0.1 is no address"),
        (PodLink { mtu: 1279, ..dual(3) }, "MTU 1279 is below 1280, which IPv6 needs"),
        (with_mac([0; 6]), "00:00:00:00:00:00 cannot be given to a pod: it is zero"),
        (
            with_mac([1, 0, 0x5e, 0, 0, 1]),
            "01:00:5e:00:00:01 cannot be given to a pod: it is a multicast address",
        ),
        (with_mac([0xee; 6]), "it is that of the link's other end"),
        (PodLink { mtu: 67, ..pod(3) }, "MTU 67 is not within"),
    ] {
        let error = node.attach(&netns, &pod).unwrap_err();
        assert!(error.reason.contains(words), "{error}");
    }
    let own = node.attach(&node.netns, &pod(3)).unwrap_err();
    assert!(own.reason.contains("is the node's own"), "{own}");
    let no_netns: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let error = node.wait(node.kernel.attach(no_netns.into(), &pod(3))).unwrap_err();
    assert!(error.reason.contains("is no network namespace"), "{error}");
    assert!(node.read().link(&pod(3).host_device).is_none());
}

#[test]
fn many_pods_come_and_go_at_the_same_time() {
    const PODS: u8 = 32;
    let node = Node::new();
    let any = |n| if n % 2 == 0 { dual(n) } else { pod(n) };
    let pods: Vec<(Netns, PodLink)> = (1..=PODS).map(|n| (Netns::new(), any(n))).collect();
    let all = |work: &dyn Fn(&(Netns, PodLink)) -> tokio::task::JoinHandle<()>| {
        let tasks: Vec<_> = pods.iter().map(work).collect();
        for task in tasks {
            node.wait(task).unwrap();
        }
    };
    let kernel = &node.kernel;
    let _runtime = node.enter();
    all(&|(netns, pod)| {
        let (kernel, file, pod) = (kernel.clone(), netns.file(), pod.clone());
        tokio::spawn(async move { kernel.attach(file.into(), &pod).await.map(drop).unwrap() })
    });
    for (netns, pod) in &pods {
        assert_eq!(node.check(netns, pod), Vec::<String>::new());
    }
    let addresses: usize = pods.iter().map(|(_, pod)| pod.addresses.len()).sum();
    assert_eq!(node.read().ours().count(), addresses);
    let begin = Instant::now();
    all(&|(_, pod)| {
        let (kernel, pod) = (kernel.clone(), pod.clone());
        tokio::spawn(async move { kernel.detach(&pod.host_device, &pod.handle).await.unwrap() })
    });
    println!("{PODS} detached in {:?}", begin.elapsed());
    assert_eq!(node.read().ours().count(), 0);
}

/// The node loop reads, plans and writes all the time while pods come and go; no pod may lose its route to it.
#[test]
fn a_pod_keeps_its_route_while_the_node_is_reconciled() {
    let node = Node::new();
    let pods: Vec<(Netns, PodLink)> = (1..=4).map(|n| (Netns::new(), dual(n))).collect();
    let mut facts = Facts::new("172.171.5.95/24".parse().unwrap());
    let endpoint =
        |pod: &PodLink| pod.addresses.iter().map(|it| (*it, pod.host_device.clone())).collect::<Vec<_>>();
    facts.endpoints = pods.iter().flat_map(|(_, pod)| endpoint(pod)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let _runtime = node.enter();
    let (kernel, stopped) = (node.kernel.clone(), Arc::clone(&stop));
    let reconciler = tokio::spawn(async move {
        let mut rounds = 0;
        while !stopped.load(Ordering::Relaxed) {
            let snapshot = kernel.read().await.unwrap();
            // A link may go between reading and writing: what fails is done again in the next round.
            kernel.apply(plan(&desired(&facts, &snapshot), &snapshot, Sweep::ALL)).await;
            rounds += 1;
        }
        rounds
    });
    for _ in 0..10 {
        for (netns, pod) in &pods {
            node.attach(netns, pod).unwrap();
        }
        for (netns, pod) in &pods {
            assert_eq!(node.check(netns, pod), Vec::<String>::new());
            node.wait(node.kernel.detach(&pod.host_device, &pod.handle)).unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(node.wait(reconciler).unwrap() > 10);
}
