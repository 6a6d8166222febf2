//! What the demo tells beside its story when the objects are in Kubernetes: who makes them, and how kubectl shows them.

use std::fmt::Write as _;

use anyhow::Result;
use manx_lab::{Cluster, Lab};

use super::{chapter, indented, say};

/// The pool, as a user of Calico writes it.
const POOL: &str = "\
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: default-ipv4-ippool
spec:
  cidr: 192.168.0.0/16
  ipipMode: Always
";

/// A control plane, the objects that a user applies, and then an agent on every node.
pub(super) fn begin(lab: Lab) -> Result<Cluster> {
    say(
        "On the host outside run a real kube-apiserver and etcd. Every node is registered, and none runs an agent yet:",
    );
    let mut cluster = Cluster::on_kubernetes(lab)?;
    kubectl(&cluster, &["get", "nodes"])?;
    say("A pool for the pods, and the router as a BGP peer of every node, are applied with kubectl:");
    let peers = cluster.tor_peers()?;
    let first = peers.split("---\n").next().unwrap_or_default();
    indented(&format!("{POOL}---\n{first}--- (and one for each other node)\n"));
    indented(&cluster.control_plane()?.apply(&format!("{POOL}---\n{peers}"))?);
    cluster.start_agents(&cluster.node_names(), &[])?;
    Ok(cluster)
}

/// What IPAM and the pods look like.
pub(super) fn objects(cluster: &Cluster) -> Result<()> {
    say("Which node has which block of addresses:");
    kubectl(cluster, &["get", "ippools,ipamblocks,blockaffinities"])?;
    say("The pods are objects, too:");
    kubectl(cluster, &["get", "pods", "-o", "wide"])
}

/// Takes the pods away and shows that nothing of them is left.
pub(super) fn end(cluster: &Cluster) -> Result<()> {
    chapter("The pods go");
    for pod in cluster.lab().pods()? {
        cluster.pod_del(&pod.name)?;
    }
    say(
        "Their addresses are given back. Held are only those of the tunnels, which take packets for a minute more:",
    );
    kubectl(cluster, &["get", "pods,ipamhandles"])?;
    kubectl(cluster, &["get", "ipamblocks"])
}

/// Runs kubectl where the reader could, too, and shows what it said.
pub(super) fn kubectl(cluster: &Cluster, args: &[&str]) -> Result<()> {
    println!("    $ kubectl {}", args.join(" "));
    let answer = cluster.control_plane()?.kubectl(args)?;
    // kubectl says to its standard error that there is nothing.
    indented(if answer.is_empty() { "(nothing)" } else { &answer });
    Ok(())
}

/// For those who keep the cluster.
pub(super) fn look_around(kubectl: &str) -> String {
    let mut text = String::new();
    let wide = "get ippools,ipamblocks,blockaffinities,bgppeers";
    for (command, what) in [
        (wide.to_owned(), ""),
        (
            "patch ippool default-ipv4-ippool --type merge -p '{\"spec\":{\"ipipMode\":\"CrossSubnet\"}}'"
                .to_owned(),
            "",
        ),
        ("get nodes -o yaml".to_owned(), "   what the agents publish"),
    ] {
        let _ = writeln!(text, "    {kubectl} {command}{what}");
    }
    text
}
