use manx_bgp::policy::{Action, Operation};
use manx_bgp::session::Password;

use super::*;

fn only(world: &World) -> Peer {
    let mut peers = world.at("a").peers;
    assert_eq!(peers.len(), 1);
    peers.pop_first().unwrap().1
}

#[test]
fn every_field_of_an_object_reaches_the_speaker() {
    let mut world = meshless();
    world.peer(
        "p",
        json!({
            "peerIP": "10.1.0.1", "asNumber": 65001, "localASNumber": 65009, "nextHopMode": "Self",
            "password": {"secretKeyRef": {"name": "s", "key": "k"}}, "maxRestartTime": "90s", "ttlSecurity": 2,
            "keepaliveTime": "20s", "numAllowedLocalASNumbers": 3,
        }),
    );
    let Peer { config, password, .. } = only(&world);
    assert_eq!((config.asn, config.local_asn), (asn(65001), Some(asn(65009))));
    assert_eq!((config.next_hop, config.own_as_allowed), (NextHopMode::Own, 3));
    assert_eq!(config.restart_time, Some(Duration::from_secs(90)));
    assert_eq!(config.keepalive, Some(Duration::from_secs(20)));
    assert_eq!(config.guard.ttl, Ttl::Security(2.try_into().unwrap()));
    assert_eq!(config.guard.password, Password::None);
    assert_eq!(password, Some(SecretRef { name: "s".into(), key: "k".into() }));
}

#[test]
fn a_session_is_made_from_the_nodes_address_unless_an_object_leaves_it_to_the_kernel() {
    for (source, expected) in [(json!(null), true), (json!("UseNodeIP"), true), (json!("None"), false)] {
        let mut world = meshless();
        world.peer("p", json!({"peerIP": "10.1.0.1", "asNumber": 65001, "sourceAddress": source}));
        assert_eq!(only(&world).config.local_address.is_some(), expected, "{source}");
    }
}

#[test]
fn without_a_distance_or_with_none_the_peer_may_be_anywhere() {
    let mut world = meshless();
    world.peer("p", json!({"peerIP": "10.1.0.1", "asNumber": 65001, "ttlSecurity": 0}));
    assert_eq!(only(&world).config.guard.ttl, Ttl::Any);
}

#[test]
fn filters_come_in_order_and_each_direction_has_its_own_rules() {
    let mut world = meshless();
    world.filter("b", json!({"importV4": [{"action": "Reject"}]}));
    world.filter(
        "a",
        json!({"exportV4": [{
            "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 26}, "source": "RemotePeers",
            "interface": "eth*", "peerType": "iBGP", "communities": {"values": ["65000:7"]}, "asPathPrefix": [65001],
            "priority": 5, "action": "Accept",
            "operations": [{"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [65000]}},
                           {"setPriority": {"value": 9}}],
        }]}),
    );
    world.peer("p", json!({"peerIP": "10.1.0.1", "asNumber": 65001, "filters": ["b", "a"]}));
    let config = only(&world).config;
    let names: Vec<&str> = config.import_filters.iter().map(|filter| filter.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(config.import_filters[0].ipv4[0].action, Action::Reject);
    assert!(config.import_filters[1].ipv4.is_empty() && config.export_filters[0].ipv4.is_empty());
    let rule = &config.export_filters[1].ipv4[0];
    let conditions = &rule.conditions;
    assert!(conditions.prefix.unwrap().matches(&"10.2.0.0/26".parse().unwrap()));
    assert!(!conditions.prefix.unwrap().matches(&"10.2.0.0/27".parse().unwrap()));
    assert!(conditions.learned && conditions.interface.as_ref().unwrap().matches("eth0"));
    assert_eq!(conditions.community.unwrap().to_string(), "65000:7");
    assert_eq!((&conditions.as_path_prefix[..], conditions.priority), (&[asn(65001)][..], Some(5)));
    let Action::Accept(operations) = &rule.action else { panic!("{rule:?}") };
    assert_eq!(
        operations[..],
        [
            Operation::AddCommunity("1:2:3".parse().unwrap()),
            Operation::PrependAsPath(vec![asn(65000)]),
            Operation::SetPriority(9),
        ]
    );
}

#[test]
fn a_filter_that_is_not_there_lets_nothing_pass_and_is_named() {
    let mut world = meshless();
    world.peer("p", json!({"peerIP": "10.1.0.1", "asNumber": 65001, "filters": ["lost"]}));
    let config = only(&world).config;
    for filter in [&config.import_filters[0], &config.export_filters[0]] {
        for rules in [&filter.ipv4, &filter.ipv6] {
            assert_eq!((rules.len(), &rules[0].action), (1, &Action::Reject));
            assert_eq!(rules[0].conditions, manx_bgp::policy::Conditions::default());
        }
    }
    assert!(world.at("a").says("BGPPeer p: spec.filters[0]: there is no BGPFilter lost"));
    // Who peers back misses it as well.
    world.peer("p", json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 64512, "filters": ["lost"]}));
    assert!(world.at("b").says("BGPPeer p: spec.filters[0]: there is no BGPFilter lost"));
    assert_eq!(world.at("c").complaints, []);
}

#[test]
fn what_has_no_protocol_part_yet_is_named_on_its_object_where_it_matters() {
    let peer = |more: Value| {
        let mut spec = json!({"peerIP": "10.1.0.1", "asNumber": 65001}).as_object().unwrap().clone();
        spec.extend(more.as_object().unwrap().clone());
        Value::Object(spec)
    };
    for (spec, words, sessions) in [
        (json!({"peerIP": "fd00::1", "asNumber": 1}), "spec.peerIP: fd00::1: IPv6 is not supported yet", 0),
        (
            json!({"localWorkloadSelector": "all()", "asNumber": 1}),
            "spec.localWorkloadSelector is not supported",
            0,
        ),
        (peer(json!({"fromTheFuture": 1})), "spec.fromTheFuture is not supported yet", 1),
        (peer(json!({"maxRestartTime": "2h"})), "spec.maxRestartTime: is more than the 4095 s", 1),
    ] {
        let mut world = meshless();
        world.peer("p", spec.clone());
        let peering = world.at("a");
        assert!(peering.says(&format!("BGPPeer p: {words}")), "{spec}: {:?}", peering.complaints);
        assert_eq!(peering.peers.len(), sessions, "{spec}");
        let mut elsewhere = spec.as_object().unwrap().clone();
        elsewhere.insert("node".into(), json!("b"));
        world.peer("p", Value::Object(elsewhere));
        assert_eq!(world.at("a").complaints, [], "{spec}");
    }
}

#[test]
fn what_the_bgp_configuration_asks_for_in_vain_is_named() {
    for (spec, field) in [
        (json!({"localWorkloadPeeringIPV4": "169.254.2.1"}), "localWorkloadPeeringIPV4"),
        (json!({"localWorkloadPeeringIPV6": "fe80::1"}), "localWorkloadPeeringIPV6"),
        (json!({"ipv4NormalRoutePriority": 512}), "ipv4NormalRoutePriority"),
        (json!({"ipv6NormalRoutePriority": 512}), "ipv6NormalRoutePriority"),
        (json!({"logSeverityScreen": "Debug"}), "logSeverityScreen"),
        (json!({"fromTheFuture": true}), "fromTheFuture"),
    ] {
        let mut world = three();
        world.configure("default", spec);
        assert!(
            world.at("a").says(&format!("BGPConfiguration default: spec.{field} is not supported yet")),
            "{field}"
        );
    }
    let mut world = three();
    world.configure(
        "default",
        json!({"logSeverityScreen": "Info", "ipv4NormalRoutePriority": 1024, "bindMode": "NodeIP"}),
    );
    world.configure("node.a", json!({"logSeverityScreen": "Debug"}));
    assert_eq!(world.at("b").complaints, []);
    assert!(world.at("a").says("BGPConfiguration node.a: spec.logSeverityScreen"));
}

#[test]
fn a_peer_may_have_a_gateway_of_its_own_and_whoever_peers_back_needs_none() {
    let mut world = meshless();
    let spec = json!({"node": "a", "peerIP": "10.0.0.2", "asNumber": 64512, "reachableBy": "10.0.0.254"});
    world.peer("p", spec);
    let (a, b) = (world.at("a"), world.at("b"));
    assert_eq!(a.peer("10.0.0.2").gateway, Some("10.0.0.254".parse().unwrap()));
    assert_eq!((b.peer("10.0.0.1").gateway, a.complaints.len()), (None, 0));
}
