//! The plain difference, against a kernel that behaves as Linux does, on arbitrary tables.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::*;
use crate::{Hop, IfIndex, Protocol};

/// What the kernel does with an operation, as far as routes go.
fn apply(snapshot: &mut Snapshot, operation: &Operation) {
    let routes = &mut snapshot.routes;
    match operation {
        Operation::AddRoute(route) => {
            assert!(!routes.iter().any(|it| it.key == route.key), "EEXIST: {route:?}");
            routes.push(route.clone());
        }
        Operation::ReplaceRoute(route) => {
            let present = routes.iter_mut().find(|it| it.key == route.key).expect("something to replace");
            assert_eq!(present.protocol, Protocol::MANX, "another program's route");
            *present = route.clone();
        }
        Operation::DeleteRoute(route) => {
            let at = routes.iter().position(|it| it == route).expect("something to delete");
            routes.remove(at);
        }
        Operation::TunnelUp { .. } | Operation::TunnelDown => panic!("not a route"),
    }
}

fn target() -> impl Strategy<Value = Target> {
    let hop = (1..4u32, prop::option::of(1..4u8)).prop_map(|(device, gateway)| Hop {
        device: IfIndex(device),
        gateway: gateway.map(|last| [10, 0, 0, last].into()),
        onlink: false,
    });
    prop_oneof![Just(Target::Blackhole), prop::collection::vec(hop, 1..3).prop_map(Target::Hops)]
}

fn key() -> impl Strategy<Value = RouteKey> {
    (0..6u8, prop_oneof![Just(0u8), Just(6)], 0..2u32, any::<bool>()).prop_map(
        |(third, bits, metric, ipv6)| {
            let key = RouteKey::of(net(&match ipv6 {
                true => format!("fd00:{third}::/{}", 128 - bits),
                false => format!("192.168.{third}.0/{}", 32 - bits),
            }));
            RouteKey { priority: key.priority + metric, ..key }
        },
    )
}

fn table(protocol: impl Strategy<Value = u8>) -> impl Strategy<Value = Vec<Route>> {
    prop::collection::btree_map(key(), (target(), protocol), 0..12).prop_map(|routes| {
        let route = |(key, (target, protocol))| Route { key, protocol: Protocol(protocol), target };
        routes.into_iter().map(route).collect()
    })
}

fn desired(wanted: &[Route], snapshot: &Snapshot) -> Desired {
    let foreign: BTreeSet<RouteKey> = snapshot.foreign().map(|route| route.key).collect();
    let free = wanted.iter().filter(|route| !foreign.contains(&route.key));
    Desired { routes: free.map(|route| (route.key, route.clone())).collect(), ..Desired::default() }
}

fn sorted(mut routes: Vec<Route>) -> Vec<Route> {
    routes.sort_by_key(|route| (route.key, route.protocol));
    routes
}

proptest! {
    #[test]
    fn applying_the_plan_gives_what_is_desired_and_leaves_the_rest(
        wanted in table(Just(77)),
        present in table(prop_oneof![Just(77u8), Just(2), Just(4), Just(12)]),
    ) {
        let mut snapshot = Snapshot { routes: present, ..Snapshot::default() };
        let desired = desired(&wanted, &snapshot);
        let expected: Vec<Route> = snapshot.foreign().cloned().chain(desired.routes.values().cloned()).collect();
        for operation in plan(&desired, &snapshot, Sweep::ALL) {
            apply(&mut snapshot, &operation);
        }
        prop_assert_eq!(sorted(snapshot.routes.clone()), sorted(expected));
        prop_assert_eq!(plan(&desired, &snapshot, Sweep::ALL), vec![]);
    }

    #[test]
    fn without_permission_nothing_of_that_kind_is_lost(
        wanted in table(Just(77)),
        present in table(Just(77)),
        local: bool,
        remote: bool,
    ) {
        let sweep = Sweep { local, remote };
        let before = present.clone();
        let mut snapshot = Snapshot { routes: present, ..Snapshot::default() };
        let desired = desired(&wanted, &snapshot);
        for operation in plan(&desired, &snapshot, sweep) {
            apply(&mut snapshot, &operation);
        }
        for route in before.iter().filter(|route| !sweep.permits(route.class())) {
            let now = snapshot.routes.iter().find(|it| it.key == route.key);
            prop_assert!(now.is_some(), "{:?} is lost", route);
            if route.class() == RouteClass::Local {
                prop_assert_eq!(now.map(Route::class), Some(RouteClass::Local));
            }
        }
        prop_assert_eq!(plan(&desired, &snapshot, sweep), vec![]);
    }
}

#[test]
fn pods_come_before_their_blocks_blackhole_and_deletions_come_last() {
    let block = route("192.168.1.0/26", 0, Protocol::MANX, Target::Blackhole);
    let pod = via("192.168.1.3/32", 0, Protocol::MANX, &[hop(CALI, None)]);
    let old = route("192.168.2.0/26", 0, Protocol::MANX, Target::Blackhole);
    let old_pod = via("192.168.2.3/32", 0, Protocol::MANX, &[hop(CALI, None)]);
    let snapshot = Snapshot { routes: vec![old_pod.clone(), old.clone()], ..Snapshot::default() };
    let desired = desired(&[block.clone(), pod.clone()], &snapshot);
    let expected = [
        Operation::AddRoute(pod),
        Operation::AddRoute(block),
        Operation::DeleteRoute(old),
        Operation::DeleteRoute(old_pod),
    ];
    assert_eq!(plan(&desired, &snapshot, Sweep::ALL), expected);
}
