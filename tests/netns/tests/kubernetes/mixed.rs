//! Nodes of Calico's kind and ours in one cluster, over the same objects.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use manx_lab::{Cluster, Topology, eventually};
use manx_netns::calico::{Api, Bird, Ipam, Workload};
use serde_json::json;

use crate::support::{SOON, bare, peers, stored};

/// 128 addresses in 8 blocks: the pods below would need ten, so that nodes take addresses of another's.
const SMALL_POOL: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: small}
spec: {cidr: 192.168.7.0/25, blockSize: 28, ipipMode: Never, natOutgoing: false, nodeSelector: all()}
";
/// How many pods come to a node: of ours and of Calico's, one needs three blocks and the other two.
fn pods_of(node: &str) -> usize {
    if ["node2", "node4"].contains(&node) { 40 } else { 22 }
}

/// Ours are node1 and node4. Of each pair of addresses the order as text is not that as numbers.
fn topology() -> Topology {
    let mut topology = Topology::founding();
    for (node, last) in topology.nodes.iter_mut().zip([9, 10, 9, 10]) {
        let [a, b, c, _] = node.address.octets();
        node.address = Ipv4Addr::new(a, b, c, last);
    }
    topology
}

const OURS: [&str; 2] = ["node1", "node4"];
const CALICOS: [&str; 2] = ["node2", "node3"];

/// A node of Calico's: what it publishes, its BIRD, its IPAM.
struct CalicoNode {
    ipam: Ipam,
    bird: Bird,
}

impl CalicoNode {
    fn start(cluster: &Cluster, node: &str) -> CalicoNode {
        let lab = cluster.lab();
        let client = cluster.control_plane().unwrap().client();
        let address = format!("{}/24", lab.node(node).unwrap().address());
        let patch = json!({"metadata": {"annotations": {"projectcalico.org/IPv4Address": address}}});
        let answer =
            client.ask("PATCH", &format!("/api/v1/nodes/{node}/status"), &patch.to_string()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let bird = Bird::start(lab, node, &["192.168.7.0/25".parse().unwrap()]).unwrap();
        CalicoNode { ipam: Ipam::new(Api::new(client), node), bird }
    }

    fn check(&mut self) -> Result<()> {
        self.bird.set_blocks(&self.ipam.blocks()?)?;
        self.bird.check_sessions()
    }
}

/// A pod of either kind: its name and its address.
type Attached = (String, Ipv4Addr);

fn name(node: &str, index: usize) -> String {
    format!("{node}-{index}")
}

/// Every node brings its pods, all nodes at once.
fn attach_all(cluster: &Cluster, calicos: &[(&str, Ipam)]) -> Vec<Vec<Attached>> {
    let lab = cluster.lab();
    let kubelet = cluster.kubelet().unwrap();
    let ours = |node: &str, index: usize| {
        let pod = name(node, index);
        let attached = eventually(SOON, "an ADD", || kubelet.add(node, &pod, "default")).unwrap();
        (pod, attached.address)
    };
    let theirs = |node: &str, ipam: &Ipam, index: usize| {
        let pod = name(node, index);
        kubelet.create(node, &pod, "default").unwrap();
        let address = Workload::attach(lab, ipam, node, &pod).unwrap().address;
        (pod, address)
    };
    let (ours, theirs) = (&ours, &theirs);
    std::thread::scope(|scope| {
        let mut nodes = Vec::new();
        for node in OURS {
            nodes.push(scope.spawn(move || (0..pods_of(node)).map(|index| ours(node, index)).collect()));
        }
        for (node, ipam) in calicos {
            nodes.push(
                scope.spawn(move || (0..pods_of(node)).map(|index| theirs(node, ipam, index)).collect()),
            );
        }
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    })
}

/// The addresses that are held by pods of another node than that whose block they are of.
fn borrowed(cluster: &Cluster) -> BTreeSet<Ipv4Addr> {
    let stored = stored(cluster).unwrap();
    let held = stored.held().unwrap();
    let node_of = |handle: &str| {
        let attributes = stored.blocks.iter().flat_map(|block| &block.attributes);
        let found = attributes.into_iter().find(|owner| owner.handle_id.as_deref() == Some(handle));
        found.and_then(|owner| owner.secondary.get("node").cloned())
    };
    let is_borrowed = |address: &Ipv4Addr, handle: &str| {
        let block = stored.blocks.iter().find(|block| block.cidr.contains(&IpAddr::V4(*address))).unwrap();
        let owner = block.affinity.clone().unwrap_or_default();
        owner.strip_prefix("host:") != node_of(handle).as_deref()
    };
    held.into_iter()
        .filter(|(address, handle)| is_borrowed(address, handle))
        .map(|(address, _)| address)
        .collect()
}

#[test]
fn nodes_of_calico_and_ours_take_addresses_at_once_without_collision_and_all_their_pods_reach_each_other() {
    let mut cluster = bare(topology());
    let objects = format!("{SMALL_POOL}---\n{}", peers(&cluster));
    cluster.control_plane().unwrap().apply(&objects).unwrap();
    let mut calicos = CALICOS.map(|node| CalicoNode::start(&cluster, node));
    cluster.start_agents(&OURS, &[("NO_DEFAULT_POOLS", "true")]).unwrap();
    eventually(SOON, "all sessions of BIRD", || calicos.iter_mut().try_for_each(CalicoNode::check)).unwrap();

    let ipams = [(CALICOS[0], calicos[0].ipam.clone()), (CALICOS[1], calicos[1].ipam.clone())];
    let pods: Vec<Vec<Attached>> = attach_all(&cluster, &ipams);
    let addresses: BTreeSet<Ipv4Addr> = pods.iter().flatten().map(|(_, address)| *address).collect();
    assert_eq!(addresses.len(), pods.iter().map(Vec::len).sum::<usize>(), "an address is given twice");
    eventually(SOON, "IPAM to fit together", || {
        let stored = stored(&cluster)?;
        stored.audit()?;
        anyhow::ensure!(stored.held()?.into_keys().collect::<BTreeSet<_>>() == addresses, "{stored:?}");
        Ok(())
    })
    .unwrap();

    eventually(SOON, "all sessions of BIRD", || calicos.iter_mut().try_for_each(CalicoNode::check)).unwrap();
    let borrowed = borrowed(&cluster);
    assert!(!borrowed.is_empty(), "no node needed another's block");
    // The first and the last of each node, and what is borrowed.
    let ends = pods.iter().flat_map(|pods| [&pods[0], &pods[pods.len() - 1]]);
    let far = pods.iter().flatten().filter(|(_, address)| borrowed.contains(address)).take(6);
    let pinged: Vec<&Attached> = ends.chain(far).collect();
    for (from, _) in &pinged {
        for (to, address) in &pinged {
            let what = format!("{to} to answer {from}");
            eventually(SOON, &what, || cluster.lab().ping_once(from, *address)).unwrap();
        }
    }

    // All pods go, and nothing is left of them.
    for node in OURS {
        (0..pods_of(node)).for_each(|index| cluster.pod_del(&name(node, index)).unwrap());
    }
    for (node, ipam) in &ipams {
        for (pod, address) in pods.iter().flatten().filter(|(pod, _)| pod.starts_with(&format!("{node}-"))) {
            let workload = Workload { name: pod.clone(), node: (*node).to_owned(), address: *address };
            workload.detach(cluster.lab(), ipam).unwrap();
        }
    }
    let stored = stored(&cluster).unwrap();
    stored.audit().unwrap();
    stored.is_at_rest().unwrap();
}
