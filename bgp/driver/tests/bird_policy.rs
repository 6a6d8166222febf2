//! Communities, filters, preferences and settings of peers between our speaker and real BIRDs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod rig;

use std::sync::Arc;

use manx_bgp::policy::{
    Action, Conditions, ExportPolicy, Filter, MatchOperator, NextHopMode, Operation, PeerType, PrefixMatch,
    Rule,
};
use manx_bgp::speaker::{PeerConfig, SpeakerConfig};
use manx_bgp::wire::AnyCommunity;

use rig::{Bird, Neighbour, Node, OUR_ASN, OURS, asn, eventually, place};

fn community(text: &str) -> AnyCommunity {
    text.parse().unwrap()
}

fn rule(conditions: Conditions, action: Action) -> Rule {
    Rule { conditions, action }
}

fn within(cidr: &str) -> Conditions {
    let prefix = Some(PrefixMatch::new(MatchOperator::In, cidr.parse().unwrap()));
    Conditions { prefix, ..Conditions::default() }
}

fn filters(rules: Vec<Rule>) -> Vec<Arc<Filter>> {
    vec![Arc::new(Filter { name: "test".into(), ipv4: rules, ipv6: Vec::new() })]
}

fn peer<'a>(config: &'a mut SpeakerConfig, bird: &Bird) -> &'a mut PeerConfig {
    config.peers.get_mut(&bird.address.ip()).unwrap()
}

#[tokio::test]
async fn communities_of_prefixes_are_seen_by_bird_and_birds_by_us() {
    let (at, us) = (place(), place());
    let route = "10.1.0.0/24 blackhole { bgp_community.add((65001,7)); bgp_large_community.add((65001,1,2)); \
                 bgp_ext_community.add((rt,65001,9)); }";
    let bird = Bird::start(at, 65001, &[Neighbour::new(us)], &[route]);
    let mut node = Node::start(us, &[&bird], |config| {
        let all = ["64512:100", "65535:65281", "64512:4294967295:1"].map(community).to_vec();
        config.export.communities = vec![("192.168.0.0/16".parse().unwrap(), all)];
    });
    node.until("routes both ways", |node| node.has("10.1.0.0/24") && bird.has(OURS)).await;
    let seen = bird.route(OURS);
    for words in ["BGP.community: (64512,100) (65535,65281)", "BGP.large_community: (64512, 4294967295, 1)"] {
        assert!(seen.contains(words), "{words} in {seen}");
    }
    let attributes = &node.path("10.1.0.0/24").attributes;
    assert!(["65001:7", "65001:1:2"].map(community).iter().all(|it| attributes.has_community(*it)));
    assert_eq!(attributes.extended_communities.len(), 1);
    node.configure(|config| config.export.communities.clear());
    node.until("no community", |_| !bird.route(OURS).contains("community")).await;
}

#[tokio::test]
async fn what_a_well_known_community_keeps_here_is_not_told_and_the_rest_passes_with_all_it_carries() {
    let (first_at, second_at, us) = (place(), place(), place());
    let routes = [
        "10.1.0.0/24 blackhole { bgp_community.add((65001,7)); bgp_ext_community.add((rt,65001,9)); }",
        "10.2.0.0/24 blackhole { bgp_community.add((65535,65281)); }",
        "10.3.0.0/24 blackhole { bgp_community.add((65535,65282)); }",
        "10.4.0.0/24 blackhole { bgp_community.add((65535,65283)); }",
    ];
    let first = Bird::start(first_at, 65001, &[Neighbour::new(us)], &routes);
    let second = Bird::start(second_at, 65002, &[Neighbour::new(us)], &[]);
    let mut node = Node::start(us, &[&first, &second], |config| {
        peer(config, &second).export = ExportPolicy::All;
        peer(config, &second).next_hop = NextHopMode::Keep;
    });
    node.until("all of the first", |node| node.has("10.4.0.0/24") && node.has("10.1.0.0/24")).await;
    node.until("what passes", |_| second.has("10.1.0.0/24")).await;
    let seen = second.route("10.1.0.0/24");
    let next_hop = format!("BGP.next_hop: {}", first_at.ip());
    for words in [
        "BGP.as_path: 64512 65001",
        "BGP.community: (65001,7)",
        "BGP.ext_community: (rt, 65001, 9)",
        &next_hop,
    ] {
        assert!(seen.contains(words), "{words} in {seen}");
    }
    assert!(!["10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24"].iter().any(|prefix| second.has(prefix)));
    node.configure(|config| peer(config, &second).next_hop = NextHopMode::Auto);
    let next_hop = format!("BGP.next_hop: {}", us.ip());
    node.until("us as the next hop", |_| second.route("10.1.0.0/24").contains(&next_hop)).await;
}

#[tokio::test]
async fn filters_come_and_go_on_a_session_that_stays() {
    let (at, us) = (place(), place());
    let routes = ["10.1.0.0/24 blackhole", "10.2.0.0/24 blackhole { bgp_community.add((65001,7)); }"];
    let bird = Bird::start(at, 65001, &[Neighbour::new(us)], &routes);
    let mut node = Node::start(us, &[&bird], |_| ());
    node.until("routes both ways", |node| node.has("10.2.0.0/24") && bird.has(OURS)).await;
    node.configure(|config| {
        let tagged = Conditions { community: Some(community("65001:7")), ..Conditions::default() };
        let prefer = Action::Accept(vec![Operation::SetPriority(512)]);
        let from_bird = Conditions { as_path_prefix: vec![asn(65001)], ..within("10.0.0.0/8") };
        let rules = vec![rule(tagged, prefer), rule(from_bird, Action::Reject)];
        peer(config, &bird).import_filters = filters(rules);
        let outside = Conditions { peer_type: Some(PeerType::External), ..within("192.168.0.0/16") };
        let operations = vec![
            Operation::AddCommunity(community("64512:1:2")),
            Operation::PrependAsPath(vec![asn(64513), asn(64514)]),
        ];
        peer(config, &bird).export_filters = filters(vec![rule(outside, Action::Accept(operations))]);
    });
    node.until("the import filter", |node| !node.has("10.1.0.0/24")).await;
    assert_eq!(node.path("10.2.0.0/24").local_pref, 2_147_483_647 - 512);
    node.until("the export filter", |_| bird.route(OURS).contains("BGP.as_path: 64512 64513 64514")).await;
    assert!(bird.route(OURS).contains("BGP.large_community: (64512, 1, 2)"), "{}", bird.route(OURS));
    node.configure(|config| {
        peer(config, &bird).import_filters.clear();
        peer(config, &bird).export_filters = filters(vec![rule(Conditions::default(), Action::Reject)]);
    });
    node.until("all of BIRD's and none of ours", |node| node.has("10.1.0.0/24") && !bird.has(OURS)).await;
    node.configure(|config| peer(config, &bird).export_filters.clear());
    node.until("ours again", |_| bird.has(OURS)).await;
    assert_eq!(bird.log().matches("BGP session established").count(), 1, "{}", bird.log());
}

#[tokio::test]
async fn local_pref_of_inner_peers_decides_and_that_of_outer_ones_is_not_looked_at() {
    let (low_at, high_at, outer_at, us) = (place(), place(), place(), place());
    let route = |preference: u32| format!("10.1.0.0/24 blackhole {{ bgp_local_pref = {preference}; }}");
    let low = Bird::start(low_at, OUR_ASN, &[Neighbour::new(us)], &[&route(50)]);
    let high = Bird::start(high_at, OUR_ASN, &[Neighbour::new(us)], &[&route(200)]);
    let wild = Neighbour::new(us).with("allow bgp_local_pref on;");
    let outer = Bird::start(outer_at, 65001, &[wild], &[&route(900)]);
    let mut node = Node::start(us, &[&low, &high, &outer], |_| ());
    node.until("all peers", |node| [&low, &high, &outer].iter().all(|bird| node.peer(bird).received == 1))
        .await;
    let best = |node: &Node| (node.path("10.1.0.0/24").peer, node.path("10.1.0.0/24").local_pref);
    node.until("the best", |node| best(node) == (high_at.ip(), 200)).await;
    high.configure(&[Neighbour::new(us)], &[&route(40)]);
    node.until("the outer one, which counts 100", |node| best(node) == (outer_at.ip(), 100)).await;
    outer.configure(&[Neighbour::new(us)], &[]);
    node.until("the next best", |node| best(node) == (low_at.ip(), 50)).await;
    let prefer = rule(Conditions::default(), Action::Accept(vec![Operation::SetPriority(1024)]));
    node.configure(|config| peer(config, &high).import_filters = filters(vec![prefer]));
    node.until("what our filter prefers", |node| best(node) == (high_at.ip(), 2_147_482_623)).await;
    node.configure(|config| config.export.local_pref = 2_147_482_623);
    node.until("ours preferred", |_| low.route(OURS).contains("BGP.local_pref: 2147482623")).await;
}

#[tokio::test]
async fn a_peer_may_know_us_by_another_as_and_may_tell_us_paths_with_our_own() {
    let (at, us) = (place(), place());
    let route = "10.1.0.0/24 blackhole { bgp_path.prepend(65100); }";
    let neighbour = Neighbour { asn: 65100, ..Neighbour::new(us) };
    let bird = Bird::start(at, 65001, &[neighbour], &[route, "10.2.0.0/24 blackhole"]);
    let mut node = Node::start(us, &[&bird], |config| peer(config, &bird).local_asn = Some(asn(65100)));
    node.until("routes both ways", |node| node.has("10.2.0.0/24") && bird.has(OURS)).await;
    assert!(bird.route(OURS).contains("BGP.as_path: 65100\n"), "{}", bird.route(OURS));
    node.until("the loop", |node| node.peer(&bird).rejected == 1).await;
    assert!(!node.has("10.1.0.0/24"));
    node.configure(|config| peer(config, &bird).own_as_allowed = 1);
    node.until("the route with our AS", |node| node.has("10.1.0.0/24")).await;
    assert!(node.established(&bird) && node.peer(&bird).rejected == 0);
    eventually("one session for all this", || bird.log().matches("BGP session established").count() == 1)
        .await;
}

#[tokio::test]
async fn a_peer_has_its_own_keepalive_and_restart_time() {
    let (at, us) = (place(), place());
    let bird = Bird::start(at, 65001, &[Neighbour::new(us)], &[]);
    let mut node = Node::start(us, &[&bird], |config| {
        peer(config, &bird).keepalive = Some(std::time::Duration::from_secs(5));
        peer(config, &bird).restart_time = Some(std::time::Duration::from_secs(33));
    });
    node.until("ours at BIRD", |_| bird.has(OURS)).await;
    let shown = bird.ask("show protocols all manx0");
    assert!(shown.contains("Restart time: 33") && shown.contains("/15"), "hold timer of 15 s: {shown}");
}
