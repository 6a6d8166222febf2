//! Debian's portmap and bandwidth behind us.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use manx_lab::{Lab, netns};
use manx_netns::{Stored, host_device};
use serde_json::{Value, json};

use crate::runtime::{Runtime, cluster};

const HOST_PORT: u16 = 8080;

/// The list that Calico's installer writes, with bandwidth as it was there once.
fn chained<'a>(lab: &'a Lab, version: &str) -> Runtime<'a> {
    Runtime::new(lab).version(version).chained(&[
        json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }),
        json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
    ])
}

fn capabilities() -> Value {
    let mapping = json!({ "hostPort": HOST_PORT, "containerPort": 80, "protocol": "tcp" });
    let rate = json!({ "ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000,
        "egressBurst": 8_000_000 });
    json!({ "portMappings": [mapping], "bandwidth": rate })
}

/// What the pod's port 80 says to who connects to the node's port.
fn served(lab: &Lab, pod: &str, node: Ipv4Addr) -> String {
    let listener = netns::within(&lab.netns(pod), || TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
    let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"meow").unwrap());
    let address = SocketAddrV4::new(node, HOST_PORT).into();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(10));
    let mut client = netns::within(&lab.netns("node1"), connect).unwrap().unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    server.join().unwrap();
    said
}

#[test]
fn portmap_and_bandwidth_find_in_our_result_what_they_need() {
    let cluster = cluster();
    let lab = cluster.lab();
    let node = lab.node("node1").unwrap();
    for (index, version) in ["0.3.1", "0.4.0", "1.0.0"].into_iter().enumerate() {
        let runtime = chained(lab, version);
        let pod = runtime.sandbox(&format!("pod{index}"));
        let device = host_device("default", &pod.pod);
        let result = runtime.ask("ADD", &pod, capabilities()).ok().unwrap();
        assert_eq!(result["interfaces"][0]["name"], json!(device), "{result}");
        assert_eq!(result["ips"][0]["interface"], 1, "{result}");
        assert_eq!(served(lab, &pod.pod, node.address()), "meow", "{version}");
        let shaped = node.exec(&["tc", "qdisc", "show", "dev", &device]).unwrap();
        assert!(shaped.contains("tbf") && shaped.contains("8Mbit"), "{shaped}");
        if version != "0.3.1" {
            // Debian's portmap cannot CHECK a pod without IPv6 (containernetworking/plugins issue 819).
            let mut checked = chained(lab, version);
            checked.list["plugins"].as_array_mut().unwrap().remove(1);
            checked.ask("CHECK", &pod, capabilities()).ok().unwrap();
        }
        for _ in 0..2 {
            runtime.ask("DEL", &pod, capabilities()).ok().unwrap();
            assert!(!node.exec(&["iptables-save", "-t", "nat"]).unwrap().contains("DNAT --to"), "{version}");
            assert!(!node.exec(&["ip", "link"]).unwrap().contains(&device), "{version}");
        }
    }
    assert!(Stored::read(&cluster.datastore()).unwrap().held().unwrap().is_empty());
}

#[test]
fn a_chain_that_breaks_behind_us_leaves_nothing_after_the_runtimes_del() {
    let cluster = cluster();
    let runtime = chained(cluster.lab(), "1.0.0");
    let pod = runtime.sandbox("cat");
    let wrong = json!({ "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 0 } });
    assert!(runtime.ask("ADD", &pod, wrong.clone()).code().is_some());
    assert_eq!(Stored::read(&cluster.datastore()).unwrap().held().unwrap().len(), 1);
    runtime.ask("DEL", &pod, json!({})).ok().unwrap();
    assert!(Stored::read(&cluster.datastore()).unwrap().held().unwrap().is_empty());
    assert!(!cluster.lab().exec("node1", &["ip", "link"]).unwrap().contains("cali"));
}

#[test]
fn what_the_runtime_asks_for_by_capability_is_given_refused_or_listed_but_never_ignored() {
    let cluster = cluster();
    let mut runtime = Runtime::new(cluster.lab());
    runtime.list["plugins"][0]["capabilities"] = json!({ "ips": true, "mac": true, "bandwidth": true });
    let pod = runtime.sandbox("cat");
    let refused = runtime.ask("ADD", &pod, json!({ "ips": ["10.250.0.9/24"] }));
    assert_eq!(refused.code(), Some(101), "{refused:?}");
    assert!(refused.field("error")["details"].as_str().unwrap().contains("10.250.0.9"), "{refused:?}");

    let wishes = json!({ "ips": ["192.168.7.9/32"], "mac": "02:00:00:00:00:01", "bandwidth": { "ingressRate": 1000 } });
    let given = runtime.ask("ADD", &pod, wishes).ok().unwrap();
    assert_eq!(given["ips"][0]["address"], "192.168.7.9/32", "{given}");
    assert_eq!(given["interfaces"][1]["mac"], "02:00:00:00:00:01", "{given}");
    let status = cluster.status("node1").unwrap();
    assert!(status["problems"].to_string().contains("capability bandwidth"), "{}", status["problems"]);
}
