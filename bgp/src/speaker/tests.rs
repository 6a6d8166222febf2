//! The speaker as its peers and its owner see it.

mod network;
mod policy;
mod reflection;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::Asn;
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::{Change, PeerConfig, SpeakerConfig};
use crate::policy::ExportPolicy;
use crate::session::{Output, Reason, State};
use crate::wire::{Attributes, Community, Family};
use policy::{filter, rule};
use world::{SECOND, World, address, config, graceful, net};

#[test]
fn an_originated_prefix_is_told_inside_with_preference_and_outside_with_our_as() {
    let mut world = World::new(|_| ());
    world.up(2);
    world.originates(&["192.168.1.0/26"]);
    world.up(12);
    world.transmit_all();
    let (inside, next_hop) = &world.heard[&2].routes[&net("192.168.1.0/26")];
    assert_eq!((inside.local_pref, inside.as_path.length(), *next_hop), (Some(100), 0, [10, 0, 0, 1].into()));
    let (outside, next_hop) = &world.heard[&12].routes[&net("192.168.1.0/26")];
    assert_eq!((outside.local_pref, outside.as_path.to_string()), (None, "64512".to_owned()));
    assert_eq!(*next_hop, IpAddr::from([10, 0, 0, 1]));
    world.originates(&[]);
    assert!(world.hears(2).is_empty() && world.hears(12).is_empty());
}

#[test]
fn learned_routes_are_told_only_to_who_asked_and_never_from_inside_to_inside() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    [2, 3, 11, 12].into_iter().for_each(|peer| world.up(peer));
    world.announces(2, "10.2.0.0/16", |_| ());
    world.announces(12, "10.12.0.0/16", |it| (it.med, it.local_pref) = (Some(5), None));
    world.announces(11, "10.11.0.0/16", |_| ());
    world.announces(12, "10.99.0.0/16", |it| it.communities = vec![Community::NO_ADVERTISE]);
    world.announces(12, "10.98.0.0/16", |it| it.communities = vec![Community::NO_EXPORT]);
    assert_eq!(world.hears(2), Vec::<String>::new(), "Own");
    assert_eq!(world.hears(3), ["10.11.0.0/16", "10.12.0.0/16", "10.98.0.0/16"], "not 2's, which is inside");
    assert_eq!(world.hears(11), ["10.2.0.0/16", "10.12.0.0/16"], "not its own, not NO_EXPORT");
    let (inside, next_hop) = &world.heard[&3].routes[&net("10.12.0.0/16")];
    assert_eq!((inside.med, inside.local_pref, *next_hop), (Some(5), Some(100), address(12)));
    let (outside, next_hop) = &world.heard[&11].routes[&net("10.12.0.0/16")];
    assert_eq!((outside.med, outside.as_path.to_string()), (None, "64512 65012".to_owned()));
    assert_eq!(*next_hop, IpAddr::from([10, 0, 0, 1]));
}

#[test]
fn the_export_policy_can_change_while_the_session_stays() {
    let mut world = World::new(|_| ());
    world.originates(&["192.168.1.0/26"]);
    world.up(2);
    world.up(11);
    world.announces(11, "10.11.0.0/16", |_| ());
    assert_eq!(world.hears(2), ["192.168.1.0/26"]);
    for (export, expected) in [(ExportPolicy::All, 2), (ExportPolicy::Own, 1)] {
        let mut new = config(&[2, 3, 11, 12]);
        new.peers.entry(address(2)).and_modify(|peer| peer.export = export);
        world.speaker.configure(world.now, new);
        assert_eq!(world.hears(2).len(), expected);
    }
}

#[test]
fn many_prefixes_with_equal_attributes_share_messages() {
    let mut world = World::new(|_| ());
    world.up(2);
    let prefixes = (0..3000u32).map(|n| net(&format!("10.{}.{}.0/24", n / 256, n % 256))).collect();
    world.speaker.originate(world.now, prefixes);
    world.transmit_all();
    assert_eq!(world.heard[&2].routes.len(), 3000);
    assert_eq!(world.heard[&2].messages, 4, "3000 prefixes of four octets, and End-of-RIB");
}

#[test]
fn routes_of_many_messages_leave_in_one_when_they_say_the_same() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    world.up(3);
    world.up(12);
    world.transmit_all();
    let before = world.heard[&3].messages;
    (0..50).for_each(|number| world.announces(12, &format!("10.{number}.0.0/16"), |_| ()));
    assert_eq!(world.hears(3).len(), 50);
    assert_eq!(world.heard[&3].messages, before + 1);
}

#[test]
fn what_changes_back_before_it_is_told_is_never_told() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    world.up(2);
    world.transmit_all();
    world.originates(&["192.168.1.0/26"]);
    world.originates(&[]);
    assert!(!world.transmit(2));
    world.up(11);
    world.announces(11, "10.0.0.0/8", |_| ());
    world.withdraws(11, "10.0.0.0/8");
    assert!(!world.changes().iter().any(|change| change.starts_with("10.")));
}

#[test]
fn a_refresh_repeats_everything() {
    let mut world = World::new(|_| ());
    world.originates(&["192.168.1.0/26"]);
    world.up(2);
    world.transmit_all();
    world.heard.clear();
    world.says(2, Output::Refresh(Family::IPV4_UNICAST));
    assert_eq!(world.hears(2), ["192.168.1.0/26"]);
}

#[test]
fn the_best_path_is_told_and_the_next_best_when_it_goes() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    world.up(11);
    world.up(2);
    world.announces(2, "10.0.0.0/8", |it| it.local_pref = Some(50));
    assert_eq!(world.changes(), ["10.0.0.0/8 10.0.0.2"]);
    world.announces(11, "10.0.0.0/8", |_| ());
    assert_eq!(world.changes(), ["10.0.0.0/8 10.0.0.11"]);
    world.announces(11, "10.0.0.0/8", |_| ());
    assert!(world.changes().is_empty(), "a repetition changes nothing");
    world.down(11, false);
    assert_eq!(world.changes(), ["10.0.0.0/8 10.0.0.2"]);
    world.originates(&["10.0.0.0/8"]);
    assert_eq!(world.changes(), ["10.0.0.0/8 -"], "what we originate has no path of others");
    world.originates(&[]);
    assert_eq!(world.changes(), ["10.0.0.0/8 10.0.0.2"]);
    world.withdraws(2, "10.0.0.0/8");
    assert_eq!(world.changes(), ["10.0.0.0/8 -"]);
}

#[test]
fn routes_that_lead_back_to_us_or_nowhere_are_not_taken_and_replace_what_was() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    world.up(2);
    let cases: [fn(&mut Attributes); 3] = [
        |it| it.as_path = it.as_path.prepended(Asn::DEFAULT),
        |it| it.originator_id = Some([10, 0, 0, 100].into()),
        |it| it.cluster_list = vec![[10, 0, 0, 100].into()],
    ];
    for case in cases {
        world.announces(2, "10.0.0.0/8", |_| ());
        assert_eq!(world.changes().last().unwrap(), "10.0.0.0/8 10.0.0.2");
        world.announces(2, "10.0.0.0/8", case);
        assert_eq!(world.changes(), ["10.0.0.0/8 -"]);
        assert_eq!((peer_2(&world).received, peer_2(&world).rejected), (0, 1));
    }
    for martian in ["127.0.0.0/8", "224.0.0.0/4", "0.1.0.0/16", "255.255.255.255/32"] {
        world.announces(2, martian, |_| ());
        assert!(world.changes().is_empty(), "{martian}");
    }
    world.announces(2, "0.0.0.0/0", |_| ());
    assert_eq!(world.changes(), ["0.0.0.0/0 10.0.0.2"], "a default route is welcome");
}

#[test]
fn a_peer_that_is_removed_takes_its_routes_along_and_the_others_stay() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    world.up(2);
    world.up(12);
    world.announces(2, "10.2.0.0/16", |_| ());
    world.announces(12, "10.12.0.0/16", |_| ());
    world.changes();
    world.speaker.configure(world.now, config(&[2, 3, 11]));
    assert_eq!(world.changes(), ["10.12.0.0/16 -"]);
    assert_eq!(world.speaker.status(world.now).peers.len(), 3);
}

/// A world in which peer 2 told two prefixes and everybody has converged.
fn with_two_routes() -> World {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    world.up(2);
    world.announces(2, "10.1.0.0/16", |_| ());
    world.announces(2, "10.2.0.0/16", |_| ());
    world.end_of_rib(2);
    world.changes();
    world
}

fn peer_2(world: &World) -> super::PeerStatus {
    world.speaker.status(world.now).peers.remove(0)
}

#[test]
fn routes_of_a_restarting_peer_stay_until_its_end_of_rib() {
    let mut world = with_two_routes();
    world.down(2, true);
    world.pass(100 * SECOND);
    assert!(world.changes().is_empty());
    assert_eq!((peer_2(&world).received, peer_2(&world).stale), (2, 2));
    assert_eq!(peer_2(&world).stale_for, Some(20 * SECOND));
    world.up_with(2, graceful(true, true));
    world.pass(100 * SECOND);
    world.announces(2, "10.1.0.0/16", |_| ());
    assert_eq!(world.changes(), ["converged"], "the restart timer ended with the session's return");
    world.end_of_rib(2);
    assert_eq!(world.changes(), ["10.2.0.0/16 -"]);
    assert_eq!((peer_2(&world).received, peer_2(&world).stale, peer_2(&world).stale_for), (1, 0, None));
}

#[test]
fn routes_of_a_peer_that_does_not_come_back_go_with_its_restart_time() {
    let mut world = with_two_routes();
    world.down(2, true);
    world.pass(119 * SECOND);
    assert_eq!(peer_2(&world).received, 2);
    world.pass(SECOND);
    assert_eq!(peer_2(&world).received, 0);
    assert!(world.changes().contains(&"10.1.0.0/16 -".to_owned()));
}

#[test]
fn routes_of_a_peer_that_did_not_preserve_them_go_when_it_comes_back() {
    for graceful in [graceful(true, false), None] {
        let mut world = with_two_routes();
        world.down(2, true);
        world.up_with(2, graceful);
        assert_eq!(world.changes(), ["10.1.0.0/16 -", "10.2.0.0/16 -"]);
    }
}

#[test]
fn a_peer_that_says_goodbye_loses_its_routes_even_the_stale_ones() {
    let mut world = with_two_routes();
    world.down(2, true);
    world.up_with(2, graceful(true, true));
    world.down(2, false);
    assert_eq!(world.changes(), ["10.1.0.0/16 -", "10.2.0.0/16 -"]);
}

#[test]
fn a_peer_may_restart_again_and_again_but_not_for_ever() {
    let mut world = with_two_routes();
    for _ in 0..6 {
        world.down(2, true);
        world.pass(50 * SECOND);
        world.up_with(2, graceful(true, true));
        world.announces(2, "10.1.0.0/16", |_| ());
    }
    assert!(!world.changes().contains(&"10.2.0.0/16 -".to_owned()), "300 s after the first loss");
    world.down(2, true);
    world.up_with(2, graceful(true, true));
    world.announces(2, "10.1.0.0/16", |_| ());
    world.pass(60 * SECOND);
    assert_eq!(world.changes(), ["10.2.0.0/16 -"], "360 s after the first loss");
}

#[test]
fn a_first_start_tells_paths_at_once_and_converges_with_the_last_end_of_rib() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    for peer in [2, 3, 11] {
        world.up(peer);
        world.end_of_rib(peer);
    }
    world.up(12);
    world.announces(12, "10.0.0.0/8", |_| ());
    assert_eq!(world.changes(), ["10.0.0.0/8 10.0.0.12"]);
    world.end_of_rib(12);
    assert_eq!(world.changes(), ["converged"]);
    world.end_of_rib(12);
    assert!(world.changes().is_empty(), "said once");
}

#[test]
fn a_peer_that_never_comes_holds_nobody_up_beyond_the_restart_time() {
    let mut world = World::new(|_| ());
    world.originates(&[]);
    world.pass(119 * SECOND);
    assert!(world.changes().is_empty());
    world.pass(SECOND);
    assert_eq!(world.changes(), ["converged"]);
}

#[test]
fn nothing_converges_before_the_owner_has_said_what_it_originates() {
    let mut world = World::new(|config| config.peers.clear());
    world.pass(1000 * SECOND);
    assert!(world.changes().is_empty());
    world.originates(&[]);
    assert_eq!(world.changes(), ["converged"]);
}

#[test]
fn end_of_rib_waits_for_the_owner_and_is_sent_once() {
    let mut world = World::new(|_| ());
    world.up(2);
    world.transmit_all();
    assert_eq!(world.heard[&2].ends, 0, "peers would drop what we have not repeated yet");
    world.originates(&["192.168.1.0/26"]);
    world.transmit_all();
    world.originates(&[]);
    world.transmit_all();
    assert_eq!(world.heard[&2].ends, 1);
}

#[test]
fn a_restart_with_forwarding_preserved_holds_best_paths_back_but_announces_ours_at_once() {
    let mut world = World::new(|config| config.forwarding_preserved = true);
    let said = |world: &World| world.speaker.sessions().next().unwrap().1.graceful;
    assert!(said(&world).restarting && said(&world).forwarding);
    world.originates(&["192.168.1.0/26"]);
    for peer in [2, 3, 12] {
        world.up(peer);
        world.announces(peer, "10.0.0.0/8", |_| ());
        world.end_of_rib(peer);
    }
    assert!(world.changes().is_empty());
    assert_eq!(world.hears(2), ["192.168.1.0/26"]);
    assert_eq!(world.hears(3), ["192.168.1.0/26"], "nothing is chosen yet");
    assert_eq!((world.heard[&2].ends, world.heard[&3].ends), (1, 0));
    world.up(11);
    world.end_of_rib(11);
    assert_eq!(world.changes(), ["10.0.0.0/8 10.0.0.2", "converged"]);
    assert!(!said(&world).restarting && said(&world).forwarding);
    world.announces(12, "10.12.0.0/16", |_| ());
    assert_eq!(world.hears(3), ["10.12.0.0/16", "192.168.1.0/26"]);
    assert_eq!(world.heard[&3].ends, 1);
}

#[test]
fn two_that_restart_at_once_do_not_wait_for_each_other() {
    let mut world = World::new(|config| {
        *config = self::config(&[2, 3]);
        config.forwarding_preserved = true;
    });
    world.originates(&[]);
    world.up_with(3, graceful(true, true));
    world.up_with(2, graceful(true, true));
    assert!(world.changes().is_empty(), "2 gets ours at once, so nothing is lost by waiting for its own");
    world.end_of_rib(2);
    assert_eq!(world.changes(), ["converged"], "3 waits for us (RFC 4724 §4.1)");
}

#[test]
fn faults_and_states_are_shown() {
    let mut world = World::new(|_| ());
    world.says(2, Output::State(State::OpenSent));
    world.says(2, Output::Failed(Reason::Dial("refused".into())));
    world.now += SECOND;
    let status = peer_2(&world);
    assert_eq!((status.state, status.state_for), (State::OpenSent, SECOND));
    assert_eq!(status.last_error.as_deref(), Some("cannot connect: refused"));
    assert_eq!(world.speaker.take_changes(), [Change::Peers]);
    assert_eq!(world.speaker.take_changes(), []);
}

/// What can happen to a speaker; numbers choose a peer and a prefix.
#[derive(Clone, Debug)]
enum Step {
    Up(u8),
    Down(u8),
    Announce(u8, u8, u8),
    Withdraw(u8, u8),
    Originate(BTreeSet<u8>),
    Transmit(u8),
    Refresh(u8),
    Configure(u8),
}

/// Some configurations of the same peers.
fn variant(number: u8) -> SpeakerConfig {
    use crate::policy::{Action, Operation};
    let mut config = config(&[2, 3, 11, 12]);
    let mut peer = |number: u8, change: fn(&mut PeerConfig)| {
        config.peers.entry(address(number)).and_modify(change);
    };
    let prefer = || Action::Accept(vec![Operation::SetPriority(1)]);
    match number {
        1 => {
            peer(12, |peer| peer.import_filters = filter(vec![rule("10.1.0.0/16", Action::Reject)]));
            peer(2, |peer| peer.client = true);
        }
        2 => {
            let rules = filter(vec![rule("10.2.0.0/16", prefer()), rule("10.3.0.0/16", Action::Reject)]);
            config.peers.values_mut().for_each(|peer| peer.export_filters = rules.clone());
            config.cluster_id = Some([9, 9, 9, 9].into());
        }
        3 => {
            let rules = filter(vec![rule("10.2.0.0/15", prefer())]);
            config.peers.entry(address(11)).and_modify(|peer| peer.import_filters = rules);
            config.export.hidden.insert(net("10.4.0.0/16"));
            config.export.communities.push((net("10.0.0.0/8"), vec!["1:1".parse().unwrap()]));
        }
        _ => (),
    }
    config
}

fn any_step() -> impl Strategy<Value = Step> {
    let peer = || prop::sample::select(vec![2u8, 3, 11, 12]);
    prop_oneof![
        peer().prop_map(Step::Up),
        peer().prop_map(Step::Down),
        (peer(), 0..6u8, 0..3u8).prop_map(|(peer, prefix, med)| Step::Announce(peer, prefix, med)),
        (peer(), 0..6u8, 0..3u8).prop_map(|(peer, prefix, med)| Step::Announce(peer, prefix, med)),
        (peer(), 0..6u8).prop_map(|(peer, prefix)| Step::Withdraw(peer, prefix)),
        prop::collection::btree_set(0..6u8, 0..3).prop_map(Step::Originate),
        peer().prop_map(Step::Transmit),
        peer().prop_map(Step::Refresh),
        (0..4u8).prop_map(Step::Configure),
    ]
}

proptest! {
    /// Whatever happens in whatever order, peers and kernel end with what a speaker would have told them that saw
    /// the final state only.
    #[test]
    fn the_end_depends_on_facts_and_not_on_history(
        steps in prop::collection::vec(any_step(), 0..60),
        restarted in any::<bool>(),
    ) {
        let mut world = World::new(|config| config.forwarding_preserved = restarted);
        let (mut up, mut own) = (BTreeSet::new(), BTreeSet::new());
        let mut told: BTreeMap<(u8, u8), u8> = BTreeMap::new();
        let mut kernel = BTreeMap::new();
        let mut configured = 0;
        let prefix = |number: u8| format!("10.{number}.0.0/16");
        for step in steps {
            match step {
                Step::Up(peer) => if up.insert(peer) { world.up(peer) },
                Step::Down(peer) => if up.remove(&peer) {
                    world.down(peer, false);
                    told.retain(|(from, _), _| *from != peer);
                },
                Step::Announce(peer, number, med) => if up.contains(&peer) {
                    told.insert((peer, number), med);
                    world.announces(peer, &prefix(number), |it| it.med = Some(med.into()));
                },
                Step::Withdraw(peer, number) => if up.contains(&peer) {
                    told.remove(&(peer, number));
                    world.withdraws(peer, &prefix(number));
                },
                Step::Originate(numbers) => {
                    own = numbers;
                    world.speaker.originate(world.now, own.iter().map(|it| net(&prefix(*it))).collect());
                }
                Step::Configure(number) => {
                    configured = number;
                    let mut config = variant(number);
                    config.forwarding_preserved = restarted;
                    world.speaker.configure(world.now, config);
                }
                Step::Transmit(peer) => drop(world.transmit(peer)),
                Step::Refresh(peer) => if up.contains(&peer) {
                    world.says(peer, Output::Refresh(Family::IPV4_UNICAST));
                },
            }
            if own.len() % 2 == 0 {
                apply(&mut kernel, world.speaker.take_changes());
            }
        }
        let mut fresh = World::new(|config| *config = variant(configured));
        let finish = |world: &mut World, kernel: &mut BTreeMap<IpNet, super::BestPath>| {
            world.speaker.originate(world.now, own.iter().map(|it| net(&prefix(*it))).collect());
            world.pass(1000 * SECOND);
            world.transmit_all();
            apply(kernel, world.speaker.take_changes());
        };
        finish(&mut world, &mut kernel);
        up.iter().for_each(|peer| fresh.up(*peer));
        for ((peer, number), med) in &told {
            fresh.announces(*peer, &prefix(*number), |it| it.med = Some((*med).into()));
        }
        let mut expected = BTreeMap::new();
        finish(&mut fresh, &mut expected);
        prop_assert_eq!(kernel, expected);
        for peer in up {
            prop_assert_eq!(&world.heard[&peer].routes, &fresh.heard[&peer].routes, "peer {}", peer);
            prop_assert_eq!(world.heard[&peer].ends, 1);
        }
    }
}

fn apply(kernel: &mut BTreeMap<IpNet, super::BestPath>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Best { prefix, path: Some(path) } => drop(kernel.insert(prefix, path)),
            Change::Best { prefix, path: None } => drop(kernel.remove(&prefix)),
            Change::Converged | Change::Peers => (),
        }
    }
}
