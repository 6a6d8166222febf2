//! Routers and peers.

use std::time::Duration;

use manx_model::Kind;
use manx_sim::cluster::Cluster;
use manx_sim::tor::TOR;
use manx_sim::trace::trace;
use serde_json::json;
use tokio::time::sleep;

use crate::{assert_well, cluster};

#[tokio::test(start_paused = true)]
async fn a_router_that_is_a_bgp_peer_learns_every_block_and_keeps_it_while_agents_restart() {
    let mut cluster = cluster(5, "Never").await;
    let reaches_all = |cluster: &Cluster| {
        let world = cluster.net.world();
        cluster.established().into_iter().all(|(_, pod)| trace(&world, TOR, pod).is_ok())
    };
    assert!(reaches_all(&cluster));
    for name in cluster.names() {
        cluster.kill(&name).await;
    }
    sleep(Duration::from_secs(100)).await;
    assert!(reaches_all(&cluster));
    for name in cluster.names() {
        cluster.start(&name);
    }
    assert_well(&cluster, "in the end").await;
    assert!(reaches_all(&cluster));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_switched_off_in_the_configuration_is_left_at_once() {
    let cluster = cluster(9, "Never").await;
    cluster
        .put(Kind::BGPConfiguration, "default", |object| {
            object.spec = json!({"nodeToNodeMeshEnabled": false});
        })
        .await;
    cluster.quiet().await;
    let peers = cluster.nodes["n1"].agent.as_ref().unwrap().view.status().await.bgp.unwrap().peers;
    assert_eq!(peers.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["Node_10_0_1_1"]);
    cluster.delete(Kind::BGPConfiguration, "default").await;
    assert_well(&cluster, "with the mesh again").await;
}
