//! Route reflection (RFC 4456). Peers 2 and 4 are clients, 3 and 5 are not, 11 is in another AS.

use std::net::Ipv4Addr;

use super::world::{World, address, config, graceful, net};
use crate::policy::ExportPolicy;
use crate::speaker::SpeakerConfig;

const CLUSTER: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const PEERS: [u8; 5] = [2, 3, 4, 5, 11];

fn reflector(clients: &[u8]) -> SpeakerConfig {
    let mut config = config(&PEERS);
    config.cluster_id = Some(CLUSTER);
    config.peers.values_mut().for_each(|peer| peer.export = ExportPolicy::All);
    clients.iter().for_each(|client| config.peers.get_mut(&address(*client)).unwrap().client = true);
    config
}

fn with_peers() -> World {
    let mut world = World::new(|config| *config = reflector(&[2, 4]));
    world.originates(&[]);
    PEERS.into_iter().for_each(|peer| world.up(peer));
    world
}

/// Who is told the prefix.
fn heard_by(world: &mut World, prefix: &str) -> Vec<u8> {
    for peer in PEERS {
        while world.transmit(peer) {}
    }
    PEERS.into_iter().filter(|peer| world.heard[peer].routes.contains_key(&net(prefix))).collect()
}

#[test]
fn what_a_client_tells_goes_to_all_and_what_others_tell_to_clients() {
    let mut world = with_peers();
    for (peer, hearers) in [
        (2, &[3, 4, 5, 11][..]),
        (4, &[2, 3, 5, 11]),
        (3, &[2, 4, 11]),
        (5, &[2, 4, 11]),
        (11, &[2, 3, 4, 5]),
    ] {
        let prefix = format!("10.{peer}.0.0/16");
        world.announces(peer, &prefix, |_| ());
        assert_eq!(heard_by(&mut world, &prefix), hearers, "from {peer} (RFC 4456 §6)");
    }
}

#[test]
fn reflection_adds_originator_and_cluster_and_changes_nothing_else() {
    let mut world = with_peers();
    world.announces(2, "10.2.0.0/16", |it| (it.local_pref, it.med) = (Some(70), Some(3)));
    world.announces(3, "10.3.0.0/16", |it| {
        it.originator_id = Some([9, 9, 9, 9].into());
        it.cluster_list = vec![[8, 8, 8, 8].into()];
    });
    world.announces(11, "10.11.0.0/16", |_| ());
    heard_by(&mut world, "10.2.0.0/16");
    let (first, next_hop) = &world.heard[&4].routes[&net("10.2.0.0/16")];
    assert_eq!((first.originator_id, &first.cluster_list[..]), (Some([10, 0, 0, 2].into()), &[CLUSTER][..]));
    assert_eq!((first.local_pref, first.med, *next_hop), (Some(70), Some(3), address(2)));
    let (second, _) = &world.heard[&4].routes[&net("10.3.0.0/16")];
    assert_eq!(second.originator_id, Some([9, 9, 9, 9].into()));
    assert_eq!(second.cluster_list, [CLUSTER, [8, 8, 8, 8].into()]);
    let (third, _) = &world.heard[&4].routes[&net("10.11.0.0/16")];
    assert_eq!((third.originator_id, third.cluster_list.len()), (None, 0), "that is no reflection");
    let (outside, _) = &world.heard[&11].routes[&net("10.3.0.0/16")];
    assert_eq!((outside.originator_id, outside.cluster_list.len()), (None, 0), "not beyond the AS");
}

#[test]
fn what_comes_back_through_our_cluster_or_from_ourselves_is_not_used() {
    let mut world = with_peers();
    world.announces(3, "10.1.0.0/16", |it| it.cluster_list = vec![[8, 8, 8, 8].into(), CLUSTER]);
    world.announces(3, "10.2.0.0/16", |it| it.originator_id = Some([10, 0, 0, 100].into()));
    world.announces(3, "10.3.0.0/16", |it| it.cluster_list = vec![[10, 0, 0, 100].into()]);
    let usable = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(|prefix| world.speaker.best(&net(prefix)));
    assert_eq!(usable.map(|path| path.is_some()), [false, false, true], "our identifier is not our cluster");
    let mut other = reflector(&[2, 4]);
    other.cluster_id = None;
    world.speaker.configure(world.now, other);
    assert!(world.speaker.best(&net("10.1.0.0/16")).is_some(), "another cluster, another loop");
    assert!(world.speaker.best(&net("10.3.0.0/16")).is_none());
}

#[test]
fn a_peer_becomes_a_client_and_ceases_to_be_one_while_its_session_stays() {
    let mut world = with_peers();
    world.announces(3, "10.3.0.0/16", |_| ());
    world.announces(5, "10.5.0.0/16", |_| ());
    assert_eq!(heard_by(&mut world, "10.3.0.0/16"), [2, 4, 11]);
    world.speaker.configure(world.now, reflector(&[2, 4, 5]));
    assert_eq!(heard_by(&mut world, "10.3.0.0/16"), [2, 4, 5, 11]);
    assert_eq!(heard_by(&mut world, "10.5.0.0/16"), [2, 3, 4, 11]);
    world.speaker.configure(world.now, reflector(&[]));
    assert_eq!(heard_by(&mut world, "10.3.0.0/16"), [11]);
}

#[test]
fn where_a_prefix_has_moved_counts_what_a_living_reflector_says_and_not_what_a_dead_one_said() {
    const PREFIX: &str = "192.168.7.0/26";
    let says = |world: &mut World, peer: u8, node: u8| {
        world.announces(peer, PREFIX, |it| it.originator_id = Some([10, 0, 1, node].into()));
    };
    let mut world = World::new(|_| ());
    world.originates(&[]);
    for reflector in [2, 3] {
        world.up(reflector);
        says(&mut world, reflector, 1);
    }
    assert_eq!(world.changes(), ["192.168.7.0/26 10.0.0.2"]);
    world.down(2, true);
    assert!(world.changes().is_empty(), "the same node, whoever says it");
    says(&mut world, 3, 9);
    assert_eq!(world.changes(), ["192.168.7.0/26 10.0.0.3"], "the dead one cannot take back its word");
    world.up_with(2, graceful(true, true));
    says(&mut world, 2, 9);
    assert_eq!(world.changes(), ["192.168.7.0/26 10.0.0.2"]);
    // It has heard of the move, and dies before the other does.
    says(&mut world, 3, 1);
    world.down(3, true);
    world.changes();
    assert_eq!(world.speaker.best(&net(PREFIX)).unwrap().peer, address(2));
}

#[test]
fn what_is_passed_on_outside_is_a_detour_and_what_is_ours_is_not() {
    let mut world = with_peers();
    world.originates(&["10.1.0.0/16"]);
    world.announces(2, "10.2.0.0/16", |it| it.med = Some(7));
    heard_by(&mut world, "10.2.0.0/16");
    let med = |prefix: &str| world.heard[&11].routes[&net(prefix)].0.med;
    assert_eq!(["10.1.0.0/16", "10.2.0.0/16"].map(med), [None, Some(1)]);
}
