//! `lab cluster`: a real Kubernetes without a network gets one by `helm install`, told to a person. Everything that is shown
//! is asked of the cluster while it happens.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use manx_lab::{
    AGENTS, Fabric, KubeCluster, KubePod, Lab, Options, Reached, Topology, eventually, manx_image, slowness,
};

use super::{chapter, indented, say};

/// Two nodes of the founding topology, one in each subnet.
const NODES: [&str; 2] = ["node1", "node3"];
const PATIENCE: Duration = Duration::from_secs(60);

const PICTURE: &str = "
       172.171.5.0/24                          172.171.6.0/24
  node1 .95 ───────────┐──── ToR router ───────┐─────────── node3 .95
  containerd, kubelet, │   BIRD, AS 65000      │  containerd, kubelet,
  kube-proxy           └────── 10.99.0.1 ──────┘  kube-proxy
                                   │
              a host outside, 10.99.0.10: etcd, kube-apiserver,
              kube-controller-manager, kube-scheduler";

/// A cluster, with Manx and something to reach in it unless it is to be empty, which is left up.
pub(crate) fn up(name: String, empty: bool) -> Result<()> {
    let begin = Instant::now();
    let tell = |what: &str| println!("{:5.1} s  {what}", begin.elapsed().as_secs_f64());
    tell("Raising the control plane, and two nodes with a router between them.");
    let cluster = raise(name)?;
    if empty {
        tell("The nodes have registered themselves, and have no network.");
    } else {
        tell("The nodes have registered themselves. Installing Manx with Helm.");
        cluster.install()?;
        cluster.wait_ready()?;
        tell("Both are Ready. Starting a web server on each.");
        cluster.web()?;
        tell("It answers.\n");
    }
    print!("{}", cluster.kubectl(&["get", "nodes,pods", "-A", "-o", "wide"])?);
    look_around(cluster)
}

/// The story; the cluster goes at its end unless `keep`.
pub(crate) fn run(name: String, keep: bool) -> Result<()> {
    chapter("A Kubernetes without a network");
    println!("{PICTURE}");
    say(
        "Two nodes, each a network and a mount namespace with a real containerd, kubelet and kube-proxy. This machine's own network is not touched.",
    );
    let cluster = raise(name)?;
    without_network(&cluster)?;
    install(&cluster)?;
    let pods = workload(&cluster)?;
    let ways = everybody(&cluster, &pods)?;
    the_wire(&cluster, &pods)?;
    let lost = disturbed(&cluster, &pods)?;
    chapter("helm test");
    println!("    $ helm test manx --namespace {AGENTS}");
    let seen = cluster.helm_test()?;
    indented(seen.split_once("NAME:").map_or(seen.as_str(), |(seen, _)| seen.trim_end()));
    chapter("What was seen");
    println!(
        "    {} ways between pods, services, DNS, the API server, nodes and the host outside, all open",
        ways.len()
    );
    println!("    {lost}\n");
    if keep { look_around(cluster) } else { Ok(()) }
}

fn raise(name: String) -> Result<KubeCluster> {
    let topology = Topology::founding().keeping(&NODES);
    ensure!(topology.fabric == Fabric::Bird, "the story needs a router that speaks BGP");
    KubeCluster::start(Lab::up(Options { name, topology })?, &NODES, &[manx_image()?])
}

fn without_network(cluster: &KubeCluster) -> Result<()> {
    kubectl(cluster, &["get", "nodes", "-o", "wide"])?;
    say("No node is ready, since there is nothing in /etc/cni/net.d. What its kubelet says:");
    let message = "jsonpath={.status.conditions[?(@.type==\"Ready\")].message}";
    kubectl(cluster, &["get", "node", NODES[0], "-o", message])
}

fn install(cluster: &KubeCluster) -> Result<()> {
    chapter("helm install");
    say("A pool for the pods, and the router as a BGP peer of each node; all else is the chart's default:");
    indented(&cluster.values()?);
    if !cluster.has_ipip() {
        say("(This kernel has no IP-in-IP, so the pool's mode is Never: plain BGP, everywhere.)");
    }
    println!("\n    $ helm install manx charts/manx --namespace {AGENTS} --values values.yaml");
    let begin = Instant::now();
    let notes = cluster.install()?;
    indented(notes.split_once("NOTES:").map_or(notes.as_str(), |(_, notes)| notes.trim_start()));
    cluster.wait_ready()?;
    say(&format!("Every node is Ready after {:.1} s:", begin.elapsed().as_secs_f64()));
    kubectl(cluster, &["get", "nodes"])?;
    kubectl(cluster, &["-n", AGENTS, "get", "pods", "-o", "wide"])
}

fn workload(cluster: &KubeCluster) -> Result<Vec<KubePod>> {
    chapter("A Deployment on both nodes");
    let pods = cluster.web()?;
    kubectl(cluster, &["get", "pods,services", "-o", "wide"])?;
    say("Which node has which block of the pool:");
    kubectl(cluster, &["get", "ippools,ipamblocks,bgppeers"])?;
    Ok(pods)
}

fn everybody(cluster: &KubeCluster, pods: &[KubePod]) -> Result<Vec<Reached>> {
    chapter("Who reaches whom");
    println!();
    let ways = cluster.reach_everything(pods)?;
    let width = ways.iter().map(|reached| reached.way.chars().count()).max().unwrap_or(0);
    for Reached { way, seen } in &ways {
        println!("    {way:width$}   {seen}");
    }
    Ok(ways)
}

fn the_wire(cluster: &KubeCluster, pods: &[KubePod]) -> Result<()> {
    let [one, other] = pods else { bail!("two pods are needed") };
    chapter("The way of a packet");
    say(&format!(
        "From {} to {}: the node's route, and the router's, learned by BGP from {}:",
        one.name, other.name, other.node
    ));
    let target = other.address.to_string();
    for place in [one.node.as_str(), "tor", other.node.as_str()] {
        println!("    {place}# ip route get {target}");
        let route = cluster.lab().exec(place, &["ip", "route", "get", &target])?;
        indented(route.lines().next().unwrap_or_default());
    }
    say("The mode of the pool, and what the agent says of itself:");
    let columns =
        "custom-columns=POOL:.metadata.name,CIDR:.spec.cidr,IPIP:.spec.ipipMode,NAT:.spec.natOutgoing";
    kubectl(cluster, &["get", "ippools", "-o", columns])?;
    println!("    $ kubectl -n {AGENTS} exec {} -- manx status", cluster.agent(&one.node)?.name);
    indented(&cluster.manx(&one.node, &["status"])?);
    Ok(())
}

/// Every agent is replaced while packets flow.
fn disturbed(cluster: &KubeCluster, pods: &[KubePod]) -> Result<String> {
    let [one, other] = pods else { bail!("two pods are needed") };
    chapter("A rolling restart of the agents");
    let interval = Duration::from_millis(if slowness() > 1 { 200 } else { 10 });
    say(&format!("A ping every {interval:?} runs from {} to {} meanwhile.", one.name, other.name));
    let ping = cluster.ping(one, other, interval)?;
    ping.wait_for_answers(PATIENCE, 10)?;
    kubectl(cluster, &["-n", AGENTS, "rollout", "restart", "daemonset/manx"])?;
    cluster.wait_rolled_out(AGENTS, "daemonset/manx")?;
    if cluster.has_ipip() {
        say("And then the mode goes from CrossSubnet, IP-in-IP between the subnets, to plain BGP:");
        println!("    $ helm upgrade manx charts/manx --reuse-values --set env.CALICO_IPV4POOL_IPIP=Never");
        cluster.upgrade("env.CALICO_IPV4POOL_IPIP=Never")?;
        eventually(PATIENCE, "the route to be plain", || {
            let route = cluster.lab().exec(&one.node, &["ip", "route", "get", &other.address.to_string()])?;
            ensure!(!route.contains("tunl0"), "it is {route}");
            Ok(())
        })?;
    }
    ping.wait_for_more(PATIENCE, 20)?;
    let report = ping.stop()?;
    let words =
        format!("{} pings sent while all agents were replaced, {} lost", report.sent, report.lost.len());
    say(&words);
    Ok(words)
}

fn kubectl(cluster: &KubeCluster, args: &[&str]) -> Result<()> {
    println!("    $ kubectl {}", args.join(" "));
    indented(&cluster.kubectl(args)?);
    println!();
    Ok(())
}

fn look_around(cluster: KubeCluster) -> Result<()> {
    let has_manx = cluster.helm(&["status", "manx"]).is_ok();
    let (name, tools) = (cluster.lab().name().to_owned(), cluster.control_plane().dir().to_owned());
    cluster.keep()?;
    let lab = format!("{} --lab {name}", std::env::current_exe()?.display());
    println!("\nThe cluster is left up. Look around:\n");
    println!("    {}/kubectl get pods -A -o wide", tools.display());
    if has_manx {
        println!("    {}/helm -n {AGENTS} test manx", tools.display());
    }
    println!("    {lab} shell node1            a shell on a node: ip route, tcpdump -ni eth0");
    println!("    {lab} exec tor ip route      what the router has learned");
    println!("    make cluster-down            take it all down\n");
    Ok(())
}
