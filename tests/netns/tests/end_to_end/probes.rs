//! Probes and metrics, as kubelet and Prometheus ask for them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Cluster, Topology, eventually, netns};

use crate::support::{SOON, cluster};

const LISTENING: [(&str, &str); 4] = [
    ("FELIX_HEALTHENABLED", "true"),
    ("FELIX_PROMETHEUSMETRICSENABLED", "true"),
    ("FELIX_PROMETHEUSMETRICSPORT", "9095"),
    ("CALICO_IPV4POOL_IPIP", "Never"),
];

/// What `node` answers to `GET path` on one of its own ports: status and text.
fn get(cluster: &Cluster, node: &str, port: u16, path: &str) -> Result<(u16, String)> {
    let ask = || -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = netns::within(&cluster.lab().netns(node), ask)??;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP")?;
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, text)| text.to_owned()).unwrap_or_default()))
}

fn assert_answers(cluster: &Cluster, path: &str, status: u16, words: &[&str]) {
    eventually(SOON, &format!("{path} to answer {status} with {words:?}"), || {
        let (found, text) = get(cluster, "node1", 9099, path)?;
        ensure!(found == status && words.iter().all(|word| text.contains(word)), "{found}: {text}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_node_is_ready_while_it_serves_a_peer_that_is_away_is_shown_and_prometheus_is_told() {
    let mut cluster = cluster(Topology::one_subnet(2), &LISTENING);
    cluster.lab().pod_add("node1", "cat", "default").unwrap();
    cluster.wait_converged().unwrap();
    assert_answers(&cluster, "/livez", 200, &["[+] node loop: ok", "[+] route loop: ok"]);
    assert_answers(&cluster, "/readyz?bgp=all", 200, &["[+] datastore: ok", "[+] kernel: ok", "[+] bgp: ok"]);

    let (status, text) = get(&cluster, "node1", 9095, "/metrics").unwrap();
    assert_eq!(status, 200, "{text}");
    for line in [
        "felix_active_local_endpoints 1",
        "felix_cluster_num_hosts 2",
        "felix_resync_state 3",
        "manx_bgp_peers{kind=\"mesh\",state=\"Established\"} 1",
        "manx_cni_request_duration_seconds_count{code=\"0\",verb=\"ADD\"} 1",
        "manx_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }
    assert_eq!(get(&cluster, "node1", 9095, "/livez").unwrap(), (404, "here is /metrics\n".to_owned()));
    assert_eq!(get(&cluster, "node1", 9099, "/readyz?bgp=most").unwrap().0, 400);

    cluster.agent("node2").unwrap().kill().unwrap();
    assert_answers(&cluster, "/readyz?bgp=any", 503, &["[-] bgp: 0 of 1 sessions established; Mesh_"]);
    assert_answers(
        &cluster,
        "/readyz",
        200,
        &["[+] bgp: 0 of 1 sessions established", "(not asked for)\nok"],
    );
}

#[test]
fn a_felix_configuration_opens_moves_and_closes_the_ports_of_a_running_agent() {
    let cluster = cluster(Topology::one_subnet(1), &[]);
    let configure = |spec: &str| {
        let text = format!(
            "apiVersion: crd.projectcalico.org/v1\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {spec}\n"
        );
        cluster.write_manifest("felixconfigurations", "default", &text).unwrap();
    };
    let closed = |port: u16| {
        eventually(SOON, &format!("port {port} to be closed"), || {
            ensure!(get(&cluster, "node1", port, "/livez").is_err(), "it answers");
            Ok(())
        })
        .unwrap();
    };
    closed(9099);
    configure("{healthEnabled: true}");
    assert_answers(&cluster, "/livez", 200, &["ok"]);
    configure("{healthEnabled: true, healthPort: 9100}");
    closed(9099);
    assert_eq!(get(&cluster, "node1", 9100, "/livez").unwrap().0, 200);
    configure("{healthEnabled: false, healthPort: 9100}");
    closed(9100);
}
