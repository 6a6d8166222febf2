//! What happens to a cluster in the course of years, while packets flow between pods that have nothing to do with it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{AGENTS, KubeCluster, PORT, eventually};

use crate::traffic::during;
use crate::{installed, turn};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn whatever_is_restarted_killed_added_or_removed_no_packet_between_other_pods_is_lost() {
    let _turn = turn();
    let mut cluster = installed(&["node1", "node2", "node3"], &["node1", "node3"]).unwrap();
    let pods = cluster.web().unwrap();
    during(&mut cluster, &pods, "a rolling restart of the agents", restart_agents).unwrap();
    during(&mut cluster, &pods, "the deletion of an agent's pod", delete_an_agent).unwrap();
    during(&mut cluster, &pods, "kill -9 of a kubelet", kill_kubelet).unwrap();
    during(&mut cluster, &pods, "kill -9 of a containerd", kill_containerd).unwrap();
    during(&mut cluster, &pods, "a third node", add_a_node).unwrap();
    during(&mut cluster, &pods, "the end of the third node", remove_a_node).unwrap();
    cluster.reach_everything(&pods).unwrap();

    cluster.kubectl(&["delete", "deployment", "web"]).unwrap();
    eventually(PATIENCE, "every address to be given back", || nobody_holds_one(&cluster)).unwrap();
}

fn restart_agents(cluster: &mut KubeCluster) -> Result<()> {
    cluster.kubectl(&["-n", AGENTS, "rollout", "restart", "daemonset/manx"])?;
    cluster.wait_rolled_out(AGENTS, "daemonset/manx")?;
    visit(cluster, "node1")
}

fn delete_an_agent(cluster: &mut KubeCluster) -> Result<()> {
    let before = cluster.agent("node1")?;
    cluster.kubectl(&["-n", AGENTS, "delete", "pod", &before.name, "--grace-period=0", "--force"])?;
    eventually(PATIENCE, "another agent on node1", || {
        let now = cluster.agent("node1")?;
        ensure!(now.uid != before.uid, "it is still {}", now.name);
        Ok(())
    })?;
    visit(cluster, "node1")
}

fn kill_kubelet(cluster: &mut KubeCluster) -> Result<()> {
    let kubelet = cluster.machine_mut("node3")?.kubelet();
    kubelet.kill()?;
    kubelet.start_again()?;
    visit(cluster, "node3")
}

fn kill_containerd(cluster: &mut KubeCluster) -> Result<()> {
    let machine = cluster.machine_mut("node3")?;
    machine.containerd().kill()?;
    machine.containerd().start_again()?;
    machine.wait_for_containerd()?;
    visit(cluster, "node3")
}

fn add_a_node(cluster: &mut KubeCluster) -> Result<()> {
    cluster.add_node("node2")?;
    cluster.wait_ready()?;
    visit(cluster, "node2")
}

fn remove_a_node(cluster: &mut KubeCluster) -> Result<()> {
    let claimed = || blocks(cluster, "node2");
    ensure!(claimed()? > 0, "node2 has no block, so that none could be given back");
    cluster.kubectl(&["drain", "node2", "--ignore-daemonsets", "--force", "--timeout=60s"])?;
    cluster.remove_node("node2")?;
    // The collector takes them in its own time; a person need not wait for it.
    eventually(PATIENCE, "the blocks of node2 to be given back", || {
        let said = cluster.manx("node1", &["ipam", "check", "--fix"]);
        let left = blocks(cluster, "node2")?;
        ensure!(left == 0, "it still has {left}: {said:?}");
        Ok(())
    })
}

/// How many blocks a node has.
fn blocks(cluster: &KubeCluster, node: &str) -> Result<usize> {
    let affinities = cluster.object("/apis/crd.projectcalico.org/v1/blockaffinities")?;
    let affinities = affinities["items"].as_array().context("no list of affinities")?;
    Ok(affinities.iter().filter(|affinity| affinity["spec"]["node"] == node).count())
}

/// A new pod comes to a node, answers, and goes: what has just been restarted does its work.
fn visit(cluster: &KubeCluster, node: &str) -> Result<()> {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: visitor, labels: {{app: visitor}}}}\nspec:\n  \
         nodeSelector: {{kubernetes.io/hostname: {node}}}\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - name: web\n    image: localhost/busybox:1\n    imagePullPolicy: Never\n    \
         command: [sh, -c, \"echo welcome > /tmp/index.html; exec httpd -f -p {PORT} -h /tmp\"]\n    \
         readinessProbe: {{httpGet: {{path: /, port: {PORT}}}, periodSeconds: 1}}\n"
    );
    cluster.control_plane().apply(&manifest)?;
    let visitors = cluster.pods("default", "app=visitor")?;
    let visitor = visitors.first().context("no visitor")?;
    // The router learns of a new block a moment later.
    let answer = eventually(PATIENCE, "an answer to the host outside", || {
        cluster.get("outside", (visitor.address, PORT).into())
    })?;
    ensure!(answer == "welcome", "the visitor of {node} says {answer}");
    cluster.kubectl(&["delete", "pod", "visitor", "--timeout=60s"]).map(drop)
}

/// Held are only the addresses of what still runs, of pods that of DNS.
fn nobody_holds_one(cluster: &KubeCluster) -> Result<()> {
    cluster.manx("node1", &["ipam", "check"])?;
    let handles = cluster.object("/apis/crd.projectcalico.org/v1/ipamhandles")?;
    let handles = handles["items"].as_array().context("no list of handles")?;
    let ids: Vec<&str> = handles.iter().filter_map(|handle| handle["spec"]["handleID"].as_str()).collect();
    let pods = ids.iter().filter(|id| id.starts_with("k8s-pod-network.")).count();
    ensure!(pods == 1, "DNS has an address, and these are held: {ids:?}");
    Ok(())
}
