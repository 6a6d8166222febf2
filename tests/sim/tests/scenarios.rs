//! One story after another, each told to its end.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use manx_cni::Code;
use manx_felix::{Operation, Protocol, Route, RouteClass, Target};
use manx_model::{DEFAULT_IPV4_POOL, Kind};
use manx_sim::cluster::Cluster;
use manx_sim::oracle::findings;
use manx_sim::tor::TOR;
use manx_sim::trace::trace;
use manx_sim::world::Act;
use serde_json::json;
use tokio::time::{sleep, timeout};

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
async fn while_the_datastore_is_away_everything_stays_and_pods_come_until_the_reserve_is_used_up() {
    for seed in 0..5 {
        let cluster = cluster(seed, "CrossSubnet").await;
        cluster.guard();
        let begin = now(&cluster);
        cluster.nodes.values().for_each(|node| node.store.down());
        sleep(Duration::from_secs(600)).await;
        cluster.nodes["n1"].kubelet.run("late");
        cluster.until("it is attached", || cluster.established().len() == 9).await;
        assert_eq!(cluster.unreachable(), [""; 0]);
        cluster.nodes["n1"].kubelet.run("too-late");
        cluster.nodes["n2"].kubelet.end("n2p1");
        sleep(Duration::from_secs(3000)).await;
        let refused = cluster.nodes["n1"].kubelet.last_error("too-late").unwrap();
        let later = refused.code == Code::TRY_AGAIN_LATER;
        assert!(later && refused.to_string().contains("the datastore is away"), "{refused}");
        // The pod that was told to end is unreachable, as it should be; nothing else happened.
        cluster.net.world().violations.retain(|violation| !violation.contains("n2: no route"));
        let written = written(&cluster, begin);
        let of_pods = ["n2: DeleteRoute", "n1: AddRoute"];
        assert!(
            written.iter().all(|line| of_pods.iter().any(|of_pod| line.starts_with(of_pod))),
            "{written:#?}"
        );
        cluster.net.world().guarded.clear();
        cluster.net.world().violations.clear();
        cluster.nodes.values().for_each(|node| node.store.up());
        assert_well(&cluster, &format!("seed {seed}")).await;
        assert_eq!(cluster.established().len(), 9);
    }
}

#[tokio::test(start_paused = true)]
async fn what_pods_were_given_while_the_datastore_was_away_they_keep_although_their_agent_is_killed() {
    for seed in 0..5 {
        let mut cluster = cluster(seed, "CrossSubnet").await;
        cluster.nodes.values().for_each(|node| node.store.down());
        cluster.nodes["n2"].kubelet.run("late");
        cluster.until("it is attached", || cluster.established().len() == 9).await;
        for time in 0..4 {
            let before = cluster.nodes["n1"].kubelet.pods()["n1p1"].clone();
            cluster.nodes["n1"].kubelet.renew("n1p1");
            let renewed = || cluster.nodes["n1"].kubelet.pods()["n1p1"].clone();
            cluster.until(&format!("sandbox {time}"), || renewed().is_some() && renewed() != before).await;
            assert_eq!(cluster.unreachable(), [""; 0]);
        }
        let given: BTreeSet<_> = cluster.established().into_iter().collect();
        for node in ["n1", "n2"] {
            cluster.kill(node).await;
        }
        cluster.nodes.values().for_each(|node| node.store.up());
        for node in ["n1", "n2"] {
            cluster.start(node);
        }
        assert_well(&cluster, &format!("seed {seed}")).await;
        assert_eq!(cluster.established().into_iter().collect::<BTreeSet<_>>(), given, "seed {seed}");
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
    let pool = json!({"cidr": "192.168.1.0/28", "blockSize": 29, "ipipMode": "Never"});
    cluster.put(Kind::IPPool, "more", |object| object.spec = pool).await;
    assert_well(&cluster, "with another pool").await;
    assert_eq!(cluster.established().len(), 3);
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
async fn a_pod_whose_sandbox_is_replaced_has_the_new_ones_address_and_the_old_one_is_given_back() {
    let cluster = cluster(13, "CrossSubnet").await;
    let before = cluster.nodes["n1"].kubelet.pods()["n1p1"].clone().unwrap();
    cluster.nodes["n1"].kubelet.renew("n1p1");
    assert_well(&cluster, "in the end").await;
    let after = cluster.nodes["n1"].kubelet.pods()["n1p1"].clone().unwrap();
    assert_ne!((before.container, before.address), (after.container, after.address));
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
    let begin = now(&cluster);
    cluster.net.foreign("n1", "nftables is loaded", |machine| machine.nftables = true);
    assert_well(&cluster, "once it is there").await;
    assert_eq!(written(&cluster, begin), ["n1: WroteRuleset"]);
    assert!(!cluster.problems("n1").await.iter().any(|problem| problem.contains("nftables")));
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
