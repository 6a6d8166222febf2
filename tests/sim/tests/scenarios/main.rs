//! One story after another, each told to its end.

mod agents;
mod bgp;
mod kernel;
mod modes;
mod outage;
mod pods;

use manx_sim::cluster::Cluster;
use manx_sim::oracle::findings;
use manx_sim::world::Act;

const MODES: [&str; 3] = ["Always", "CrossSubnet", "Never"];

/// Four nodes in two subnets, two pods on each, at rest.
async fn cluster(seed: u64, mode: &str) -> Cluster {
    let cluster = Cluster::with_nodes(seed, mode, 4).await;
    cluster.run_pods(2).await;
    cluster.quiet().await;
    cluster
}

/// Fails with everything that is not as it should be.
async fn assert_well(cluster: &Cluster, what: &str) {
    cluster.quiet().await;
    let found = findings(cluster).await;
    assert!(found.is_empty(), "{what}: {found:#?}");
}

fn assert_no_packet_was_lost(cluster: &Cluster, what: &str) {
    let violations = cluster.net.world().violations.clone();
    assert!(violations.is_empty(), "{what}: {violations:#?}");
}

/// What agents wrote to kernels since the `begin`th record.
fn written(cluster: &Cluster, begin: usize) -> Vec<String> {
    let world = cluster.net.world();
    let of = |act: &Act| match act {
        Act::Wrote(operation) => Some(format!("{operation:?}")),
        Act::Refused(operation, reason) => Some(format!("{operation:?}: {reason}")),
        Act::WroteRuleset => Some("WroteRuleset".to_owned()),
        Act::RefusedRuleset(reason) => Some(format!("RefusedRuleset: {reason}")),
        Act::Pod(..) | Act::Foreign(_) => None,
    };
    let records = world.records[begin..].iter();
    records.filter_map(|record| Some(format!("{}: {}", record.machine, of(&record.act)?))).collect()
}

fn now(cluster: &Cluster) -> usize {
    cluster.net.world().records.len()
}
