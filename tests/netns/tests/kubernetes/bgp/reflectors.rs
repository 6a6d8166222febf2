//! Route reflectors, named by annotation, and peers by selector, instead of the mesh.

use anyhow::ensure;
use manx_lab::eventually;

use super::{apply, kubectl, peers, pod_of_pool};
use crate::support::{SOON, assert_everybody_reaches_everybody, assert_routes, founding};

const OBJECTS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: clients}
spec: {nodeSelector: '!has(reflector)', peerSelector: has(reflector)}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: reflectors}
spec: {nodeSelector: has(reflector), peerSelector: has(reflector)}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: second}
spec: {cidr: 10.45.0.0/16, natOutgoing: false}
";

#[test]
fn with_the_mesh_off_two_reflectors_connect_all_pods_and_one_of_them_is_enough() {
    let mut cluster = founding("Never");
    for node in ["node2", "node3"] {
        kubectl(&cluster, &["annotate", "node", node, "projectcalico.org/RouteReflectorClusterID=244.0.0.1"]);
        kubectl(&cluster, &["label", "node", node, "reflector=yes"]);
    }
    apply(&cluster, OBJECTS);
    let address = |node: &str| cluster.lab().node(node).unwrap().address().to_string();
    let expected = |node: &str| {
        let others: &[&str] = match node {
            "node2" => &["node1", "node3", "node4"],
            "node3" => &["node1", "node2", "node4"],
            _ => &["node2", "node3"],
        };
        let tor = if ["node1", "node2"].contains(&node) { "172.171.5.1" } else { "172.171.6.1" };
        let mut all: Vec<String> = others.iter().map(|node| address(node)).collect();
        all.push(tor.to_owned());
        all.sort();
        all
    };
    eventually(SOON, "sessions with reflectors only", || {
        for node in cluster.node_names() {
            let found = peers(&cluster, &node)?;
            ensure!(found == expected(&node), "{node}: {found:?}");
        }
        Ok(())
    })
    .unwrap();
    assert_routes(&cluster, "Never");
    assert_everybody_reaches_everybody(&cluster);

    cluster.agent("node2").unwrap().kill().unwrap();
    let late = pod_of_pool(&cluster, "node1", "late", "second");
    eventually(SOON, "node4 to learn a new block by the other reflector", || {
        cluster.lab().ping_once("pod4", late.address)
    })
    .unwrap();
    assert_everybody_reaches_everybody(&cluster);
}
