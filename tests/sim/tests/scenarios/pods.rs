//! Pods that come and go, and blocks that run out.

use std::collections::BTreeSet;
use std::time::Duration;

use manx_cni::Code;
use manx_model::{DEFAULT_IPV4_POOL, Kind, veth_name};
use manx_sim::cluster::Cluster;
use manx_sim::kubelet::NAMESPACE;
use manx_sim::tor::TOR;
use manx_sim::trace::trace;
use serde_json::json;
use tokio::time::sleep;

use crate::{assert_well, cluster, now, written};

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_or_goes_changes_no_route_of_another() {
    let cluster = cluster(7, "CrossSubnet").await;
    cluster.guard();
    let begin = now(&cluster);
    // The block of n1 has room for these.
    (0..3).for_each(|number| cluster.nodes["n1"].kubelet.run(&format!("new{number}")));
    cluster.until("they run", || cluster.established().len() == 11).await;
    (0..3).for_each(|number| cluster.nodes["n1"].kubelet.end(&format!("new{number}")));
    assert_well(&cluster, "in the end").await;
    let old: BTreeSet<String> = cluster.established().iter().map(|(_, pod)| format!("{pod}/32")).collect();
    let touched: Vec<String> = written(&cluster, begin)
        .into_iter()
        .filter(|line| old.iter().any(|pod| line.contains(pod)))
        .collect();
    assert!(touched.is_empty(), "{touched:#?}");
}

/// Three nodes and a pool of two blocks, which the first two have.
async fn cluster_of_two_blocks(seed: u64, strict: bool) -> Cluster {
    let mut cluster = Cluster::new(seed, "Never");
    cluster.environment.insert("CALICO_IPV4POOL_CIDR".into(), "192.168.0.0/28".into());
    let config = json!({"strictAffinity": strict, "autoAllocateBlocks": true});
    cluster.put(Kind::IPAMConfig, "default", |object| object.spec = config).await;
    for number in 1..=3 {
        cluster.add_node(number).await;
        cluster.start(&format!("n{number}"));
    }
    for node in ["n1", "n2"] {
        cluster.nodes[node].kubelet.run(&format!("{node}p"));
    }
    cluster.until("two pods run", || cluster.established().len() == 2).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_node_for_which_no_block_is_left_borrows_an_address_and_every_node_reaches_it() {
    let mut cluster = cluster_of_two_blocks(10, false).await;
    cluster.nodes["n3"].kubelet.run("late");
    assert_well(&cluster, "with a borrowed address").await;
    let borrowed = cluster.nodes["n3"].kubelet.pods()["late"].clone().unwrap().address;
    for from in ["n1", "n2", TOR] {
        let way = trace(&cluster.net.world(), from, borrowed).unwrap();
        assert!(way.iter().any(|hop| hop.contains("n3")), "{way:?}");
    }
    cluster.kill("n3").await;
    cluster.start("n3");
    assert_well(&cluster, "after the borrower's agent was killed").await;
    cluster.nodes["n3"].kubelet.end("late");
    assert_well(&cluster, "when it is given back").await;
    assert!(trace(&cluster.net.world(), "n1", borrowed).is_err());
}

#[tokio::test(start_paused = true)]
async fn with_strict_affinity_a_pod_without_a_block_is_told_so_and_attached_when_a_block_is_free() {
    let cluster = cluster_of_two_blocks(10, true).await;
    cluster.nodes["n3"].kubelet.run("late");
    sleep(Duration::from_secs(60)).await;
    let refused = cluster.nodes["n3"].kubelet.last_error("late").unwrap();
    assert_eq!(refused.code, Code::NO_ADDRESS, "{refused}");
    assert!(refused.to_string().contains(DEFAULT_IPV4_POOL), "{refused}");
    let device = veth_name("cali", NAMESPACE, "late");
    let has_link = || cluster.net.world().machines["n3"].device(&device).is_some();
    cluster.until("nothing is left of its link", || !has_link()).await;
    let pool = json!({"cidr": "192.168.1.0/28", "blockSize": 29, "ipipMode": "Never"});
    cluster.put(Kind::IPPool, "more", |object| object.spec = pool).await;
    assert_well(&cluster, "with another pool").await;
    assert_eq!(cluster.established().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_sandbox_is_replaced_has_the_new_ones_address_and_the_old_one_is_given_back() {
    let cluster = cluster(13, "CrossSubnet").await;
    let before = cluster.nodes["n1"].kubelet.pods()["n1p1"].clone().unwrap();
    cluster.nodes["n1"].kubelet.renew("n1p1");
    assert_well(&cluster, "in the end").await;
    let after = cluster.nodes["n1"].kubelet.pods()["n1p1"].clone().unwrap();
    assert_ne!((before.container, before.address), (after.container, after.address));
}
