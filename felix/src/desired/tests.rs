use manx_model::IpipMode;

use super::*;
use crate::testing::*;
use crate::{Link, RemoteNode};

const NEAR: &str = "192.168.190.192/26";
const FAR: &str = "192.168.7.0/26";

/// The path to a prefix, as people read it.
fn path(desired: &Desired, prefix: &str) -> String {
    desired.paths[&net(prefix)].to_string()
}

fn target<'a>(desired: &'a Desired, prefix: &str) -> Option<&'a Target> {
    desired.routes.get(&RouteKey::of(net(prefix))).map(|route| &route.target)
}

fn tunnel_to(via: &str) -> Target {
    Target::Hops(vec![Hop { device: TUNL0, gateway: Some(ip(via)), onlink: true }])
}

fn plain_via(via: &str) -> Target {
    Target::Hops(vec![hop(ETH0, Some(via))])
}

#[test]
fn each_mode_takes_the_tunnel_where_it_says() {
    for (mode, near, far) in [
        (IpipMode::Always, tunnel_to("172.171.5.96"), tunnel_to("172.171.6.95")),
        (IpipMode::CrossSubnet, plain_via("172.171.5.96"), tunnel_to("172.171.6.95")),
        (IpipMode::Never, plain_via("172.171.5.96"), plain_via("172.171.5.1")),
    ] {
        let desired = desired(&facts(mode), &with_tunnel());
        assert_eq!(target(&desired, NEAR), Some(&near), "{mode}, same subnet");
        assert_eq!(target(&desired, FAR), Some(&far), "{mode}, other subnet");
    }
}

#[test]
fn a_path_says_why_it_was_chosen() {
    let cross = desired(&facts(IpipMode::CrossSubnet), &with_tunnel());
    assert_eq!(
        path(&cross, FAR),
        "via 172.171.6.95 dev tunl0 onlink (CrossSubnet: 172.171.6.95 is outside 172.171.5.0/24)"
    );
    assert_eq!(
        path(&cross, NEAR),
        "via 172.171.5.96 dev eth0 (CrossSubnet: 172.171.5.96 is inside 172.171.5.0/24)"
    );
    let never = desired(&facts(IpipMode::Never), &with_tunnel());
    assert_eq!(path(&never, NEAR), "via 172.171.5.96 dev eth0");
    assert_eq!(path(&never, FAR), "via 172.171.5.1 dev eth0 (resolved by 0.0.0.0/0; next hop 172.171.6.95)");
}

#[test]
fn protocol_4_is_sent_only_when_both_ends_are_ready() {
    let far = |facts: &Facts, snapshot: &Snapshot| path(&desired(facts, snapshot), FAR);
    let ready = facts(IpipMode::Always);
    let mut silent = ready.clone();
    silent.nodes.values_mut().for_each(|node| node.tunnel = None);
    let mut stranger = ready.clone();
    stranger.nodes.clear();
    let mut unassigned = ready.clone();
    unassigned.tunnel = None;
    let mut down = with_tunnel();
    down.links.entry(TUNL0).and_modify(|link| link.up = false);
    for (facts, snapshot, but) in [
        (&silent, with_tunnel(), "node far has not published a tunnel address"),
        (&stranger, with_tunnel(), "next hop 172.171.6.95 is not a node"),
        (&unassigned, with_tunnel(), "this node has no tunnel address yet"),
        (&ready, snapshot(), "this node has no tunl0 yet"),
        (&ready, down, "this node's tunl0 is not up with 192.168.236.0 yet"),
    ] {
        let path = far(facts, &snapshot);
        assert!(path.starts_with("via 172.171.5.1 dev eth0"), "{path}");
        assert!(path.ends_with(&format!("; Always, but {but})")), "{path}");
    }
}

#[test]
fn a_prefix_that_holds_a_nodes_address_never_goes_into_the_tunnel() {
    let mut facts = facts(IpipMode::Always);
    facts.pools = vec![pool("172.171.0.0/16", IpipMode::Always)];
    facts.remote = [(net("172.171.6.0/24"), ip("172.171.6.95"))].into();
    let path = path(&desired(&facts, &with_tunnel()), "172.171.6.0/24");
    assert!(path.contains("172.171.6.0/24 holds the address 172.171.6.95 of node far"), "{path}");
}

#[test]
fn next_hops_are_resolved_by_the_kernels_own_routes_only() {
    let mut bgp = snapshot();
    bgp.routes.push(via("172.171.6.0/24", 0, Protocol::MANX, &[hop(ETH0, Some("172.171.5.7"))]));
    bgp.routes.push(via("172.171.6.95/32", 0, Protocol(12), &[hop(ETH0, Some("172.171.5.8"))]));
    let mut longer = snapshot();
    longer.routes.push(via("172.171.6.0/24", 50, Protocol(4), &[hop(ETH0, Some("172.171.5.9"))]));
    let mut cheaper = snapshot();
    cheaper.routes.push(via("0.0.0.0/0", 50, Protocol(4), &[hop(ETH0, Some("172.171.5.9"))]));
    let mut down = longer.clone();
    down.links.insert(ETH1, Link { up: false, ..link(ETH1, "eth1", &[]) });
    down.routes.push(via("172.171.6.95/32", 0, Protocol(4), &[hop(ETH1, Some("10.0.0.1"))]));
    for (case, snapshot, gateway) in [
        ("BGP routes are left out", bgp, "172.171.5.1"),
        ("the longest prefix wins", longer, "172.171.5.9"),
        ("the lowest metric wins", cheaper, "172.171.5.9"),
        ("a link that is down carries nothing", down, "172.171.5.9"),
    ] {
        let desired = desired(&facts(IpipMode::Never), &snapshot);
        assert_eq!(target(&desired, FAR), Some(&plain_via(gateway)), "{case}");
    }
}

#[test]
fn hops_of_equal_cost_are_kept() {
    let mut snapshot = snapshot();
    let hops = [hop(ETH0, Some("172.171.5.1")), hop(ETH0, Some("172.171.5.2"))];
    snapshot.routes[0] = via("0.0.0.0/0", 0, Protocol(4), &hops);
    let desired = desired(&facts(IpipMode::Never), &snapshot);
    assert_eq!(target(&desired, FAR), Some(&Target::Hops(hops.to_vec())));
}

#[test]
fn a_next_hop_that_cannot_be_reached_is_told() {
    let mut nowhere = snapshot();
    nowhere.routes.remove(0);
    let mut dead_end = snapshot();
    dead_end.routes.push(route("172.171.6.0/24", 0, Protocol(4), Target::Blackhole));
    for (snapshot, why) in [
        (nowhere, "unresolved: no route to next hop 172.171.6.95"),
        (dead_end, "unresolved: next hop 172.171.6.95 is inside 172.171.6.0/24, which leads nowhere"),
    ] {
        let desired = desired(&facts(IpipMode::Never), &snapshot);
        assert_eq!(path(&desired, FAR), why);
        assert_eq!(target(&desired, FAR), None);
    }
}

#[test]
fn what_is_local_wins_over_bgp() {
    let mut facts = facts(IpipMode::Never);
    facts.endpoints.insert(ip("192.168.7.5"), "calic440f455693".into());
    facts.remote.insert(net("192.168.236.0/26"), ip("172.171.5.96"));
    facts.remote.insert(net("192.168.7.5/32"), ip("172.171.5.96"));
    let desired = desired(&facts, &snapshot());
    assert_eq!(target(&desired, "192.168.236.0/26"), Some(&Target::Blackhole));
    assert_eq!(target(&desired, "192.168.7.5/32"), Some(&Target::Hops(vec![hop(CALI, None)])));
    assert_eq!(path(&desired, "192.168.236.0/26"), "withheld: 192.168.236.0/26 is a block of this node");
    assert!(path(&desired, "192.168.7.5/32").contains("a pod of this node, on calic440f455693"));
}

#[test]
fn a_pod_with_a_borrowed_address_has_its_route_beside_that_of_the_block() {
    let mut facts = facts(IpipMode::Never);
    facts.endpoints.insert(ip("192.168.7.5"), "calic440f455693".into());
    let desired = desired(&facts, &snapshot());
    assert_eq!(target(&desired, "192.168.7.5/32"), Some(&Target::Hops(vec![hop(CALI, None)])));
    assert_eq!(target(&desired, FAR), Some(&plain_via("172.171.5.1")));
}

#[test]
fn an_address_that_was_lent_is_reached_through_the_borrower_out_of_our_own_blackhole() {
    for (mode, route) in
        [(IpipMode::Never, plain_via("172.171.5.1")), (IpipMode::Always, tunnel_to("172.171.6.95"))]
    {
        let mut facts = facts(mode);
        facts.remote.insert(net("192.168.236.9/32"), ip("172.171.6.95"));
        let desired = desired(&facts, &with_tunnel());
        assert_eq!(target(&desired, "192.168.236.9/32"), Some(&route), "{mode}");
        assert_eq!(target(&desired, "192.168.236.0/26"), Some(&Target::Blackhole), "{mode}");
    }
}

#[test]
fn a_pod_of_both_families_has_a_route_for_each_and_both_blocks_are_blackholes() {
    let mut facts = facts(IpipMode::Never);
    facts.blocks.insert(net("fd00:10::/122"));
    for address in ["192.168.236.3", "fd00:10::3"] {
        facts.endpoints.insert(ip(address), "calic440f455693".into());
    }
    let desired = desired(&facts, &snapshot());
    for (route, wanted) in [
        ("192.168.236.3/32", Target::Hops(vec![hop(CALI, None)])),
        ("fd00:10::3/128", Target::Hops(vec![hop(CALI, None)])),
        ("192.168.236.0/26", Target::Blackhole),
        ("fd00:10::/122", Target::Blackhole),
    ] {
        assert_eq!(target(&desired, route), Some(&wanted), "{route}");
    }
    assert!(desired.missing.is_empty(), "{:?}", desired.missing);
}

#[test]
fn an_ipv6_prefix_of_another_node_is_told_and_no_route() {
    let mut facts = facts(IpipMode::Never);
    facts.remote = [(net("fd00:20::/122"), ip("172.171.5.96"))].into();
    let desired = desired(&facts, &snapshot());
    assert_eq!(path(&desired, "fd00:20::/122"), "withheld: IPv6 is not routed between nodes yet");
    assert_eq!(target(&desired, "fd00:20::/122"), None);
}

#[test]
fn a_block_of_one_address_is_no_blackhole() {
    for one in ["192.168.9.1/32", "fd00:10::1/128"] {
        let mut facts = facts(IpipMode::Never);
        facts.blocks = [net(one)].into();
        assert_eq!(target(&desired(&facts, &snapshot()), one), None);
    }
}

#[test]
fn a_pod_whose_device_cannot_carry_it_is_told() {
    let mut facts = facts(IpipMode::Never);
    facts.endpoints.insert(ip("192.168.236.3"), "cali0".into());
    facts.endpoints.insert(ip("192.168.236.4"), "calic440f455693".into());
    let mut snapshot = snapshot();
    snapshot.links.entry(CALI).and_modify(|link| link.up = false);
    let desired = desired(&facts, &snapshot);
    assert_eq!(desired.missing[&ip("192.168.236.3")], "its device cali0 is missing");
    assert_eq!(desired.missing[&ip("192.168.236.4")], "its device calic440f455693 is down");
}

#[test]
fn a_path_to_ourselves_is_ignored() {
    let mut facts = facts(IpipMode::Never);
    facts.remote = [(net(FAR), ip("172.171.5.95"))].into();
    assert!(desired(&facts, &snapshot()).paths.is_empty());
}

#[test]
fn no_remote_route_is_decided_before_pools_and_nodes_are_read() {
    let mut facts = facts(IpipMode::Never);
    facts.complete = false;
    let desired = desired(&facts, &snapshot());
    assert_eq!(path(&desired, FAR), "unresolved: the pools and nodes are not all read yet");
    assert_eq!(desired.routes.len(), 1, "the own block alone");
}

#[test]
fn what_a_tor_teaches_is_taken_unless_it_captures_what_the_node_needs() {
    let mut facts = facts(IpipMode::Always);
    let tor = ip("172.171.5.1");
    facts.remote = ["0.0.0.0/0", "10.9.0.0/16", "172.171.5.64/26", "172.171.5.128/25"]
        .map(|prefix| (net(prefix), tor))
        .into();
    let desired = desired(&facts, &with_tunnel());
    for plain in ["0.0.0.0/0", "10.9.0.0/16", "172.171.5.128/25"] {
        assert_eq!(target(&desired, plain), Some(&plain_via("172.171.5.1")), "{plain}");
    }
    assert_eq!(
        path(&desired, "172.171.5.64/26"),
        "withheld: 172.171.5.64/26 is inside the connected subnet 172.171.5.0/24 and would capture 172.171.5.95"
    );
}

#[test]
fn another_programs_route_stays_and_ours_is_held_back() {
    let mut facts = facts(IpipMode::Never);
    facts.endpoints.insert(ip("192.168.236.4"), "calic440f455693".into());
    let mut snapshot = snapshot();
    snapshot.routes.push(via(NEAR, 0, Protocol(4), &[hop(ETH0, Some("172.171.5.7"))]));
    snapshot.routes.push(via("192.168.236.4/32", 0, Protocol(3), &[hop(CALI, None)]));
    facts.endpoints.insert(ip("fd00:10::4"), "calic440f455693".into());
    snapshot.routes.push(via("fd00:10::4/128", 1024, Protocol(80), &[hop(CALI, None)]));
    let desired = desired(&facts, &snapshot);
    assert_eq!(target(&desired, NEAR), None);
    assert_eq!(
        path(&desired, NEAR),
        format!("withheld: another program (protocol static) has a route {NEAR}")
    );
    let held: Vec<_> =
        desired.held.values().map(|held| (held.wanted.key.to_string(), held.agrees())).collect();
    let pods = ["192.168.236.4/32", "fd00:10::4/128"].map(|pod| (pod.to_owned(), true));
    assert_eq!(held, [[(NEAR.to_owned(), false)].as_slice(), &pods].concat());
}

#[test]
fn the_smallest_pool_around_a_prefix_decides() {
    let mut facts = facts(IpipMode::Never);
    facts.pools.push(pool("192.168.7.0/24", IpipMode::Always));
    assert_eq!(target(&desired(&facts, &with_tunnel()), FAR), Some(&tunnel_to("172.171.6.95")));
}

#[test]
fn a_next_hop_that_is_no_node_is_reached_plainly() {
    let mut facts = facts(IpipMode::CrossSubnet);
    facts.nodes =
        [("172.171.5.96".parse().unwrap(), RemoteNode { name: "near".parse().unwrap(), tunnel: None })]
            .into();
    assert_eq!(target(&desired(&facts, &with_tunnel()), FAR), Some(&plain_via("172.171.5.1")));
}

#[test]
fn a_peer_that_has_a_gateway_of_its_own_is_reached_over_it_and_so_is_what_it_announces() {
    let mut facts = facts(IpipMode::Never);
    facts.gateways.insert(ip("10.9.9.9"), ip("172.171.5.250"));
    facts.remote.insert(net("10.50.0.0/16"), ip("10.9.9.9"));
    let wanted = desired(&facts, &snapshot());
    for prefix in ["10.9.9.9/32", "10.50.0.0/16"] {
        assert_eq!(target(&wanted, prefix), Some(&plain_via("172.171.5.250")), "{prefix}");
    }
    assert_eq!(wanted.unreachable.len(), 0);

    facts.gateways.insert(ip("10.9.9.9"), ip("172.171.6.250"));
    let wanted = desired(&facts, &snapshot());
    assert_eq!(target(&wanted, "10.9.9.9/32"), None);
    let said = &wanted.unreachable[&ip("10.9.9.9")];
    assert!(said.contains("reachableBy 172.171.6.250") && said.contains("not on a link"), "{said}");
}
