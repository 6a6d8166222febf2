//! Bad data that arrives while the agent runs: refused by name, and everything else goes on.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::ensure;
use manx_lab::{Cluster, Fabric, Program, Topology, cni_binary, eventually, netns};

use crate::support::{NO_BGP, SOON, assert_problem, assert_routes_of, cluster, problems};

/// The node still serves pods, and its table is as it should be.
fn assert_well(cluster: &Cluster, pod: &str) {
    cluster.lab().pod_add("node1", pod, "default").unwrap();
    assert_routes_of(cluster, "node1", "Never");
}

fn pool(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata:\n  name: {name}\nspec:\n  cidr: {cidr}\n"
    )
}

#[test]
fn damaged_and_contradicting_objects_are_named_and_the_good_ones_stay_in_force() {
    let cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    let lab = cluster.lab();
    lab.pod_add("node1", "cat", "default").unwrap();
    // The carrier of a new link comes up by itself, a little later: until then `ip` says linkdown.
    assert_routes_of(&cluster, "node1", "Never");
    let before = lab.routes("node1").unwrap();
    // The name sorts before that of the pool in use: age decides, not the alphabet.
    let cases = [
        ("ippools", "another", pool("another", "192.168.128.0/17"), "overlap"),
        ("ippools", "nonsense", "spec: [unclosed\n  {{{".to_owned(), "nonsense"),
        ("ippools", "number", pool("number", "ten"), "cidr"),
        ("bgppeers", "empty", String::new(), "empty"),
        ("bgpconfigurations", "default", "kind: IPPool\n".to_owned(), "default"),
    ];
    for (count, (kind, name, text, word)) in cases.iter().enumerate() {
        cluster.write_manifest(kind, name, text).unwrap();
        assert_problem(&cluster, "node1", &[name, word]);
        assert_eq!(lab.routes("node1").unwrap(), before, "after {name}");
        let said = problems(&cluster, "node1").unwrap();
        assert!(said.len() > count, "the earlier ones are still named: {said:#?}");
    }
    assert_well(&cluster, "mouse");
    for (kind, name, _, _) in &cases {
        std::fs::remove_file(cluster.datastore().join(format!("{kind}/{name}.yaml"))).unwrap();
    }
    eventually(SOON, "the complaints to cease", || {
        let said = problems(&cluster, "node1")?;
        ensure!(said.is_empty(), "{said:#?}");
        Ok(())
    })
    .unwrap();
    assert_well(&cluster, "dog");
}

#[test]
fn a_cni_request_that_is_no_json_is_refused_and_the_next_is_served() {
    let mut cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    let socket = cluster.lab().node("node1").unwrap().cni_socket();
    let requests: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x05hello", b"\xff\xff\xff\xff", b"\0\0"];
    for request in requests {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("\"code\"") || answer.is_empty(), "{request:?}: {answer}");
    }
    let refusal = cluster.agent("node1").unwrap().wait_for_log(SOON, "a CNI request is refused").unwrap();
    assert!(refusal.contains("WARN"), "{refusal}");
    // One who connects and says nothing holds nobody up.
    let _silent = UnixStream::connect(&socket).unwrap();

    let stdin = |text: &str| {
        let script = format!("printf '%s' \"$TEXT\" | {}", cni_binary().unwrap().display());
        let program = Program::new("sh")
            .args(["-c", &script])
            .env("TEXT", text)
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", "cat")
            .env("CNI_NETNS", "/run/netns/cat")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin");
        let output = cluster.lab().output("node1", &program).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for text in ["no json", "{\"cniVersion\": ", "[]", ""] {
        let (code, answer) = stdin(text);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert!(code == Some(1) && answer["code"] == 6, "{text:?}: {code:?} {answer}");
    }
    assert_well(&cluster, "cat");
}

#[test]
fn a_peer_that_sends_garbage_is_named_and_the_other_sessions_go_on() {
    let topology = Topology::founding().keeping(&["node1", "node2"]).fabric(Fabric::Router);
    let cluster = cluster(topology, &[]);
    let lab = cluster.lab();
    lab.pod_add("node1", "cat", "default").unwrap();
    let mouse = lab.pod_add("node2", "mouse", "default").unwrap();
    cluster.wait_converged().unwrap();
    let ping = lab.ping("cat", mouse.address, Duration::from_millis(10)).unwrap();
    let monitor = lab.route_monitor("node1").unwrap();

    let listener =
        netns::within(&lab.netns("outside"), || TcpListener::bind("10.99.0.10:179")).unwrap().unwrap();
    std::thread::spawn(move || {
        // The whole of an OPEN's header, and a body that is none; then bytes that are no message at all.
        let mut open = vec![0xff; 16];
        open.extend([0, 29, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        let garbage: [&[u8]; 3] =
            [&open, b"GET / HTTP/1.1\r\nHost: a.very.long.name.example\r\n\r\n", &[0xff; 64]];
        for (count, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            let _ = stream.write_all(garbage[count % garbage.len()]);
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    let peer = "apiVersion: crd.projectcalico.org/v1\nkind: BGPPeer\nmetadata:\n  name: garbage\n\
                spec:\n  node: node1\n  peerIP: 10.99.0.10\n  asNumber: 65010\n";
    cluster.write_manifest("bgppeers", "garbage", peer).unwrap();
    eventually(SOON, "the garbage to be named", || {
        let status = cluster.status("node1")?;
        let peers = status["bgp"]["peers"].as_array().cloned().unwrap_or_default();
        let garbage = peers.iter().find(|peer| peer["address"].to_string().contains("10.99.0.10"));
        let error = garbage.and_then(|peer| peer["lastError"].as_str()).unwrap_or_default();
        ensure!(!error.is_empty(), "{peers:?}");
        println!("of the peer that sends garbage: {error}");
        Ok(())
    })
    .unwrap();
    // Strangers who dial us: one that is no peer, and one in the peer's place.
    for from in ["tor", "outside"] {
        let target = SocketAddr::new(IpAddr::V4(lab.node("node1").unwrap().address()), 179);
        let stream = netns::within(&lab.netns(from), || TcpStream::connect_timeout(&target, SOON)).unwrap();
        if let Ok(mut stream) = stream {
            let _ = stream.write_all(&[0xff; 64]);
            let _ = stream.read(&mut [0; 64]);
        }
    }
    lab.pod_add("node2", "dog", "default").unwrap();
    let status = cluster.status("node1").unwrap();
    let mesh =
        status["bgp"]["peers"].as_array().unwrap().iter().find(|peer| peer["address"] == "172.171.5.96");
    assert_eq!(mesh.map(|peer| &peer["state"]), Some(&"Established".into()), "{status}");
    let report = ping.stop().unwrap();
    assert!(report.lost.is_empty() && report.sent > 0, "{report:?}");
    let gone: Vec<_> = monitor.stop().unwrap().into_iter().filter(|event| event.deleted).collect();
    assert_eq!(gone, []);
}
