//! Agents and nodes that go, and come back or do not.

use std::net::Ipv4Addr;
use std::time::Duration;

use manx_sim::cluster::Cluster;
use manx_sim::trace::trace;
use tokio::time::{sleep, timeout};

use crate::{MODES, assert_well, cluster, now, written};

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_and_comes_back_writes_no_route_anywhere() {
    for (seed, mode) in (0..9).zip(MODES.into_iter().cycle()) {
        let mut cluster = cluster(seed, mode).await;
        cluster.guard();
        let begin = now(&cluster);
        for (name, away) in [("n1", 0), ("n2", 1), ("n3", 30), ("n4", 100)] {
            cluster.kill(name).await;
            sleep(Duration::from_secs(away)).await;
            cluster.start(name);
            sleep(Duration::from_secs(200)).await;
        }
        assert_eq!(written(&cluster, begin), [] as [String; 0], "seed {seed}, {mode}");
        assert_well(&cluster, mode).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_stopped_and_replaced_writes_no_route_anywhere() {
    for (seed, mode) in (0..9).zip(MODES.into_iter().cycle()) {
        let mut cluster = cluster(seed, mode).await;
        cluster.guard();
        let begin = now(&cluster);
        for name in cluster.names() {
            cluster.stop(&name).await;
            sleep(Duration::from_secs(5)).await;
            cluster.start(&name);
            sleep(Duration::from_secs(10)).await;
        }
        cluster.quiet().await;
        assert_eq!(written(&cluster, begin), [] as [String; 0], "seed {seed}, {mode}");
        assert_well(&cluster, mode).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_again_and_again_costs_no_packet() {
    for seed in 0..10 {
        let mut cluster = cluster(seed, "CrossSubnet").await;
        cluster.guard();
        let begin = now(&cluster);
        for round in 0..8 {
            cluster.kill("n1").await;
            cluster.start("n1");
            sleep(Duration::from_millis(1 + seed * 997 * round % 20_000)).await;
        }
        cluster.quiet().await;
        assert_eq!(written(&cluster, begin), [] as [String; 0], "seed {seed}");
        assert_well(&cluster, "in the end").await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_agents_may_be_killed_at_once() {
    for (seed, mode) in (0..9).zip(MODES.into_iter().cycle()) {
        let mut cluster = cluster(seed, mode).await;
        cluster.guard();
        let begin = now(&cluster);
        for name in cluster.names() {
            cluster.kill(&name).await;
        }
        sleep(Duration::from_secs(20)).await;
        for name in cluster.names() {
            cluster.start(&name);
            sleep(Duration::from_millis(seed * 700)).await;
        }
        cluster.quiet().await;
        assert_eq!(written(&cluster, begin), [] as [String; 0], "seed {seed}, {mode}");
        assert_well(&cluster, mode).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_routes_to_a_node_whose_agent_stays_away_are_withdrawn_and_come_back_with_it() {
    let mut cluster = cluster(6, "Never").await;
    let pods: Vec<Ipv4Addr> =
        cluster.established().into_iter().filter(|(node, _)| node == "n4").map(|(_, pod)| pod).collect();
    let reached = |cluster: &Cluster| pods.iter().all(|pod| trace(&cluster.net.world(), "n1", *pod).is_ok());
    cluster.kill("n4").await;
    sleep(Duration::from_secs(100)).await;
    assert!(reached(&cluster));
    sleep(Duration::from_secs(60)).await;
    assert!(!reached(&cluster));
    cluster.start("n4");
    assert_well(&cluster, "in the end").await;
    assert!(reached(&cluster));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_still_waits_for_the_datastore_ends_when_it_is_told_to() {
    let mut cluster = Cluster::new(1, "Never");
    cluster.add_node(1).await;
    cluster.nodes["n1"].store.down();
    cluster.start("n1");
    sleep(Duration::from_secs(10)).await;
    assert!(timeout(Duration::from_secs(10), cluster.stop("n1")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_taken_away_is_forgotten_and_its_name_may_come_back_as_another_machine() {
    let mut cluster = cluster(11, "CrossSubnet").await;
    cluster.remove_node("n4").await;
    sleep(Duration::from_secs(30)).await;
    let gone: Vec<String> = cluster
        .names()
        .into_iter()
        .filter(|name| {
            let world = cluster.net.world();
            let routes = &world.machines[name].routes;
            routes
                .iter()
                .filter(|route| route.protocol.0 == 77)
                .any(|route| format!("{route:?}").contains("10.0.2.14"))
        })
        .collect();
    assert!(gone.is_empty(), "{gone:?} still send to it");
    cluster.add_node(4).await;
    cluster.start("n4");
    cluster.nodes["n4"].kubelet.run("again");
    assert_well(&cluster, "in the end").await;
    assert_eq!(cluster.established().len(), 7);
}
