//! Between plain BGP and IP-in-IP, on a kernel that has it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{AGENTS, KubeCluster, KubePod, eventually, slowness};

use crate::traffic::during;
use crate::uninstall::nothing_is_left;
use crate::{installed, turn};

/// In two subnets.
const NODES: [&str; 2] = ["node1", "node3"];
const PATIENCE: Duration = Duration::from_secs(60);
/// The MTU of a pod (1500 less the outer header) less the headers of IP and TCP and the time stamps (RFC 7323).
const FULL_SEGMENT: u32 = 1480 - 20 - 20 - 12;
const BYTES: usize = 256 << 10;

#[test]
fn ipip_helm_upgrade_takes_a_cluster_out_of_the_tunnel_and_into_it_and_no_packet_is_lost() {
    let _turn = turn();
    let mut cluster = installed(&NODES, &NODES).unwrap();
    let pods = cluster.web().unwrap();
    let [one, other] = &pods[..] else { panic!("{pods:?}") };
    wait_mode(&cluster, &pods, "CrossSubnet").unwrap();
    cluster.reach_everything(&pods).unwrap();
    for (from, to) in [(one, other), (other, one)] {
        let sent = cluster.lab().tcp_transfer(&from.name, &to.name, to.address, BYTES).unwrap();
        assert_eq!(sent.segment, FULL_SEGMENT);
    }

    // Between two subnets the one is what the other is, and in an emulated cluster a switch takes minutes.
    let tunnelled: &[&str] = if slowness() > 1 { &["CrossSubnet"] } else { &["Always", "CrossSubnet"] };
    for mode in ["Never"].iter().chain(tunnelled) {
        during(&mut cluster, &pods, mode, |cluster| switch(cluster, &pods, mode)).unwrap();
    }

    // With the tunnel in use.
    cluster.upgrade("uninstall=true").unwrap();
    let seen = cluster.source_seen(&one.name, &other.name, other.address).unwrap();
    assert_eq!(seen, one.address, "pods that still run keep their network");
    cluster.install_ptp().unwrap();
    pods.iter().try_for_each(|pod| cluster.detach(pod)).unwrap();
    cluster.kubectl(&["delete", "deployment", "web"]).unwrap();
    cluster.kubectl(&["delete", "deployment", "coredns", "-n", AGENTS]).unwrap();
    for node in NODES {
        let what = format!("nothing of Manx to be left on {node}");
        eventually(PATIENCE, &what, || nothing_is_left(&cluster, node)).unwrap();
    }
}

/// As the administrator does it. Each agent is replaced, one after the other; the first of the new ones changes the pool.
fn switch(cluster: &KubeCluster, pods: &[KubePod], mode: &str) -> Result<()> {
    cluster.upgrade(&format!("env.CALICO_IPV4POOL_IPIP={mode}"))?;
    wait_mode(cluster, pods, mode)?;
    pods.iter().try_for_each(|pod| {
        eventually(PATIENCE, &format!("the agent of {} to be content", pod.node), || {
            let said = cluster.manx(&pod.node, &["status"])?;
            ensure!(!said.contains("Problems:"), "{said}");
            Ok(())
        })
    })
}

/// Waits until the pool has the mode, and each of the nodes, which are in different subnets, sends by the way that it asks for.
fn wait_mode(cluster: &KubeCluster, pods: &[KubePod], mode: &str) -> Result<()> {
    let [one, other] = pods else { anyhow::bail!("two pods are needed") };
    let pool = "/apis/crd.projectcalico.org/v1/ippools/default-ipv4-ippool";
    eventually(PATIENCE, &format!("the mode {mode}"), || {
        let found = cluster.object(pool)?["spec"]["ipipMode"].as_str().context("no mode")?.to_owned();
        ensure!(found == mode, "the pool's is {found}");
        for (from, to) in [(one, other), (other, one)] {
            let way = cluster.lab().exec(&from.node, &["ip", "route", "get", &to.address.to_string()])?;
            let tunnel = mode != "Never";
            ensure!(way.contains(" dev tunl0 ") == tunnel, "{} sends {way}", from.node);
        }
        Ok(())
    })
}
