//! What is told and what is taken: pools that are not told, BGPFilters, communities.

use anyhow::ensure;
use manx_lab::{Cluster, Lab, eventually};
use serde_json::json;

use super::tor::{heard, up_since, wait_heard, wait_told};
use super::{apply, block, patch, pod_of_pool};
use crate::support::{SOON, assert_everybody_reaches_everybody, founding};

const POOLS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: hidden}
spec: {cidr: 10.44.0.0/16, natOutgoing: false, disableBGPExport: true}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: second}
spec: {cidr: 10.45.0.0/16, natOutgoing: false}
";

const FILTER: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPFilter
metadata: {name: tor}
spec:
  exportV4:
    - {action: Reject, cidr: 10.45.0.0/16, matchOperator: In}
    - action: Accept
      cidr: 192.168.0.0/16
      matchOperator: In
      operations:
        - addCommunity: {value: '64512:99'}
        - prependASPath: {prefix: [64512, 64512]}
  importV4:
    - {action: Reject, cidr: 10.99.0.0/24, matchOperator: Equal}
";

/// What the ToR tells all nodes.
const OUTSIDE: &str = "10.99.0.0/24 via 172.171.5.1 dev eth0 proto 77";

const COMMUNITIES: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec:
  communities: [{name: rack, value: '64512:7'}]
  prefixAdvertisements: [{cidr: 192.168.0.0/16, communities: [rack, '64512:8', '64512:1:2']}]
";

fn wait_route(lab: &Lab, node: &str, route: &str, there: bool) {
    eventually(SOON, &format!("{route} on {node}: {there}"), || {
        let routes = lab.routes(node)?;
        ensure!(routes.iter().any(|found| found == route) == there, "{routes:#?}");
        Ok(())
    })
    .unwrap();
}

fn pools() -> (Cluster, Lab) {
    let cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    apply(&cluster, POOLS);
    for pool in ["hidden", "second"] {
        eventually(SOON, "the pool to be known", || {
            let pools = cluster.status("node1")?["pools"].to_string();
            ensure!(pools.contains(pool), "{pools}");
            Ok(())
        })
        .unwrap();
        pod_of_pool(&cluster, "node1", &format!("pod-{pool}"), pool);
    }
    (cluster, lab)
}

#[test]
fn filters_and_pools_that_are_not_told_decide_what_the_tor_hears_and_what_a_node_takes() {
    let (cluster, lab) = pools();
    let (first, second) = (block(&cluster, "node1", "192.168."), block(&cluster, "node1", "10.45."));
    let hidden = block(&cluster, "node1", "10.44.");
    wait_heard(&lab, &second, &["node1"]);
    assert!(heard(&lab, &hidden).unwrap().is_empty());
    let to_second = format!("{second} via 172.171.5.95 dev eth0 proto 77");
    wait_route(&lab, "node2", &to_second, true);
    assert!(
        !lab.routes("node2").unwrap().iter().any(|route| route.starts_with("10.44.")),
        "not in the mesh either"
    );

    let since = up_since(&lab, "node1").unwrap();
    apply(&cluster, FILTER);
    patch(&cluster, "bgppeer", "tor-node1", &json!({"filters": ["tor"]}));
    wait_heard(&lab, &second, &[]);
    wait_told(&lab, &first, "node1", &["(64512,99)", "BGP.as_path: 64512 64512 64512\n"]);
    wait_route(&lab, "node1", OUTSIDE, false);
    for (node, route) in [("node2", OUTSIDE), ("node2", &to_second)] {
        wait_route(&lab, node, route, true);
    }
    wait_told(&lab, &block(&cluster, "node2", "192.168."), "node2", &["BGP.as_path: 64512\n"]);

    // A rule that changes acts at once; without the filter all is as it was.
    patch(&cluster, "bgpfilter", "tor", &json!({"exportV4": null}));
    wait_heard(&lab, &second, &["node1"]);
    wait_told(&lab, &first, "node1", &["BGP.as_path: 64512\n"]);
    patch(&cluster, "bgppeer", "tor-node1", &json!({"filters": null}));
    wait_route(&lab, "node1", OUTSIDE, true);
    assert_eq!(up_since(&lab, "node1").unwrap(), since, "the session was not touched");

    patch(&cluster, "ippool", "hidden", &json!({"disableBGPExport": false}));
    wait_heard(&lab, &hidden, &["node1"]);
    wait_route(&lab, "node2", &format!("{hidden} via 172.171.5.95 dev eth0 proto 77"), true);
    assert_everybody_reaches_everybody(&cluster);
}

#[test]
fn a_prefix_is_told_with_its_communities_and_a_filter_that_is_missing_lets_nothing_pass() {
    let cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    apply(&cluster, COMMUNITIES);
    let of = |node: &str| block(&cluster, node, "192.168.");
    for node in cluster.node_names() {
        wait_told(&lab, &of(&node), &node, &["(64512,7)", "(64512,8)", "(64512, 1, 2)"]);
    }
    patch(&cluster, "bgpconfiguration", "default", &json!({"prefixAdvertisements": null}));
    eventually(SOON, "the communities to go", || {
        let heard = heard(&lab, &of("node1"))?;
        ensure!(!heard["node1"].contains("community"), "{heard:?}");
        Ok(())
    })
    .unwrap();

    patch(&cluster, "bgppeer", "tor-node1", &json!({"filters": ["nowhere"]}));
    wait_heard(&lab, &of("node1"), &[]);
    wait_route(&lab, "node1", OUTSIDE, false);
    wait_heard(&lab, &of("node2"), &["node2"]);
    let problems = cluster.status("node1").unwrap()["problems"].to_string();
    assert!(
        problems.contains("BGPPeer tor-node1: spec.filters[0]: there is no BGPFilter nowhere"),
        "{problems}"
    );
}
