//! Modes of pools, and their switch while packets travel.

use std::net::Ipv4Addr;
use std::time::Duration;

use manx_model::{DEFAULT_IPV4_POOL, Kind};
use manx_sim::cluster::Cluster;
use manx_sim::trace::trace;
use tokio::time::sleep;

use crate::{MODES, assert_no_packet_was_lost, assert_well, cluster};

#[tokio::test(start_paused = true)]
async fn a_cluster_comes_up_and_every_pod_reaches_every_pod_in_every_mode() {
    for mode in MODES {
        assert_well(&cluster(1, mode).await, mode).await;
    }
}

#[tokio::test(start_paused = true)]
async fn packets_take_the_tunnel_only_where_the_mode_says_so() {
    for (mode, near, far) in [("Always", true, true), ("CrossSubnet", false, true), ("Never", false, false)] {
        let cluster = cluster(2, mode).await;
        let pod_of = |node: &str| {
            let pods = cluster.established();
            pods.into_iter().find(|(name, _)| name == node).map(|(_, address)| address).unwrap()
        };
        for (node, tunnelled) in [("n3", near), ("n2", far), ("n4", far)] {
            let way = trace(&cluster.net.world(), "n1", pod_of(node)).unwrap();
            assert_eq!(way.iter().any(|hop| hop.contains("tunl0")), tunnelled, "{mode}: {way:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_packet_is_lost_while_the_mode_of_a_live_cluster_is_switched() {
    for seed in 0..10 {
        for from in MODES {
            let cluster = cluster(seed, from).await;
            cluster.guard();
            for to in MODES.into_iter().chain([from]) {
                cluster.set_mode(to).await;
                let what = format!("seed {seed}, {from} then {to}");
                assert_well(&cluster, &what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_packet_is_lost_when_the_mode_changes_its_mind_half_way() {
    for seed in 0..30 {
        let cluster = cluster(seed, "Never").await;
        cluster.guard();
        for (step, mode) in
            ["Always", "Never", "CrossSubnet", "Always", "CrossSubnet", "Never"].iter().enumerate()
        {
            cluster.set_mode(mode).await;
            let pause = 1 + seed * 7919 * (step as u64 + 1) % 90_000;
            sleep(Duration::from_millis(pause)).await;
        }
        assert_well(&cluster, &format!("seed {seed}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_tunnel_takes_packets_for_a_minute_after_the_last_pool_stopped_wanting_it() {
    let cluster = cluster(3, "Always").await;
    let takes_packets = || {
        let world = cluster.net.world();
        world.machines["n1"].device("tunl0").is_some_and(|device| device.link.up)
    };
    cluster.set_mode("Never").await;
    sleep(Duration::from_secs(5)).await;
    let objects = cluster.objects().await;
    let published = |key: &str| objects.iter().any(|object| object.metadata.annotations.contains_key(key));
    assert!(!published("projectcalico.org/IPv4IPIPTunnelAddr"), "nobody shall send any more");
    sleep(Duration::from_secs(50)).await;
    assert!(takes_packets());
    sleep(Duration::from_secs(10)).await;
    assert!(!takes_packets());
    assert_well(&cluster, "in the end").await;
}

#[tokio::test(start_paused = true)]
async fn a_higher_revision_of_the_environment_wins_and_equal_ones_that_disagree_are_named() {
    let mut cluster = cluster(4, "Never").await;
    cluster.guard();
    let mode = async |cluster: &Cluster| {
        let objects = cluster.objects().await;
        let pool = objects
            .into_iter()
            .find(|object| object.kind == Kind::IPPool && object.name() == DEFAULT_IPV4_POOL);
        pool.unwrap().spec["ipipMode"].as_str().unwrap().to_owned()
    };
    let set = |cluster: &mut Cluster, name: &str, mode: &str, revision: &str| {
        let environment = &mut cluster.nodes.get_mut(name).unwrap().environment;
        environment.insert("CALICO_IPV4POOL_IPIP".into(), mode.into());
        environment.insert("MANX_CONFIG_REVISION".into(), revision.into());
    };
    set(&mut cluster, "n1", "Always", "1");
    set(&mut cluster, "n2", "CrossSubnet", "1");
    for name in ["n1", "n2"] {
        cluster.stop(name).await;
        cluster.start(name);
        sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(mode(&cluster).await, "Always");
    let named = cluster.problems("n2").await.join("\n");
    assert!(named.contains("CrossSubnet") && named.contains("MANX_CONFIG_REVISION=1"), "{named}");
    set(&mut cluster, "n2", "CrossSubnet", "2");
    cluster.stop("n2").await;
    cluster.start("n2");
    assert_well(&cluster, "in the end").await;
    assert_eq!(mode(&cluster).await, "CrossSubnet");
    // The old agents, with lower revisions, change nothing, not even when they start again.
    cluster.kill("n1").await;
    cluster.start("n1");
    cluster.quiet().await;
    assert_eq!(mode(&cluster).await, "CrossSubnet");
    assert_no_packet_was_lost(&cluster, "a rolling change of the environment");
}

#[tokio::test(start_paused = true)]
async fn a_rolling_switch_to_plain_routes_costs_no_packet_although_one_agent_is_away() {
    for seed in 0..5 {
        let mut cluster = cluster(seed, "Always").await;
        // The router knows no block, as in most clusters: only nodes of one subnet reach each other without the tunnel.
        for name in cluster.names() {
            cluster.delete(Kind::BGPPeer, &format!("tor-of-{name}")).await;
        }
        // An agent that starts waits for all its peers before it decides anew, and this one does not come.
        cluster.kill("n4").await;
        let near = |(node, _): &(String, Ipv4Addr)| node == "n1" || node == "n3";
        cluster.net.world().guarded = cluster.established().into_iter().filter(near).collect();
        cluster.environment.insert("CALICO_IPV4POOL_IPIP".into(), "Never".into());
        cluster.environment.insert("MANX_CONFIG_REVISION".into(), "1".into());
        for name in ["n1", "n2", "n3"] {
            cluster.stop(name).await;
            sleep(Duration::from_secs(5)).await;
            cluster.start(name);
            sleep(Duration::from_secs(5)).await;
        }
        cluster.quiet().await;
        assert_no_packet_was_lost(&cluster, &format!("seed {seed}"));
    }
}
