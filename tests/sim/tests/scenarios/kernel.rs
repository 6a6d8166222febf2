//! Kernels that somebody else writes, or that lack something, and the table of nftables.

use std::collections::BTreeSet;

use manx::probes::{BgpAsked, ready};
use manx_felix::{Operation, Protocol, Route, RouteClass, Target};
use manx_model::{DEFAULT_IPV4_POOL, Kind};
use manx_sim::cluster::Cluster;
use manx_sim::machine::Ipip;
use serde_json::json;

use crate::{assert_well, cluster, now, written};

#[tokio::test(start_paused = true)]
async fn a_route_of_ours_that_somebody_deletes_is_written_again_and_nothing_else_is() {
    let cluster = cluster(8, "Always").await;
    let route = {
        let world = cluster.net.world();
        world.machines["n1"].routes.iter().find(|route| route.protocol.0 == 77).unwrap().clone()
    };
    let begin = now(&cluster);
    cluster.net.foreign("n1", "ip route del", |machine| machine.routes.retain(|present| *present != route));
    assert_well(&cluster, "in the end").await;
    assert_eq!(written(&cluster, begin), [format!("n1: {:?}", Operation::AddRoute(route))]);
}

#[tokio::test(start_paused = true)]
async fn another_programs_route_stays_and_is_named_and_ours_comes_when_it_goes() {
    let cluster = cluster(12, "Never").await;
    let (ours, theirs) = {
        let world = cluster.net.world();
        let via = |route: &&Route| route.class() == RouteClass::Remote && route.protocol == Protocol::MANX;
        let ours = world.machines["n1"].routes.iter().find(via).unwrap().clone();
        let theirs = Route { protocol: Protocol(99), target: Target::Blackhole, ..ours.clone() };
        (ours, theirs)
    };
    let replace = |old: &Route, new: Option<&Route>| {
        cluster.net.foreign("n1", "ip route replace", |machine| {
            machine.routes.retain(|route| route != old);
            machine.routes.extend(new.cloned());
        });
    };
    replace(&ours, Some(&theirs));
    cluster.quiet().await;
    let named = cluster.problems("n1").await.join("\n");
    assert!(named.contains(&ours.key.to_string()) && named.contains("99"), "{named}");
    assert!(cluster.net.world().machines["n1"].routes.contains(&theirs));
    replace(&theirs, None);
    assert_well(&cluster, "in the end").await;
    assert_eq!(cluster.problems("n1").await, [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_table_of_nftables_that_somebody_takes_away_or_alters_is_written_again_and_nothing_else_is() {
    let cluster = cluster(5, "Always").await;
    cluster.guard();
    let begin = now(&cluster);
    cluster.net.foreign("n1", "the table is deleted", |machine| machine.ruleset = None);
    cluster.net.foreign("n2", "the table is altered", |machine| {
        let found = machine.ruleset.as_mut().unwrap();
        found.ruleset.sets.clear();
        found.altered = true;
    });
    // n2 takes no packets from anybody until then.
    cluster
        .until("both tables are right", || {
            let world = cluster.net.world();
            ["n1", "n2"].iter().all(|name| world.machines[*name].ruleset == world.machines["n3"].ruleset)
        })
        .await;
    assert_eq!(written(&cluster, begin).len(), 2, "{:?}", written(&cluster, begin));
    cluster.net.world().violations.clear();
    assert_well(&cluster, "in the end").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_nftables_says_so_and_routes_as_the_others() {
    let mut cluster = Cluster::with_nodes(6, "Always", 3).await;
    cluster.kill("n1").await;
    cluster.net.foreign("n1", "no nftables", |machine| (machine.nftables, machine.ruleset) = (false, None));
    cluster.start("n1");
    cluster.run_pods(1).await;
    let named = cluster.problems("n1").await;
    assert!(named.iter().any(|problem| problem.contains("nftables")), "{named:?}");
    cluster.quiet().await;
    assert!(!cluster.status("n1").await.in_desired_state && cluster.status("n2").await.in_desired_state);
    let begin = now(&cluster);
    cluster.net.foreign("n1", "nftables is loaded", |machine| machine.nftables = true);
    assert_well(&cluster, "once it is there").await;
    assert_eq!(written(&cluster, begin), ["n1: WroteRuleset"]);
    assert!(!cluster.problems("n1").await.iter().any(|problem| problem.contains("nftables")));
    assert!(cluster.status("n1").await.in_desired_state);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_ipip_says_so_while_a_pool_asks_for_it_and_is_ready_without() {
    let mut cluster = Cluster::with_nodes(9, "Never", 3).await;
    cluster.kill("n1").await;
    cluster.net.foreign("n1", "no ipip", |machine| machine.ipip = Ipip::Unsupported);
    cluster.start("n1");
    cluster.run_pods(1).await;
    assert_well(&cluster, "nobody asks for it").await;
    assert!(!cluster.status("n1").await.no_ipip);
    cluster.set_mode("Always").await;
    assert_well(&cluster, "n1 goes without").await;
    let (n1, n2) = (cluster.status("n1").await, cluster.status("n2").await);
    assert!(n1.no_ipip && !n2.no_ipip && n2.tunnel.is_some());
    assert!(ready(&n1, BgpAsked::Nothing).is_good(), "{}", ready(&n1, BgpAsked::Nothing));
    cluster.net.foreign("n1", "ipip is loaded", |machine| machine.ipip = Ipip::Loadable);
    assert_well(&cluster, "once it is there").await;
    let n1 = cluster.status("n1").await;
    assert!(!n1.no_ipip && n1.tunnel.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_new_node_is_let_in_by_all_before_it_sends_and_a_removed_one_is_shut_out() {
    let mut cluster = cluster(7, "Always").await;
    cluster.guard();
    cluster.add_node(5).await;
    cluster.start("n5");
    cluster.nodes["n5"].kubelet.run("n5p1");
    assert_well(&cluster, "with n5").await;
    let address = cluster.nodes["n5"].address.addr();
    let lets_in = |name: &str| cluster.net.world().machines[name].takes_ipip_of(address);
    assert!(cluster.names().iter().all(|name| lets_in(name)));
    cluster.remove_node("n5").await;
    cluster.quiet().await;
    assert!(
        !["n1", "n2", "n3", "n4"]
            .iter()
            .any(|name| cluster.net.world().machines[*name].takes_ipip_of(address))
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_pool_says_of_nat_becomes_the_table_of_every_node() {
    let cluster = cluster(8, "Never").await;
    cluster.guard();
    let translated = || {
        let world = cluster.net.world();
        let sets = |name: &String| {
            world.machines[name].ruleset.clone().unwrap().ruleset.sets["nat-pools"].to_string()
        };
        cluster.names().iter().map(sets).collect::<BTreeSet<_>>()
    };
    assert_eq!(translated(), BTreeSet::from(["192.168.0.0-192.168.255.255".to_owned()]));
    cluster.put(Kind::IPPool, DEFAULT_IPV4_POOL, |pool| pool.spec["natOutgoing"] = json!(false)).await;
    assert_well(&cluster, "without").await;
    assert_eq!(translated(), BTreeSet::from([String::new()]));
}
