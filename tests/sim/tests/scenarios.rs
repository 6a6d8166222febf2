//! One story after another, each told to its end.

use std::time::Duration;

use manx_sim::cluster::Cluster;
use manx_sim::oracle::findings;

#[tokio::test(start_paused = true)]
async fn a_cluster_comes_up_and_every_pod_reaches_every_pod_in_every_mode() {
    for mode in ["Always", "CrossSubnet", "Never"] {
        let cluster = Cluster::with_nodes(1, mode, 4).await;
        cluster.run_pods(3).await;
        cluster.quiet().await;
        assert_eq!(findings(&cluster).await, [] as [String; 0], "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_still_waits_for_the_datastore_ends_when_it_is_told_to() {
    let mut cluster = Cluster::new(1, "Never");
    cluster.add_node(1).await;
    cluster.nodes["n1"].store.down();
    cluster.start("n1");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let stopped = tokio::time::timeout(Duration::from_secs(10), cluster.stop("n1")).await;
    assert!(stopped.is_ok());
}
