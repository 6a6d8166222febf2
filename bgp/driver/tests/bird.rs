//! Our speaker and a real BIRD 2: routes both ways, restarts of either side.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod rig;

use std::collections::BTreeSet;
use std::time::Duration;

use manx_bgp_driver::Shutdown;
use tokio::time::{sleep, timeout};

use rig::{Bird, Neighbour, Node, OUR_ASN, OURS, place};

/// What BIRD originates; the second one only in the beginning.
const BIRDS: [&str; 2] = ["10.200.1.0/24", "10.200.2.0/24"];
const ROUTES: [&str; 2] = ["10.200.1.0/24 blackhole", "10.200.2.0/24 blackhole"];

/// Establishes, exchanges and withdraws in both directions.
async fn prefixes_go_both_ways(bird_asn: u32) {
    let (at, us) = (place(), place());
    let neighbours = [Neighbour::new(us)];
    let bird = Bird::start(at, bird_asn, &neighbours, &ROUTES);
    let mut node = Node::start(us, &[&bird], |_| ());
    node.until("both of BIRD's prefixes", |node| BIRDS.iter().all(|prefix| node.has(prefix))).await;
    node.until("ours at BIRD", |_| bird.has(OURS)).await;
    node.until("End-of-RIB", |node| node.converged).await;
    let path = node.path(BIRDS[0]);
    let external = bird_asn != OUR_ASN;
    assert_eq!(path.next_hop, at.ip());
    assert_eq!(
        path.attributes.as_path.to_string(),
        if external { bird_asn.to_string() } else { String::new() }
    );
    let all = bird.route(OURS);
    assert!(all.contains(&format!("BGP.next_hop: {}", us.ip())), "{all}");
    assert!(all.contains(if external { "BGP.as_path: 64512" } else { "BGP.local_pref: 100" }), "{all}");

    bird.configure(&neighbours, &ROUTES[..1]);
    node.until("BIRD's withdrawal", |node| !node.has(BIRDS[1]) && node.has(BIRDS[0])).await;
    node.bgp.originate(BTreeSet::new());
    node.until("our withdrawal", |_| !bird.has(OURS)).await;
    node.bgp.originate(BTreeSet::from([OURS.parse().unwrap()]));
    node.until("ours again", |_| bird.has(OURS)).await;

    let shown = bird.ask("show protocols all manx0");
    for words in
        ["Established", "Graceful restart", "4-octet AS numbers", "Route refresh", "Restart time: 120"]
    {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    let log = bird.log();
    assert!(!log.contains("Received error") && !log.contains("Error:") && !log.contains("Invalid"), "{log}");

    assert!(bird.ask("reload in manx0").contains("manx0: reloading"));
    node.until("a refresh", |_| bird.has(OURS)).await;
    node.bgp.shutdown(Shutdown::Stop).await;
    let gone = async {
        while bird.has(OURS) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("BIRD forgets us when we stop");
    let shown = bird.ask("show protocols all manx0");
    assert!(shown.contains("Received: Administrative shutdown"), "{shown}");
}

#[tokio::test]
async fn prefixes_go_both_ways_over_ibgp() {
    prefixes_go_both_ways(OUR_ASN).await;
}

#[tokio::test]
async fn prefixes_go_both_ways_over_ebgp() {
    prefixes_go_both_ways(4_200_000_001).await;
}

#[tokio::test]
async fn bird_keeps_our_routes_while_we_are_killed_and_start_again_twice() {
    let (at, us) = (place(), place());
    let bird = Bird::start(at, 65001, &[Neighbour::new(us)], &ROUTES);
    let mut node = Node::start(us, &[&bird], |_| ());
    node.until("ours at BIRD", |node| bird.has(OURS) && node.converged).await;
    for _ in 0..2 {
        drop(node);
        let noticed = async {
            while bird.ask("show protocols manx0").contains("Established") {
                assert!(bird.has(OURS));
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), noticed).await.expect("BIRD notices");
        assert!(bird.has(OURS), "{}", bird.ask("show protocols all manx0"));
        node = Node::start(us, &[&bird], |config| config.forwarding_preserved = true);
        node.until("established again", |node| {
            assert!(bird.has(OURS), "BIRD lost our route");
            node.established(&bird)
        })
        .await;
        node.until("converged again", |node| {
            assert!(bird.has(OURS), "BIRD lost our route");
            node.converged && node.has(BIRDS[0])
        })
        .await;
        let route = bird.route(OURS);
        assert!(route.contains(OURS) && node.withdrawals == 0, "{route}");
    }
    // Nothing is stale in the end: the route is there because we told it again.
    node.bgp.shutdown(Shutdown::Restart).await;
    let log = bird.log();
    assert!(log.contains("Neighbor graceful restart detected"), "{log}");
    assert!(!log.contains("Neighbor graceful restart timeout"), "{log}");
}

#[tokio::test]
async fn we_keep_birds_routes_while_it_is_killed_and_starts_again() {
    let (at, us) = (place(), place());
    let neighbours = [Neighbour::new(us)];
    let mut bird = Bird::start(at, 65001, &neighbours, &ROUTES);
    let mut node = Node::start(us, &[&bird], |_| ());
    node.until("BIRD's prefixes", |node| BIRDS.iter().all(|prefix| node.has(prefix)) && node.converged).await;
    bird.kill();
    node.until("the loss", |node| !node.established(&bird)).await;
    assert_eq!((node.peer(&bird).received, node.peer(&bird).stale, node.withdrawals), (2, 2, 0));
    bird.restart(&neighbours, &ROUTES[..1]);
    node.until("End-of-RIB", |node| node.established(&bird) && node.peer(&bird).stale == 0).await;
    node.until("what BIRD no longer has is gone", |node| !node.has(BIRDS[1])).await;
    assert!(node.has(BIRDS[0]) && node.withdrawals == 1, "{:?} {}", node.routes, node.withdrawals);
}
