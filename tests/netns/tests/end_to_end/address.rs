//! How a node finds its address, and what happens when it moves or is another node's.

use anyhow::ensure;
use manx_lab::{Topology, eventually};

use crate::support::{NO_BGP, SOON, assert_problem, cluster};

const FOUND: [(&str, &str); 3] = [
    ("IP", "autodetect"),
    ("IP_AUTODETECTION_METHOD", "skip-interface=wan.*"),
    ("AUTODETECT_POLL_INTERVAL", "1s"),
];

#[test]
fn a_node_finds_its_address_by_the_method_that_it_is_given_and_starts_anew_when_it_has_moved() {
    let [ip, method, poll] = FOUND;
    let mut cluster = cluster(Topology::one_subnet(1), &[NO_BGP, ip, method, poll]);
    let address = cluster.lab().node("node1").unwrap().address();
    let says = |cluster: &manx_lab::Cluster| cluster.status("node1").unwrap()["address"].to_string();
    assert_eq!(says(&cluster), format!("\"{address}/24\""));

    let run = |cluster: &manx_lab::Cluster, command: &str| {
        cluster.lab().exec("node1", &command.split(' ').collect::<Vec<_>>()).unwrap();
    };
    for command in ["link add wan0 type bridge", "link set wan0 up", "addr add 203.0.113.7/28 dev wan0"] {
        run(&cluster, &format!("ip {command}"));
    }
    run(&cluster, "ip addr add 198.51.100.7/24 dev eth0");
    run(&cluster, &format!("ip addr del {address}/24 dev eth0"));
    let ended = cluster.agent("node1").unwrap().wait(SOON).unwrap();
    assert_eq!(ended.code(), Some(1), "{}", cluster.agent("node1").unwrap().log());
    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    assert_eq!(says(&cluster), "\"198.51.100.7/24\"");
}

#[test]
fn a_node_that_has_anothers_address_says_so_and_waits_unless_that_is_allowed() {
    let mut cluster = cluster(Topology::one_subnet(2), &[NO_BGP]);
    let taken = cluster.lab().node("node1").unwrap().address().to_string();
    cluster.lab().exec("node2", &["ip", "addr", "add", &format!("{taken}/32"), "dev", "lo"]).unwrap();
    let again = |cluster: &mut manx_lab::Cluster, env: &[(&str, &str)]| {
        let program = cluster.agent_program("node2", env).unwrap();
        let agent = cluster.agent("node2").unwrap();
        agent.kill().unwrap();
        agent.set_program(program);
        agent.start_again().unwrap();
    };
    again(&mut cluster, &[NO_BGP, ("IP", &taken)]);
    eventually(SOON, "the new agent to answer", || {
        ensure!(cluster.status("node2")?["ready"] == false, "it is the old one");
        Ok(())
    })
    .unwrap();
    assert_problem(&cluster, "node2", &["Node node1 has the address", &taken]);
    again(&mut cluster, &[NO_BGP, ("IP", &taken), ("DISABLE_NODE_IP_CHECK", "true")]);
    cluster.wait_ready("node2").unwrap();
}
