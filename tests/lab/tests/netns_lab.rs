//! The lab itself, on the real kernel with a real BIRD. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use manx_lab::{Fabric, Lab, Options, Program, ReversePath, Swept, Topology, UdpPace, eventually, netns};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 10);
const SOON: Duration = Duration::from_secs(10);

fn lab(topology: Topology) -> Lab {
    Lab::up(Options::unique("labtest", topology)).unwrap()
}

/// What must be the same before and after: links and addresses and routes of this namespace.
fn own_network() -> String {
    let show = |args: &[&str]| {
        let output = Command::new("ip").args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    show(&["-o", "link"]) + &show(&["-o", "-4", "address"]) + &show(&["route"])
}

#[test]
fn nodes_reach_each_other_and_the_host_outside_through_the_tor() {
    let lab = lab(Topology::founding());
    for node in lab.nodes() {
        for target in lab.nodes().map(|other| other.address()).chain([OUTSIDE]) {
            lab.ping_once(node.name(), target).unwrap();
        }
    }
    assert_eq!(
        lab.node("node3").unwrap().routes().unwrap(),
        [
            "default via 172.171.6.1 dev eth0 proto static",
            "172.171.6.0/24 dev eth0 proto kernel scope link src 172.171.6.95"
        ]
    );
}

#[test]
fn bird_waits_for_every_node() {
    let lab = lab(Topology::founding());
    for node in lab.nodes() {
        eventually(SOON, "a passive session", || {
            let state = lab.bird_session(node.name())?;
            anyhow::ensure!(state == "Passive", "{}: {state}", node.name());
            Ok(())
        })
        .unwrap();
    }
    assert!(lab.bird("show route").unwrap().contains("10.99.0.0/24"));
    assert!(lab.bird("show nonsense").is_err());
}

#[test]
fn down_leaves_nothing_behind() {
    let before = own_network();
    let lab = lab(Topology::founding());
    let (name, dir) = (lab.name().to_owned(), lab.dir().to_owned());
    let mut process = lab.node("node1").unwrap().start("idle", Program::new("sleep").arg("1000")).unwrap();
    assert!(process.is_running());
    let bird = netns::pids(&lab.netns("tor"));
    assert_eq!(bird.len(), 1, "{bird:?}");
    assert_eq!(own_network(), before, "raising a lab changed the machine's own namespace");
    lab.down().unwrap();
    assert_eq!(own_network(), before);
    assert!(!process.is_running());
    assert!(netns::with_prefix(&format!("{name}-")).is_empty());
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{}", bird[0])).exists());
}

#[test]
fn two_labs_at_once_do_not_meet() {
    let (left, right) = (lab(Topology::founding()), lab(Topology::founding()));
    left.exec("node1", &["ip", "link", "set", "eth0", "down"]).unwrap();
    right.ping_once("node2", Ipv4Addr::new(172, 171, 5, 95)).unwrap();
    assert!(left.ping_once("node2", Ipv4Addr::new(172, 171, 5, 95)).is_err());
    left.down().unwrap();
    right.ping_once("node1", OUTSIDE).unwrap();
}

#[test]
fn a_second_lab_of_the_same_name_is_refused() {
    let lab = lab(Topology::one_subnet(1));
    let twin = Options { name: lab.name().to_owned(), topology: Topology::one_subnet(1) };
    let error = format!("{:#}", Lab::up(twin).unwrap_err());
    assert!(error.contains("up already"), "{error}");
}

#[test]
fn what_a_crashed_owner_left_is_swept_and_a_living_owners_lab_is_not() {
    let mine = lab(Topology::one_subnet(1));
    let orphan = lab(Topology::founding());
    let name = orphan.name().to_owned();
    // As if another process had raised it, and that one had been killed: its drop never runs.
    std::fs::write(orphan.dir().join("owner"), "4194304 1").unwrap();
    std::mem::forget(orphan);
    let swept = Lab::sweep(false).unwrap();
    assert!(swept.contains(&Swept::Removed(name.clone())), "{swept:?}");
    assert!(swept.contains(&Swept::InUse(mine.name().to_owned(), std::process::id())), "{swept:?}");
    assert!(netns::with_prefix(&format!("{name}-")).is_empty());
    assert!(netns::exists(&mine.netns("node1")));
}

#[test]
fn a_kept_lab_is_found_again_by_name() {
    let lab = lab(Topology::one_subnet(2));
    let name = lab.name().to_owned();
    lab.keep().unwrap();
    let lab = Lab::open(&name).unwrap();
    lab.ping_once("node1", Ipv4Addr::new(172, 171, 5, 96)).unwrap();
    lab.down().unwrap();
    assert!(Lab::open(&name).is_err());
}

#[test]
fn a_node_begins_as_it_was_ordered() {
    let topology = Topology::founding().keeping(&["node1"]).fabric(Fabric::Router).each_node(|node| {
        node.mtu = 1400;
        node.reverse_path = ReversePath::Strict;
        node.default_route = false;
    });
    let lab = lab(topology);
    let node = lab.node("node1").unwrap();
    assert!(node.exec(&["ip", "link", "show", "eth0"]).unwrap().contains("mtu 1400"));
    assert_eq!(node.exec(&["cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"]).unwrap().trim(), "1");
    assert_eq!(node.exec(&["cat", "/proc/sys/net/ipv4/ip_forward"]).unwrap().trim(), "0");
    assert_eq!(node.routes().unwrap(), ["172.171.5.0/24 dev eth0 proto kernel scope link src 172.171.5.95"]);
}

#[test]
fn a_killed_process_starts_again_with_the_same_command_line() {
    let lab = lab(Topology::one_subnet(1));
    let script = "echo ready $WORD; while :; do read line < /dev/zero; done";
    let program = Program::new("sh").args(["-c", script]).env("WORD", "tail");
    let mut process = lab.node("node1").unwrap().start("shell", program).unwrap();
    process.wait_for_log(SOON, "ready tail").unwrap();
    let first = process.pid().unwrap();
    assert_eq!(netns::pids(&lab.netns("node1")), [first]);
    process.kill().unwrap();
    assert!(!process.is_running());
    process.start_again().unwrap();
    process.wait_for_log(SOON, "ready tail").unwrap();
    assert_ne!(process.pid(), Some(first));
    process.stop(SOON).unwrap();
}

#[test]
fn a_program_that_ends_early_is_reported_with_its_last_words() {
    let lab = lab(Topology::one_subnet(1));
    let program = Program::new("sh").args(["-c", "echo no such cat >&2; exit 3"]);
    let mut process = lab.node("node1").unwrap().start("shell", program).unwrap();
    let error = process.wait_for_log(SOON, "ready").unwrap_err().to_string();
    assert!(error.contains("no such cat"), "{error}");
}

#[test]
fn losses_are_counted_while_a_path_is_closed_and_only_then() {
    let lab = lab(Topology::founding().keeping(&["node1", "node3"]).fabric(Fabric::Router));
    let target = lab.node("node3").unwrap().address();
    let begin = || {
        let ping = lab.ping("node1", target, Duration::from_millis(10)).unwrap();
        ping.wait_for_answers(SOON, 20).unwrap();
        ping
    };
    let pace = UdpPace::Every(Duration::from_millis(5));
    let (ping, probe) = (begin(), lab.udp_probe("node1", "node3", target, pace).unwrap());
    let whole = ping.stop().unwrap();
    assert!(whole.sent >= 20 && whole.lost.is_empty(), "{whole:?}");
    let whole = probe.stop().unwrap();
    assert!(whole.sent > 0 && whole.lost.is_empty() && whole.duplicates == 0, "{whole:?}");

    let (ping, probe) = (begin(), lab.udp_probe("node1", "node3", target, UdpPace::Window(8)).unwrap());
    let forwarding = |value: &str| {
        let write = format!("echo {value} > /proc/sys/net/ipv4/ip_forward");
        lab.exec("tor", &["sh", "-c", &write]).unwrap();
    };
    forwarding("0");
    lab.exec("node1", &["ping", "-c", "3", "-i", "0.1", "-W", "1", "172.171.5.1"]).unwrap();
    forwarding("1");
    lab.ping_once("node1", target).unwrap();
    let broken = ping.stop().unwrap();
    assert!(!broken.lost.is_empty() && (broken.lost.len() as u64) < broken.sent, "{broken:?}");
    let broken = probe.stop().unwrap();
    assert!(!broken.lost.is_empty() && broken.longest_gap > Duration::from_millis(100), "{broken:?}");
}

#[test]
fn a_plugin_is_called_as_a_container_runtime_calls_it() {
    let lab = lab(Topology::one_subnet(1));
    let plugin = lab.dir().join("plugin");
    let script = "#!/bin/sh\nread config\necho '{\"config\": '\"$config\"', \"env\": \"'\
                  \"$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $(ip -br -4 a show eth0)\"'\"}'\n";
    std::fs::write(&plugin, script).unwrap();
    std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    lab.pod_namespace("cat").unwrap();
    let mut call = lab.cni_call("ADD", "node1", "cat", "default").unwrap();
    call.binary = Some(plugin);
    let seen = lab.cni(&call).unwrap().ok().unwrap();
    let node = lab.node("node1").unwrap();
    assert_eq!(seen["config"]["name"], "k8s-pod-network");
    assert_eq!(seen["config"]["socket"], node.cni_socket().to_str().unwrap());
    assert_eq!(seen["config"]["spool"], node.cni_spool().to_str().unwrap());
    let (id, env) = (format!("{}-cat", lab.name()), seen["env"].as_str().unwrap());
    let expected = format!(
        "ADD {id} /run/netns/{id} eth0 \
         IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=cat;K8S_POD_INFRA_CONTAINER_ID={id} eth0@"
    );
    assert!(env.starts_with(&expected) && env.contains("172.171.5.95/24"), "{env}");
}

#[test]
fn a_bulk_transfer_uses_full_size_segments() {
    let lab = lab(Topology::founding().keeping(&["node1"]).fabric(Fabric::Router));
    let report = lab.tcp_transfer("node1", "outside", OUTSIDE, 4 << 20).unwrap();
    // 1500 less 20 of IPv4, 20 of TCP and 12 of its timestamps.
    assert_eq!((report.bytes, report.segment), (4 << 20, 1448));
}

#[test]
fn a_capture_sees_what_passes_on_a_device() {
    let lab = lab(Topology::founding().keeping(&["node1", "node3"]).fabric(Fabric::Router));
    let capture = lab.capture("node1", "eth0", "icmp").unwrap();
    let target = lab.node("node3").unwrap().address();
    lab.ping_once("node1", target).unwrap();
    let reply = |packet: &manx_lab::Packet| packet.payload.contains("echo reply");
    let packet = capture.wait_for(SOON, "the reply", reply).unwrap();
    assert_eq!(packet.headers, [(target, Ipv4Addr::new(172, 171, 5, 95))]);
    assert_eq!(capture.stop().unwrap().len(), 2);
}

#[test]
fn a_route_that_comes_and_goes_is_seen_with_its_time() {
    let lab = lab(Topology::one_subnet(1));
    let monitor = lab.route_monitor("node1").unwrap();
    let route = "192.168.1.0/26 via 172.171.5.96 dev eth0 proto 77";
    for verb in ["add", "del"] {
        let command: Vec<&str> = ["ip", "route", verb].into_iter().chain(route.split(' ')).collect();
        lab.exec("node1", &command).unwrap();
    }
    let gone = monitor.wait_for(SOON, "the deletion", |event| event.deleted).unwrap();
    let events = monitor.stop().unwrap();
    assert_eq!(events.iter().map(|event| event.route.as_str()).collect::<Vec<_>>(), [route, route]);
    assert!(events[0].at <= gone.at && !events[0].deleted);
}

#[test]
fn ipip_a_captured_packet_shows_the_outer_and_the_inner_header() {
    let lab = lab(Topology::founding().keeping(&["node1", "node3"]).fabric(Fabric::Router));
    let (left, right) = (lab.node("node1").unwrap(), lab.node("node3").unwrap());
    let inner = [Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::new(192, 168, 3, 1)];
    for (node, own, far, via) in
        [(left, inner[0], inner[1], right.address()), (right, inner[1], inner[0], left.address())]
    {
        // tunl0 is in every namespace of a kernel that has ipip.
        let lines = [
            format!("address add {own}/32 dev tunl0"),
            "link set tunl0 up".to_owned(),
            format!("route add {far}/32 via {via} dev tunl0 onlink"),
        ];
        netns::ip_lines(&node.netns(), &lines).unwrap();
    }
    let capture = lab.capture("tor", "br5", "ip proto 4").unwrap();
    lab.ping_once("node1", inner[1]).unwrap();
    let request = |packet: &manx_lab::Packet| packet.payload.contains("echo request");
    let packet = capture.wait_for(SOON, "the tunnelled request", request).unwrap();
    assert!(packet.is_ipip());
    assert_eq!(packet.headers, [(left.address(), right.address()), (inner[0], inner[1])]);
}
