use std::sync::Arc;

use manx_model::Asn;

use super::{Path, Rung, decide};
use crate::rib::Neighbour;
use crate::wire::{AsPath, Attributes, Origin, Segment, SegmentKind};

/// A path from the peer 10.0.0.`peer`, whose AS_PATH is `asns`, changed by `change`.
fn path(peer: u8, asns: &[u32], change: impl FnOnce(&mut Path)) -> Path {
    let asns: Vec<_> = asns.iter().filter_map(|number| Asn::new(*number)).collect();
    let segments = if asns.is_empty() { vec![] } else { vec![Segment { kind: SegmentKind::Sequence, asns }] };
    let attributes = Attributes { as_path: AsPath(segments), ..Attributes::default() };
    let address = [10, 0, 0, peer];
    let from = Neighbour {
        address: address.into(),
        asn: Asn::DEFAULT,
        router_id: address.into(),
        external: true,
        local: [10, 0, 0, 100].into(),
    };
    let attributes = Arc::new(attributes);
    let mut path = Path {
        received: attributes.clone(),
        attributes,
        next_hop: address.into(),
        from,
        stale: false,
        rejected: None,
    };
    change(&mut path);
    path
}

fn attributes(path: &mut Path) -> &mut Attributes {
    Arc::make_mut(&mut path.attributes)
}

#[test]
fn each_rung_decides_when_those_above_are_equal() {
    let plain = |peer| path(peer, &[1, 2], |_| ());
    // The first path wins, though every rung below the one in question speaks for the second.
    let cases = [
        (path(9, &[1, 2, 3], |it| attributes(it).local_pref = Some(101)), plain(1), Rung::LocalPref),
        (path(9, &[1], |it| attributes(it).origin = Origin::Incomplete), plain(1), Rung::AsPathLength),
        (
            path(9, &[1, 2], |it| attributes(it).med = Some(9)),
            path(1, &[1, 2], |it| attributes(it).origin = Origin::Egp),
            Rung::Origin,
        ),
        (
            path(9, &[1, 2], |it| it.from.external = false),
            path(1, &[1, 3], |it| attributes(it).med = Some(1)),
            Rung::Med,
        ),
        (plain(9), path(1, &[1, 2], |it| it.from.external = false), Rung::External),
        (
            path(9, &[1, 2], |it| attributes(it).originator_id = Some([12, 0, 0, 0].into())),
            path(1, &[1, 2], |it| {
                attributes(it).originator_id = Some([11, 0, 0, 0].into());
                it.stale = true;
            }),
            Rung::Living,
        ),
        (
            path(9, &[1, 2], |it| attributes(it).cluster_list = vec![[1, 1, 1, 1].into()]),
            path(1, &[1, 2], |it| attributes(it).originator_id = Some([11, 0, 0, 0].into())),
            Rung::RouterId,
        ),
        (
            path(9, &[1, 2], |it| it.from.router_id = [1, 1, 1, 1].into()),
            path(1, &[1, 2], |it| {
                it.from.router_id = [1, 1, 1, 1].into();
                attributes(it).cluster_list = vec![[1, 1, 1, 1].into()];
            }),
            Rung::ClusterListLength,
        ),
        (
            path(1, &[1, 2], |it| it.from.router_id = [1, 1, 1, 1].into()),
            path(9, &[1, 2], |it| it.from.router_id = [1, 1, 1, 1].into()),
            Rung::PeerAddress,
        ),
    ];
    for (winner, loser, rung) in cases {
        assert_eq!(decide(&[winner.clone(), loser.clone()]), Some((0, rung)));
        assert_eq!(decide(&[loser, winner]), Some((1, rung)), "the order does not matter");
    }
}

#[test]
fn med_is_compared_only_between_paths_of_the_same_neighbour_and_without_regard_to_order() {
    let a = path(3, &[1], |it| attributes(it).med = Some(10));
    let b = path(2, &[1], |it| attributes(it).med = Some(20));
    let c = path(1, &[2], |it| attributes(it).med = Some(30));
    for paths in [[&a, &b, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
        let paths = paths.map(Clone::clone);
        let (best, _) = decide(&paths).unwrap();
        assert_eq!(paths[best].from.address, c.from.address, "b falls to a by MED, a to c by identifier");
    }
}

#[test]
fn a_path_that_is_not_used_takes_no_part_in_the_decision() {
    let rejected = path(1, &[], |it| it.rejected = Some(crate::policy::Rejected::Filtered));
    assert_eq!(decide(&[rejected.clone(), path(2, &[1], |_| ())]), Some((1, Rung::OnlyPath)));
    assert_eq!(decide(&[rejected]), None);
}

#[test]
fn a_single_path_needs_no_decision_and_no_path_has_none() {
    assert_eq!(decide(&[path(1, &[], |_| ())]), Some((0, Rung::OnlyPath)));
    assert_eq!(decide(&[]), None);
}
