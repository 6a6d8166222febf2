//! How a BGPPeer that is not on the way of the kernel's own routes is reached.

use anyhow::ensure;
use manx_lab::{Cluster, Topology, eventually};

use crate::support::{SOON, assert_problem, cluster};

/// A router far away, which `gateway` leads to.
fn peer(cluster: &Cluster, gateway: &str) {
    let manifest = format!(
        "apiVersion: crd.projectcalico.org/v1\nkind: BGPPeer\nmetadata: {{name: far}}\n\
         spec: {{node: node1, peerIP: 203.0.113.9, asNumber: 65009, reachableBy: {gateway}}}\n"
    );
    cluster.write_manifest("bgppeers", "far", &manifest).unwrap();
}

fn wait_route(cluster: &Cluster, wanted: Option<&str>) {
    eventually(SOON, &format!("the route to the peer: {wanted:?}"), || {
        let routes = cluster.lab().routes("node1")?;
        let found = routes.iter().find(|route| route.starts_with("203.0.113.9"));
        let as_wanted = match (found, wanted) {
            (Some(found), Some(wanted)) => found.contains(wanted) && found.contains("proto 77"),
            (found, wanted) => found.is_none() && wanted.is_none(),
        };
        ensure!(as_wanted, "{routes:#?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_peer_has_its_route_over_the_gateway_that_it_names_while_it_is_configured() {
    let mut cluster = cluster(Topology::one_subnet(2), &[]);
    let gateway = cluster.lab().node("node2").unwrap().address().to_string();
    peer(&cluster, &gateway);
    wait_route(&cluster, Some(&format!("via {gateway}")));
    cluster.lab().exec("node1", &["ip", "route", "del", "203.0.113.9"]).unwrap();
    wait_route(&cluster, Some(&format!("via {gateway}")));
    cluster.agent("node1").unwrap().kill().unwrap();
    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    wait_route(&cluster, Some(&format!("via {gateway}")));

    peer(&cluster, "198.51.100.1");
    assert_problem(&cluster, "node1", &["203.0.113.9", "reachableBy 198.51.100.1"]);
    peer(&cluster, &gateway);
    wait_route(&cluster, Some(&format!("via {gateway}")));
    std::fs::remove_file(cluster.datastore().join("bgppeers/far.yaml")).unwrap();
    wait_route(&cluster, None);
}
