//! Protocol 4 that is not what it seems: from pods, and from hosts that are no nodes.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::ensure;
use manx_lab::{Cluster, Fabric, Lab, ReversePath, Topology, eventually, netns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::nat::dropped;
use crate::support::{OUTSIDE, SOON, cluster};

/// IP in IP (RFC 2003). What is inside does not matter: a raw socket gets what the tunnel would get.
const IPIP: i32 = 4;

/// A socket that gets, and sends, protocol 4 in a namespace.
fn raw(lab: &Lab, place: &str) -> Socket {
    let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPIP)));
    let socket = netns::within(&lab.netns(place), open).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Sends one packet from a namespace: as itself, or under the name of another.
fn send(lab: &Lab, place: &str, to: Ipv4Addr, forged: Option<Ipv4Addr>) {
    let socket = raw(lab, place);
    let target = SocketAddrV4::new(to, 0).into();
    let packet = match forged {
        None => b"inner packet, or so it says".to_vec(),
        Some(source) => {
            socket.set_header_included_v4(true).unwrap();
            // RFC 791 §3.1; the kernel fills in length, identification and checksum.
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 4, 0, 0];
            header.extend(source.octets());
            header.extend(to.octets());
            header.extend([0; 20]);
            header
        }
    };
    socket.send_to(&packet, &target).unwrap();
}

/// Whether a packet has come.
fn got(socket: &Socket) -> bool {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 200];
    match socket.recv(&mut buffer) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

fn wait_got(socket: &Socket, what: &str) {
    eventually(SOON, what, || {
        ensure!(got(socket), "nothing came");
        Ok(())
    })
    .unwrap();
}

fn wait_dropped(cluster: &Cluster, chain: &str, count: u64, what: &str) {
    eventually(SOON, what, || {
        let dropped = dropped(cluster, "node1", chain)?;
        ensure!(dropped == count, "{dropped} dropped");
        Ok(())
    })
    .unwrap();
}

#[test]
fn protocol_4_reaches_a_node_from_nodes_alone_and_a_pod_from_nobody() {
    let mut topology = Topology::founding().keeping(&["node1", "node2", "node3"]).fabric(Fabric::Router);
    // The kernel's own check of sources would drop what a pod forges before the table is asked; not every node has it.
    topology.nodes.iter_mut().for_each(|node| node.reverse_path = ReversePath::Off);
    let cluster = cluster(topology, &[]);
    for (node, pod) in [("node1", "cat"), ("node2", "mouse")] {
        cluster.pod_add(node, pod, "default").unwrap();
    }
    cluster.wait_converged().unwrap();
    let lab = cluster.lab();
    let address = |node: &str| lab.node(node).unwrap().address();
    let [node1, node2, node3] = ["node1", "node2", "node3"].map(address);
    let (at_node, at_mouse) = (raw(lab, "node1"), raw(lab, "mouse"));

    send(lab, "node2", node1, None);
    wait_got(&at_node, "what another node sends");

    send(lab, "outside", node1, None);
    wait_dropped(&cluster, "input", 1, "what a host behind the router sends to be dropped");
    send(lab, "cat", node1, None);
    wait_dropped(&cluster, "input", 2, "what a pod sends to be dropped");
    send(lab, "cat", node1, Some(node2));
    wait_dropped(&cluster, "input", 3, "what a pod sends under a node's name to be dropped");
    send(lab, "cat", lab.pod("mouse").unwrap().address, None);
    send(lab, "cat", node2, Some(node3));
    wait_dropped(&cluster, "forward", 2, "what a pod sends through its node to be dropped");
    assert!(!got(&at_node) && !got(&at_mouse));

    let spec = "apiVersion: crd.projectcalico.org/v1\nkind: FelixConfiguration\nmetadata:\n  name: default\nspec:\n  allowIPIPPacketsFromWorkloads: true\n  externalNodesList: [\"10.99.0.0/24\"]\n";
    cluster.write_manifest("felixconfigurations", "default", spec).unwrap();
    eventually(SOON, "what the configuration allows to come", || {
        send(lab, "cat", lab.pod("mouse")?.address, None);
        send(lab, "outside", node1, None);
        ensure!(got(&at_mouse), "the pod's does not come");
        ensure!(got(&at_node), "that of {OUTSIDE} does not come");
        Ok(())
    })
    .unwrap();
    let before = dropped(&cluster, "node1", "input").unwrap();
    send(lab, "cat", node1, None);
    wait_dropped(&cluster, "input", before + 1, "what a pod sends to its node to be dropped as before");
}
