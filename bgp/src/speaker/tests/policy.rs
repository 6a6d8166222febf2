//! Filters, policies and settings of peers, and their change while sessions stay.

use std::sync::Arc;

use super::world::{World, address, asn, config, net};
use crate::policy::{
    Action, Conditions, ExportPolicy, Filter, Glob, Interfaces, MatchOperator, NextHopMode, NodeExport,
    Operation, PrefixMatch, Rule,
};
use crate::speaker::{PeerConfig, SpeakerConfig};
use crate::wire::{AnyCommunity, Attributes};

pub(super) fn rule(cidr: &str, action: Action) -> Rule {
    let prefix = Some(PrefixMatch::new(MatchOperator::In, net(cidr)));
    Rule { conditions: Conditions { prefix, ..Conditions::default() }, action }
}

pub(super) fn filter(rules: Vec<Rule>) -> Vec<Arc<Filter>> {
    vec![Arc::new(Filter { name: "filter".into(), ipv4: rules, ipv6: Vec::new() })]
}

fn community(text: &str) -> AnyCommunity {
    text.parse().unwrap()
}

impl World {
    /// Takes the configuration of [`config`] with a change to one peer.
    fn reconfigure(&mut self, peer: u8, change: impl FnOnce(&mut PeerConfig)) {
        self.reconfigure_all(|config| change(config.peers.get_mut(&address(peer)).unwrap()));
    }

    fn reconfigure_all(&mut self, change: impl FnOnce(&mut SpeakerConfig)) {
        let mut new = config(&[2, 3, 11, 12]);
        change(&mut new);
        self.speaker.configure(self.now, new);
    }

    fn told(&self, peer: u8, prefix: &str) -> &Attributes {
        &self.heard[&peer].routes[&net(prefix)].0
    }
}

/// A world with something originated and two routes from peer 12.
fn with_routes() -> World {
    let mut world = World::new(|_| ());
    world.originates(&["192.168.1.0/26"]);
    [2, 3, 11, 12].into_iter().for_each(|peer| world.up(peer));
    world.announces(12, "10.1.0.0/16", |_| ());
    world.announces(12, "10.2.0.0/16", |_| ());
    world.transmit_all();
    world.changes();
    world
}

#[test]
fn an_import_filter_takes_effect_on_what_was_told_before_and_its_end_brings_it_back() {
    let mut world = with_routes();
    let prefer = Action::Accept(vec![Operation::SetPriority(7), Operation::AddCommunity(community("1:2"))]);
    let rules = vec![rule("10.1.0.0/16", Action::Reject), rule("10.2.0.0/16", prefer)];
    world.reconfigure(12, |peer| peer.import_filters = filter(rules));
    assert_eq!(world.changes(), ["10.1.0.0/16 -", "10.2.0.0/16 10.0.0.12"]);
    assert_eq!(world.speaker.best(&net("10.2.0.0/16")).unwrap().local_pref, 2_147_483_640);
    let status = world.speaker.status(world.now).peers.remove(3);
    assert_eq!((status.received, status.rejected), (1, 1));
    assert_eq!(world.hears(3), ["10.2.0.0/16", "192.168.1.0/26"]);
    assert!(world.told(3, "10.2.0.0/16").has_community(community("1:2")));
    world.announces(12, "10.1.9.0/24", |_| ());
    assert!(world.changes().is_empty(), "new routes go through the filter, too");
    world.reconfigure(12, |_| ());
    assert_eq!(world.changes(), ["10.1.0.0/16 10.0.0.12", "10.1.9.0/24 10.0.0.12", "10.2.0.0/16 10.0.0.12"]);
    assert_eq!(world.speaker.best(&net("10.2.0.0/16")).unwrap().local_pref, 100);
}

#[test]
fn an_export_filter_comes_before_the_policy_and_only_the_difference_is_told() {
    let mut world = with_routes();
    assert_eq!(world.hears(2), ["192.168.1.0/26"], "policy Own");
    let before = world.heard[&2].messages;
    let add = Action::Accept(vec![Operation::AddCommunity(community("64512:1:2"))]);
    world.reconfigure(2, |peer| peer.export_filters = filter(vec![rule("10.1.0.0/16", add)]));
    assert_eq!(world.hears(2), ["10.1.0.0/16", "192.168.1.0/26"]);
    assert!(world.told(2, "10.1.0.0/16").has_community(community("64512:1:2")));
    assert_eq!(world.heard[&2].messages, before + 1, "what has not changed is not said again");
    let reject = filter(vec![rule("0.0.0.0/0", Action::Reject)]);
    world.reconfigure(2, |peer| peer.export_filters = reject);
    assert!(world.hears(2).is_empty());
    assert_eq!(world.hears(3).len(), 3, "others are not concerned");
}

#[test]
fn a_change_behind_thousands_of_routes_that_stay_is_told_too() {
    let mut world = with_routes();
    let own = (0..6000u32).map(|n| net(&format!("10.{}.{}.0/24", 100 + n / 256, n % 256)));
    world.speaker.originate(world.now, own.chain([net("192.168.1.0/26")]).collect());
    assert_eq!(world.hears(2).len(), 6001);
    let reject = filter(vec![rule("192.168.0.0/16", Action::Reject)]);
    world.reconfigure(2, |peer| peer.export_filters = reject);
    assert_eq!(world.hears(2).len(), 6000);
}

#[test]
fn a_filter_prepends_behind_our_own_as() {
    let mut world = with_routes();
    let prepend = Action::Accept(vec![Operation::PrependAsPath(vec![asn(1), asn(2)])]);
    world.reconfigure(11, |peer| peer.export_filters = filter(vec![rule("0.0.0.0/0", prepend)]));
    world.transmit_all();
    assert_eq!(world.told(11, "192.168.1.0/26").as_path.to_string(), "64512 1 2");
    assert_eq!(world.told(11, "10.1.0.0/16").as_path.to_string(), "64512 1 2 65012");
}

#[test]
fn a_filter_knows_the_interface_of_a_next_hop_as_soon_as_the_owner_says_it() {
    let mut world = with_routes();
    let by_eth1 = Conditions { interface: Some(Glob("eth1".into())), ..Conditions::default() };
    let rules = filter(vec![Rule { conditions: by_eth1, action: Action::Reject }]);
    let connected = |name: &str| Interfaces([(net("10.0.0.0/24"), name.to_owned())].into());
    for (interfaces, taken) in
        [(Interfaces::default(), true), (connected("eth1"), false), (connected("eth0"), true)]
    {
        world.reconfigure_all(|config| {
            config.interfaces = interfaces;
            config.peers.values_mut().for_each(|peer| peer.import_filters = rules.clone());
        });
        assert_eq!(world.speaker.best(&net("10.1.0.0/16")).is_some(), taken);
        assert_eq!(world.hears(3).len(), if taken { 3 } else { 1 });
    }
}

#[test]
fn the_node_hides_adds_communities_and_passes_on_by_prefix() {
    let mut world = with_routes();
    world.originates(&["192.168.1.0/26", "192.168.2.0/26", "10.1.0.64/26"]);
    world.announces(12, "10.1.0.65/32", |_| ());
    let node = NodeExport {
        hidden: [net("192.168.2.0/24")].into(),
        blocks: [net("10.1.0.64/26")].into(),
        transit: [net("10.1.0.0/16")].into(),
        communities: vec![(net("10.0.0.0/8"), vec![community("1:1")])],
        local_pref: 7,
    };
    world.reconfigure_all(|config| {
        config.export = node;
        config.peers.get_mut(&address(3)).unwrap().export = ExportPolicy::Transit;
    });
    assert_eq!(world.hears(3), ["10.1.0.0/16", "10.1.0.64/26", "192.168.1.0/26"]);
    assert_eq!(world.hears(11), ["10.1.0.0/16", "10.1.0.64/26", "10.2.0.0/16", "192.168.1.0/26"], "All");
    assert_eq!(world.hears(2), ["10.1.0.64/26", "192.168.1.0/26"], "Own");
    assert!(world.told(2, "10.1.0.64/26").has_community(community("1:1")));
    assert!(world.told(3, "10.1.0.0/16").has_community(community("1:1")));
    assert!(world.told(2, "192.168.1.0/26").communities.is_empty());
    assert_eq!(world.told(2, "192.168.1.0/26").local_pref, Some(7));
    assert_eq!(world.told(3, "10.1.0.0/16").local_pref, Some(100), "learned from outside");
}

#[test]
fn the_next_hop_is_ours_or_kept_as_the_peer_wants_it() {
    let us = [10, 0, 0, 1].into();
    let learned = address(12);
    let cases =
        [(NextHopMode::Auto, learned, us), (NextHopMode::Own, us, us), (NextHopMode::Keep, learned, learned)];
    let mut world = with_routes();
    for (mode, inside, outside) in cases {
        world.reconfigure_all(|config| config.peers.values_mut().for_each(|peer| peer.next_hop = mode));
        world.transmit_all();
        for (peer, expected) in [(3, inside), (11, outside)] {
            assert_eq!(world.heard[&peer].routes[&net("10.1.0.0/16")].1, expected, "{mode:?} {peer}");
            assert_eq!(world.heard[&peer].routes[&net("192.168.1.0/26")].1, us, "ours lead to us");
        }
    }
}

#[test]
fn our_own_as_may_be_in_a_path_as_often_as_the_peer_is_allowed_to_say_it() {
    let mut world = with_routes();
    world.announces(11, "10.3.0.0/16", |it| {
        it.as_path = it.as_path.prepended(asn(64512)).prepended(asn(64512));
    });
    for (allowed, taken) in [(0, false), (1, false), (2, true), (0, false)] {
        world.reconfigure(11, |peer| peer.own_as_allowed = allowed);
        assert_eq!(world.speaker.best(&net("10.3.0.0/16")).is_some(), taken, "{allowed}");
    }
}

#[test]
fn a_peer_that_knows_us_by_another_as_sees_only_that() {
    let mut world =
        World::new(|config| config.peers.get_mut(&address(11)).unwrap().local_asn = Some(asn(65100)));
    world.originates(&["192.168.1.0/26"]);
    world.up(11);
    world.up(12);
    world.announces(12, "10.1.0.0/16", |_| ());
    world.transmit_all();
    assert_eq!(world.told(11, "192.168.1.0/26").as_path.to_string(), "65100");
    assert_eq!(world.told(11, "10.1.0.0/16").as_path.to_string(), "65100 65012");
    world.announces(11, "10.2.0.0/16", |it| it.as_path = it.as_path.prepended(asn(65100)));
    assert!(world.speaker.best(&net("10.2.0.0/16")).is_none(), "a loop");
    let session = world.speaker.sessions().find(|(peer, _)| *peer == address(11)).unwrap().1;
    assert_eq!(session.asn, asn(65100));
}

#[test]
fn a_peer_has_its_own_times_and_guard() {
    use crate::session::{Guard, Password, Secret, Ttl};
    use std::time::Duration;
    let guard = Guard { password: Password::Key(Secret::new(b"key").unwrap()), ttl: Ttl::default() };
    let world = World::new(|config| {
        let peer = config.peers.get_mut(&address(2)).unwrap();
        peer.keepalive = Some(Duration::from_secs(7));
        peer.restart_time = Some(Duration::from_secs(5000));
        peer.guard = guard.clone();
    });
    let sessions: Vec<_> = world.speaker.sessions().map(|(_, session)| session).collect();
    let times = |index: usize| (sessions[index].hold_time.as_secs(), sessions[index].graceful.time.as_secs());
    assert_eq!((times(0), times(1)), ((21, 4095), (90, 120)));
    assert_eq!((&sessions[0].guard, &sessions[1].guard), (&guard, &Guard::default()));
}
