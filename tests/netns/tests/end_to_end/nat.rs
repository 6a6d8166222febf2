//! Pods and the world outside: who sees which address, and what becomes of connections when anything changes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use manx_lab::{Cluster, Fabric, Lab, Program, Topology, eventually, manx_binary, netns};

use crate::support::{OUTSIDE, SOON, cluster};

const PACE: Duration = Duration::from_millis(10);
const POOL: &str = "default-ipv4-ippool";

/// Two nodes and a host behind a router that knows nothing of pods.
fn behind_a_router() -> Cluster {
    let topology = Topology::founding().keeping(&["node1", "node2"]).fabric(Fabric::Router);
    let cluster = cluster(topology, &[]);
    for (node, pod) in [("node1", "cat"), ("node2", "mouse")] {
        cluster.pod_add(node, pod, "default").unwrap();
    }
    cluster.wait_converged().unwrap();
    cluster
}

/// A connection from a pod to the host outside, which sends back what it gets.
struct Connection {
    pod: TcpStream,
    host: TcpStream,
}

impl Connection {
    fn open(lab: &Lab, pod: &str) -> Self {
        let listen = || TcpListener::bind((OUTSIDE, 0));
        let listener = netns::within(&lab.netns("outside"), listen).unwrap().unwrap();
        let target = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&target, SOON);
        let pod = netns::within(&lab.netns(pod), connect).unwrap().unwrap();
        let (host, _) = listener.accept().unwrap();
        for socket in [&pod, &host] {
            socket.set_read_timeout(Some(SOON)).unwrap();
        }
        Self { pod, host }
    }

    /// Whom the host outside sees.
    fn source(&self) -> SocketAddr {
        self.host.peer_addr().unwrap()
    }

    /// There and back.
    fn exchange(&mut self) {
        let mut buffer = [0; 1000];
        self.pod.write_all(&[7; 1000]).unwrap();
        self.host.read_exact(&mut buffer).unwrap();
        self.host.write_all(&buffer).unwrap();
        self.pod.read_exact(&mut buffer).unwrap();
    }
}

/// Edits the default pool's `natOutgoing`.
fn set_nat(cluster: &Cluster, nat: bool) {
    let file = cluster.datastore().join(format!("ippools/{POOL}.yaml"));
    let text = std::fs::read_to_string(file).unwrap();
    let changed = text.replace(&format!("natOutgoing: {}", !nat), &format!("natOutgoing: {nat}"));
    assert_ne!(changed, text);
    cluster.write_manifest("ippools", POOL, &changed).unwrap();
}

fn table(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    cluster.lab().exec(node, &["nft", "-s", "list", "table", "ip", "manx"])
}

fn wait_table(cluster: &Cluster, node: &str, what: &str, so: impl Fn(&str) -> bool) {
    eventually(SOON, &format!("the table of {node}: {what}"), || {
        let text = table(cluster, node)?;
        ensure!(so(&text), "{text}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_pod_reaches_the_world_outside_by_its_nodes_address_and_other_pods_by_its_own() {
    let cluster = behind_a_router();
    let lab = cluster.lab();
    let (cat, mouse) = (lab.pod("cat").unwrap().address, lab.pod("mouse").unwrap().address);
    let node1 = lab.node("node1").unwrap().address();
    let seen = |place: &str, from: &str, to: Ipv4Addr| {
        let capture = lab.capture(place, "eth0", "icmp").unwrap();
        // Whether there is an answer does not matter here.
        let _ = lab.ping_once(from, to);
        let request = capture.wait_for(SOON, "the request", |packet| packet.payload.contains("echo request"));
        request.unwrap().headers[0]
    };
    assert_eq!(seen("outside", "cat", OUTSIDE), (node1, OUTSIDE));
    lab.ping_once("cat", OUTSIDE).unwrap();
    assert_eq!(seen("mouse", "cat", mouse), (cat, mouse));
    let report = lab.tcp_transfer("cat", "outside", OUTSIDE, 1 << 20).unwrap();
    assert_eq!(report.bytes, 1 << 20);

    set_nat(&cluster, false);
    wait_table(&cluster, "node1", "nobody is translated", |text| text.matches("192.168.0.0/16").count() == 1);
    eventually(SOON, "the pod's own address outside", || {
        ensure!(seen("outside", "cat", OUTSIDE) == (cat, OUTSIDE));
        Ok(())
    })
    .unwrap();
    lab.ping_once("cat", OUTSIDE).unwrap_err();
}

#[test]
fn a_connection_under_way_outlives_changes_of_pools_of_nodes_and_of_the_agent() {
    let mut cluster = behind_a_router();
    let node1 = cluster.lab().node("node1").unwrap().address();
    let mut connection = Connection::open(cluster.lab(), "cat");
    assert_eq!(connection.source().ip(), node1);
    let ping = cluster.lab().ping("cat", OUTSIDE, PACE).unwrap();
    ping.wait_for_answers(SOON, 3).unwrap();
    let mut goes_on = |what: &str| {
        println!("{what}");
        ping.wait_for_more(SOON, 30).unwrap();
        connection.exchange();
    };
    goes_on("at rest");

    cluster.agent("node1").unwrap().kill().unwrap();
    goes_on("the agent is gone");
    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    goes_on("the agent is back");

    let pool = "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata:\n  name: more\nspec:\n  cidr: 10.50.0.0/16\n  natOutgoing: true\n";
    cluster.write_manifest("ippools", "more", pool).unwrap();
    wait_table(&cluster, "node1", "the new pool", |text| text.contains("10.50.0.0/16"));
    goes_on("there is one more pool");

    cluster.set_mode("CrossSubnet").unwrap();
    cluster.set_mode("Never").unwrap();
    goes_on("the mode changed, and changed back");

    set_nat(&cluster, false);
    wait_table(&cluster, "node1", "nobody of the default pool is translated", |text| {
        text.matches("192.168.0.0/16").count() == 1
    });
    goes_on("new connections are not translated any more");

    let report = ping.stop().unwrap();
    assert!(report.lost.is_empty(), "lost {:?} of {}", report.lost, report.sent);
    println!("{} pings, none lost", report.sent);
    // Nobody listens: who is translated is refused, and the refusal does not find the way to anybody else.
    let connect = || TcpStream::connect_timeout(&(OUTSIDE, 9).into(), Duration::from_millis(500));
    let new = netns::within(&cluster.lab().netns("cat"), connect).unwrap();
    assert_eq!(new.unwrap_err().kind(), std::io::ErrorKind::TimedOut, "it is translated");
}

#[test]
fn our_table_comes_back_when_somebody_deletes_or_bends_it_and_those_of_others_are_not_touched() {
    let cluster = behind_a_router();
    let lab = cluster.lab();
    let foreign = "table ip kube-proxy { chain services { type nat hook postrouting priority srcnat; } ; } ; table inet ours { set s { type ipv4_addr; } ; }";
    lab.exec("node1", &["nft", foreign]).unwrap();
    let theirs = || {
        let of =
            |family: &str, name: &str| lab.exec("node1", &["nft", "list", "table", family, name]).unwrap();
        (of("ip", "kube-proxy"), of("inet", "ours"))
    };
    let before = (table(&cluster, "node1").unwrap(), theirs());
    for change in [
        "delete table ip manx",
        "flush chain ip manx postrouting",
        "insert rule ip manx input accept",
        "add element ip manx nodes { 10.99.0.10 }",
    ] {
        lab.exec("node1", &["nft", change]).unwrap();
        wait_table(&cluster, "node1", "repaired", |text| text == before.0);
        lab.ping_once("cat", OUTSIDE).unwrap();
    }
    assert_eq!(theirs(), before.1);
    // Beside kube-proxy, which translates first where it wants to.
    lab.exec("node1", &["nft", "add rule ip kube-proxy services masquerade"]).unwrap();
    lab.ping_once("cat", OUTSIDE).unwrap();
    assert_eq!(table(&cluster, "node1").unwrap(), before.0);
}

#[test]
fn a_pods_source_and_its_ports_are_those_that_the_configuration_names_and_nodes_may_be_left_out() {
    let cluster = behind_a_router();
    let lab = cluster.lab();
    lab.exec("node1", &["ip", "address", "add", "172.171.5.200/32", "dev", "eth0"]).unwrap();
    let spec = "apiVersion: crd.projectcalico.org/v1\nkind: FelixConfiguration\nmetadata:\n  name: default\nspec:\n  natOutgoingAddress: 172.171.5.200\n  natPortRange: \"40000:40009\"\n  natOutgoingExclusions: IPPoolsAndHostIPs\n";
    cluster.write_manifest("felixconfigurations", "default", spec).unwrap();
    wait_table(&cluster, "node1", "the address", |text| text.contains("snat to 172.171.5.200:40000-40009"));
    let connection = Connection::open(lab, "cat");
    assert_eq!(connection.source().ip(), Ipv4Addr::new(172, 171, 5, 200));
    assert!((40000..=40009).contains(&connection.source().port()), "{}", connection.source());
    let node2 = lab.node("node2").unwrap().address();
    let capture = lab.capture("node2", "eth0", "icmp").unwrap();
    lab.ping_once("cat", node2).unwrap();
    let request =
        capture.wait_for(SOON, "the request", |packet| packet.payload.contains("echo request")).unwrap();
    assert_eq!(request.headers[0], (lab.pod("cat").unwrap().address, node2));
    let problems = crate::support::problems(&cluster, "node1").unwrap();
    assert!(!problems.iter().any(|problem| problem.contains("nat")), "{problems:#?}");
}

#[test]
fn what_an_agent_left_in_a_kernel_can_be_taken_away_and_nothing_else_goes_with_it() {
    let mut cluster = behind_a_router();
    let uninstall = |cluster: &Cluster| {
        let node = cluster.lab().node("node1").unwrap();
        let program = Program::new(manx_binary().unwrap()).arg("uninstall");
        // Nothing of the machine's own.
        let places = ["MANX_RUN_DIR", "MANX_STATE_DIR", "CNI_NET_DIR", "CNI_BIN_DIR"];
        let program = places.into_iter().fold(program, |program, place| program.env(place, node.dir()));
        cluster.lab().output("node1", &program).unwrap()
    };
    let refused = uninstall(&cluster);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop it first"), "{refused:?}");
    cluster.pod_del("cat").unwrap();
    cluster.agent("node1").unwrap().stop(SOON).unwrap();
    let lab = cluster.lab();
    lab.exec("node1", &["nft", "add table ip other"]).unwrap();
    lab.exec("node1", &["ip", "route", "add", "10.50.0.0/16", "via", "172.171.5.1", "proto", "static"])
        .unwrap();
    let done = uninstall(&cluster);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(lab.exec("node1", &["nft", "list", "tables"]).unwrap().trim(), "table ip other");
    let routes = lab.routes("node1").unwrap();
    assert!(!routes.iter().any(|route| route.contains("proto 77")), "{routes:#?}");
    assert!(routes.iter().any(|route| route.contains("10.50.0.0/16")), "{routes:#?}");
    assert!(String::from_utf8_lossy(&uninstall(&cluster).stdout).contains("Nothing of Manx"));
}

/// Where a rule of our table has counted, and how often.
pub(crate) fn dropped(cluster: &Cluster, node: &str, chain: &str) -> anyhow::Result<u64> {
    let text = cluster.lab().exec(node, &["nft", "-j", "list", "chain", "ip", "manx", chain])?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let rules = all["nftables"].as_array().context("nft lists nothing")?;
    let expressions = rules.iter().filter_map(|entry| entry["rule"]["expr"].as_array()).flatten();
    Ok(expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).sum())
}
