//! The three modes: who reaches whom, what is on the wire, what is in every table; and the switch on a live cluster.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use manx_lab::{Cluster, Packet, Topology, UdpPace, eventually, slowness};
use manx_netns::Stored;

use crate::support::{OUTSIDE, SOON, assert_problem, assert_routes, cluster, founding};

/// The MTU of a pod (1500 less the outer header) less the headers of IP and TCP and the time stamps (RFC 7323).
const FULL_SEGMENT: u32 = 1480 - 20 - 20 - 12;

/// Every pod pings every other and the host outside, which pings every pod; bulk transfers use full segments; and both
/// bridges of the ToR see protocol 4 exactly where it belongs.
fn assert_everybody_reaches_everybody(cluster: &Cluster, mode: &str) {
    let lab = cluster.lab();
    let pods = lab.pods().unwrap();
    let captures = ["br5", "br6"].map(|bridge| lab.capture("tor", bridge, "icmp or proto 4").unwrap());
    let places: Vec<(&str, Ipv4Addr)> =
        pods.iter().map(|pod| (pod.name.as_str(), pod.address)).chain([("outside", OUTSIDE)]).collect();
    let mut pairs = Vec::new();
    for (from, source) in &places {
        for (_, target) in places.iter().filter(|(to, _)| to != from) {
            lab.ping_once(from, *target).unwrap();
            pairs.push((*source, *target));
        }
    }
    let packets = || captures.iter().flat_map(manx_lab::Capture::packets).collect::<Vec<_>>();
    eventually(SOON, "every request in the captures", || {
        let seen = packets();
        let missing =
            pairs.iter().find(|pair| !seen.iter().any(|packet| packet.headers.last() == Some(pair)));
        ensure!(missing.is_none(), "{missing:?} of {}", seen.len());
        Ok(())
    })
    .unwrap();
    let node_of: BTreeMap<Ipv4Addr, &str> = pods.iter().map(|pod| (pod.address, pod.node.as_str())).collect();
    for packet in packets() {
        assert_wire(cluster, mode, &node_of, &packet);
    }
    let bytes = if slowness() == 1 { 4 << 20 } else { 256 << 10 };
    for (from, to) in
        [("pod1", "pod2"), ("pod1", "pod3"), ("pod4", "pod1"), ("outside", "pod1"), ("pod1", "outside")]
    {
        let target = places.iter().find(|(name, _)| *name == to).unwrap().1;
        let report = lab.tcp_transfer(from, to, target, bytes).unwrap();
        assert_eq!(report.segment, FULL_SEGMENT, "{from} to {to} in {mode}");
    }
}

/// A packet between pods of two nodes has an outer header of these nodes where the mode says so; no other has one.
fn assert_wire(cluster: &Cluster, mode: &str, node_of: &BTreeMap<Ipv4Addr, &str>, packet: &Packet) {
    let (source, target) = *packet.headers.last().unwrap();
    let (Some(from), Some(to)) = (node_of.get(&source), node_of.get(&target)) else {
        return assert!(!packet.is_ipip(), "{mode}: {}", packet.line);
    };
    let address = |node: &str| cluster.lab().node(node).unwrap().address();
    if cluster.through_tunnel(mode, from, to).unwrap() {
        assert_eq!(
            packet.headers,
            [(address(from), address(to)), (source, target)],
            "{mode}: {}",
            packet.line
        );
    } else {
        assert_eq!(packet.headers, [(source, target)], "{mode}: {}", packet.line);
    }
}

/// Runs `work` under pings and numbered datagrams, within a subnet and between subnets, of which none may be lost.
fn without_loss(cluster: &mut Cluster, what: &str, work: impl FnOnce(&mut Cluster)) {
    let lab = cluster.lab();
    let pace = if slowness() == 1 { Duration::from_millis(10) } else { Duration::from_millis(200) };
    let paths = [("pod1", "pod2"), ("pod1", "pod3"), ("pod4", "pod2")];
    let address = |pod: &str| lab.pod(pod).unwrap().address;
    let pings = paths.map(|(from, to)| lab.ping(from, address(to), pace).unwrap());
    let probes = paths.map(|(from, to)| lab.udp_probe(from, to, address(to), UdpPace::Window(4)).unwrap());
    pings.iter().for_each(|ping| ping.wait_for_answers(SOON, 3).unwrap());
    work(cluster);
    let pings = pings.map(|ping| ping.stop().unwrap());
    let probes = probes.map(|probe| probe.stop().unwrap());
    for (path, (ping, probe)) in paths.iter().zip(pings.iter().zip(&probes)) {
        println!(
            "{what}, {path:?}: {} pings and {} datagrams, lost {:?} and {:?}, longest gap {:?}",
            ping.sent, probe.sent, ping.lost, probe.lost, probe.longest_gap
        );
    }
    assert!(pings.iter().all(|ping| ping.lost.is_empty()), "{what}: {pings:?}");
    assert!(probes.iter().all(|probe| probe.lost.is_empty() && probe.sent > 0), "{what}: {probes:?}");
}

#[test]
fn without_a_tunnel_every_pod_reaches_everybody_bare() {
    let cluster = founding("Never");
    assert_routes(&cluster, "Never");
    assert_everybody_reaches_everybody(&cluster, "Never");
}

#[test]
fn a_mode_that_this_kernel_cannot_do_breaks_nothing_and_the_remedy_is_named() {
    let mut cluster = founding("Never");
    if cluster.lab().exec("node1", &["ip", "link", "show", "tunl0"]).is_ok() {
        println!("this kernel has ipip: what it lacks cannot be shown here");
        return;
    }
    without_loss(&mut cluster, "Never to CrossSubnet without ipip, and back", |cluster| {
        cluster.set_mode("CrossSubnet").unwrap();
        for node in cluster.node_names() {
            assert_problem(cluster, &node, &["no ipip", "load the module"]);
        }
        cluster.set_mode("Never").unwrap();
        cluster.wait_mode("Never").unwrap();
    });
    assert_routes(&cluster, "Never");
}

#[test]
fn ipip_every_mode_connects_everybody_and_switching_between_them_loses_nothing() {
    let mut cluster = founding("Always");
    assert_routes(&cluster, "Always");
    assert_everybody_reaches_everybody(&cluster, "Always");
    let monitor = cluster.lab().route_monitor("node1").unwrap();
    without_loss(&mut cluster, "kill -9 in Always", |cluster| {
        cluster.agent("node1").unwrap().kill().unwrap();
        cluster.agent("node1").unwrap().start_again().unwrap();
        cluster.wait_ready("node1").unwrap();
        cluster.wait_converged().unwrap();
    });
    let events = monitor.stop().unwrap();
    assert!(!events.iter().any(|event| event.route.contains("proto 77")), "{events:#?}");
    let switches = [
        ("Always", "Never"),
        ("Never", "CrossSubnet"),
        ("CrossSubnet", "Always"),
        ("Always", "CrossSubnet"),
        ("CrossSubnet", "Never"),
        ("Never", "Always"),
        ("Always", "CrossSubnet"),
    ];
    for (from, to) in switches {
        without_loss(&mut cluster, &format!("{from} to {to}"), |cluster| {
            cluster.set_mode(to).unwrap();
            cluster.wait_mode(to).unwrap();
            assert_routes(cluster, to);
        });
    }
    assert_everybody_reaches_everybody(&cluster, "CrossSubnet");
}

#[test]
fn ipip_a_tunnel_that_no_pool_wants_any_more_goes_down_after_a_minute_and_its_address_is_given_back() {
    let cluster = cluster(Topology::one_subnet(2), &[("CALICO_IPV4POOL_IPIP", "Always")]);
    let lab = cluster.lab();
    let pods =
        [lab.pod_add("node1", "cat", "default").unwrap(), lab.pod_add("node2", "mouse", "default").unwrap()];
    cluster.wait_mode("Always").unwrap();
    lab.ping_once("cat", pods[1].address).unwrap();
    let tunnel = || lab.exec("node1", &["ip", "-br", "address", "show", "tunl0"]);
    let up = tunnel().unwrap();
    let held = Stored::read(&cluster.datastore()).unwrap().held().unwrap();
    let address = cluster.status("node1").unwrap()["tunnel"].as_str().unwrap().to_owned();
    assert!(up.contains(&format!("{address}/32")), "{up}");
    assert_eq!(held.len(), 4, "two pods and two tunnels: {held:?}");

    let begin = Instant::now();
    cluster.set_mode("Never").unwrap();
    cluster.wait_mode("Never").unwrap();
    assert_eq!(tunnel().unwrap(), up, "who still sends into the tunnel must be heard");
    // The patience of the lab is longer in the guest, where this runs.
    eventually(Duration::from_secs(120), "tunl0 to go down", || {
        let words = tunnel()?;
        ensure!(words.contains("DOWN") && !words.contains(&address), "{words}");
        Ok(())
    })
    .unwrap();
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(55), "{took:?}");
    eventually(SOON, "the addresses of the tunnels to be given back", || {
        let stored = Stored::read(&cluster.datastore())?;
        stored.audit()?;
        let held = stored.held()?;
        ensure!(held.len() == 2, "{held:?}");
        Ok(())
    })
    .unwrap();
    lab.ping_once("cat", pods[1].address).unwrap();
    assert_routes(&cluster, "Never");
}

#[test]
fn where_the_tunnel_is_ruled_out_a_pool_that_asks_for_it_is_routed_plainly_with_the_whole_mtu() {
    let topology = Topology::founding().keeping(&["node1", "node3"]);
    let cluster = cluster(topology, &[("FELIX_IPINIPENABLED", "false"), ("CALICO_IPV4POOL_IPIP", "Always")]);
    cluster.peer_with_tor().unwrap();
    cluster.lab().pod_add("node1", "pod1", "default").unwrap();
    let far = cluster.lab().pod_add("node3", "pod3", "default").unwrap();
    cluster.wait_converged().unwrap();
    assert_routes(&cluster, "Never");
    cluster.lab().ping_once("pod1", far.address).unwrap();
    let link = cluster.lab().exec("pod1", &["ip", "link", "show", "eth0"]).unwrap();
    assert!(link.contains("mtu 1500"), "{link}");
}
