//! One story after another, each told to its end.

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
