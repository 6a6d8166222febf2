//! Manx goes, and another network comes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{AGENTS, KubeCluster, SERVICE, eventually};

use crate::{installed, turn};

const NODES: [&str; 2] = ["node1", "node3"];
const PATIENCE: Duration = Duration::from_secs(60);
const CONFLIST: &str = "/etc/cni/net.d/10-manx.conflist";
const PLUGIN: &str = "/opt/cni/bin/manx-cni";

#[test]
fn what_carries_pods_stays_until_they_have_gone_and_then_another_network_works() {
    let _turn = turn();
    let cluster = installed(&NODES, &NODES).unwrap();
    let pods = cluster.web().unwrap();
    let [one, other] = &pods[..] else { panic!("{pods:?}") };
    for node in NODES {
        assert!(there(&cluster, node, CONFLIST).unwrap() && there(&cluster, node, PLUGIN).unwrap());
    }

    cluster.upgrade("uninstall=true").unwrap();
    for pod in &pods {
        let log = log(&cluster, &pod.node).unwrap();
        assert!(log.contains(CONFLIST) && log.contains("cali"), "what is removed and kept is named: {log}");
        assert!(!there(&cluster, &pod.node, CONFLIST).unwrap());
    }
    let seen = cluster.source_seen(&one.name, &other.name, other.address).unwrap();
    assert_eq!(seen, one.address, "pods that still run keep their network");

    cluster.install_ptp().unwrap();
    cluster.wait_ready().unwrap();
    for pod in &pods {
        cluster.detach(pod).unwrap();
    }
    cluster.kubectl(&["delete", "pods", "--all", "--timeout=60s"]).unwrap();
    cluster.kubectl(&["delete", "pods", "-n", AGENTS, "-l", "k8s-app=kube-dns", "--timeout=60s"]).unwrap();
    for node in NODES {
        eventually(PATIENCE, &format!("nothing of Manx to be left on {node}"), || {
            nothing_is_left(&cluster, node)
        })
        .unwrap();
    }
    cluster.helm(&["uninstall", "manx", "--wait"]).unwrap();
    let objects = ["get", "daemonsets,serviceaccounts,clusterroles,roles,bgppeers", "-A", "-o", "name"];
    let objects = cluster.kubectl(&objects).unwrap();
    assert!(!objects.contains("manx") && !objects.contains("tor-"), "{objects}");

    cluster.wait_rolled_out(AGENTS, "deployment/coredns").unwrap();
    let pods = cluster.web().unwrap();
    let [one, other] = &pods[..] else { panic!("{pods:?}") };
    for (from, to) in [(one, other), (other, one)] {
        assert_eq!(cluster.source_seen(&from.name, &to.name, to.address).unwrap(), from.address);
        cluster.get(&from.name, (SERVICE, 80).into()).unwrap();
    }
}

fn there(cluster: &KubeCluster, node: &str, path: &str) -> Result<bool> {
    let file = cluster.machine(node)?.own(path).with_context(|| format!("{path} is not the node's own"))?;
    Ok(file.exists())
}

fn log(cluster: &KubeCluster, node: &str) -> Result<String> {
    let name = cluster.agent(node)?.name;
    cluster.kubectl(&["-n", AGENTS, "logs", &name])
}

/// A node without pods of Manx has nothing of it.
pub(crate) fn nothing_is_left(cluster: &KubeCluster, node: &str) -> Result<()> {
    let say = |command: &[&str]| cluster.lab().exec(node, command);
    for (what, found) in [
        ("links", say(&["ip", "-o", "link"])?.contains(": cali").to_string()),
        ("addresses on the tunnel", say(&["ip", "-o", "address"])?.contains(" tunl0 ").to_string()),
        ("routes", (!say(&["ip", "route", "show", "table", "all", "proto", "77"])?.is_empty()).to_string()),
        ("a table of nftables", say(&["nft", "list", "tables"])?.contains("manx").to_string()),
        ("its plugin", there(cluster, node, PLUGIN)?.to_string()),
        ("its configuration", there(cluster, node, CONFLIST)?.to_string()),
    ] {
        ensure!(found == "false", "there are {what}");
    }
    Ok(())
}
