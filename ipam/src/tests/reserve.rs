//! Addresses that a node holds back, and gives up when nothing else is free.

use manx_model::{RESERVE, reserve_handle};

use super::*;

fn keep(allocator: &mut Allocator, store: &Store, pools: &[IpPool], most: usize) -> u64 {
    let calls = store.calls();
    let config = IpamConfigSpec::default();
    block_on(allocator.keep_reserve(store, now(), rules(pools, &config), most)).unwrap();
    store.calls() - calls
}

fn reserve(store: &Store, node_name: &str) -> Vec<String> {
    let held = holders(store).remove(&reserve_handle(&node(node_name))).unwrap_or_default();
    held.iter().map(ToString::to_string).collect()
}

fn pods(store: &Store) -> Vec<String> {
    holders(store).into_keys().filter(|handle| !handle.starts_with("manx-reserve")).collect()
}

#[test]
fn an_eighth_of_a_block_in_use_is_held_back_at_the_cost_of_two_calls_and_of_none_from_then_on() {
    for (size, expected) in [(26, 8), (27, 4), (28, 2), (29, 1), (30, 0)] {
        let (store, pools) = (store(), [pool("p", "10.0.0.0/24", size)]);
        let mut n1 = Allocator::new(node("n1"));
        assign(&mut n1, &store, &pools, &[request("n1", "a")]);
        let calls = keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
        assert_eq!(calls, if expected > 0 { 2 } else { 0 }, "/{size}");
        assert_eq!(reserve(&store, "n1").len(), expected, "/{size}");
        assert_eq!(keep(&mut n1, &store, &pools, DEFAULT_RESERVE), 0);
        assert_eq!(findings(&store), []);
        let calls = store.calls();
        assign(&mut n1, &store, &pools, &[request("n1", "b")]);
        release(&mut n1, &store, "b").unwrap();
        assert_eq!(store.calls() - calls, 4, "a pod costs what it did");
        assert_eq!(keep(&mut n1, &store, &pools, DEFAULT_RESERVE), 0);
    }
}

#[test]
fn an_empty_block_is_left_for_others_to_take() {
    let (store, pools) = (store(), [pool("p", "10.0.0.0/24", 26)]);
    let mut n1 = Allocator::new(node("n1"));
    assign(&mut n1, &store, &pools, &[request("n1", "a")]);
    release(&mut n1, &store, "a").unwrap();
    assert_eq!(keep(&mut n1, &store, &pools, DEFAULT_RESERVE), 0);
    assert_eq!(reserve(&store, "n1"), [""; 0]);
}

#[test]
fn both_families_and_every_pool_have_a_reserve_and_disabled_pools_none() {
    let store = store();
    let mut pools = [pool("four", "10.0.0.0/24", 28), pool("six", "fd00::/64", 124)];
    let mut n1 = Allocator::new(node("n1"));
    let mut both = request("n1", "a");
    both.ipv6.count = 1;
    assign(&mut n1, &store, &pools, &[both]);
    keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
    assert_eq!(reserve(&store, "n1").len(), 4);
    pools[0].disabled = true;
    keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
    let left = reserve(&store, "n1");
    assert!(left.len() == 2 && left.iter().all(|address| address.contains(':')), "{left:?}");
    assert_eq!(findings(&store), []);
    keep(&mut n1, &store, &pools, 0);
    assert_eq!(reserve(&store, "n1"), [""; 0], "switched off");
    assert_eq!(findings(&store), []);
}

#[test]
fn a_full_node_loses_no_address_to_its_reserve() {
    let (store, pools) = (store(), [pool("p", "10.0.0.0/28", 28)]);
    let mut n1 = Allocator::new(node("n1"));
    assign(&mut n1, &store, &pools, &[request("n1", "first")]);
    keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
    assert_eq!(reserve(&store, "n1"), ["10.0.0.14", "10.0.0.15"], "those that would come last");
    assign(&mut n1, &store, &pools, &requests("n1", 15));
    assert_eq!(pods(&store).len(), 16);
    assert_eq!(keep(&mut n1, &store, &pools, DEFAULT_RESERVE), 0, "there is nothing to hold back");
    assert_eq!(findings(&store), []);
    for n in 0..12 {
        release(&mut n1, &store, &format!("n1.{n}")).unwrap();
    }
    keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
    assert_eq!(reserve(&store, "n1").len(), 2, "there is plenty again");
}

#[test]
fn who_asks_for_an_address_that_his_node_holds_back_is_given_it() {
    let (store, pools) = (store(), [pool("p", "10.0.0.0/28", 28)]);
    let (mut n1, mut n2) = (Allocator::new(node("n1")), Allocator::new(node("n2")));
    assign(&mut n1, &store, &pools, &[request("n1", "a")]);
    keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
    let fixed = AssignRequest { fixed: vec!["10.0.0.15".parse().unwrap()], ..request("n1", "b") };
    let refused = try_assign(&mut n2, &store, &pools, std::slice::from_ref(&fixed)).remove(0).unwrap_err();
    assert!(refused.to_string().contains("held by node n1, for pods that come while"), "{refused}");
    assert_eq!(assign(&mut n1, &store, &pools, &[fixed]), ["10.0.0.15".parse::<IpAddr>().unwrap()]);
    assert_eq!(findings(&store), []);
}

#[test]
fn an_agent_that_was_killed_while_it_kept_its_reserve_puts_it_right_when_it_starts() {
    let pools = [pool("p", "10.0.0.0/28", 28)];
    for before in [false, true] {
        for failing in 0..6 {
            let store = store();
            let mut n1 = Allocator::new(node("n1"));
            assign(&mut n1, &store, &pools, &[request("n1", "a")]);
            let config = IpamConfigSpec::default();
            if before {
                keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
            }
            // Dropped after so many calls: what is under way is given up or taken.
            let most = if before { 0 } else { DEFAULT_RESERVE };
            let slow = Faults { delay: 100, ..Faults::default() };
            store.set_faults(slow);
            {
                let rules = rules(&pools, &config);
                let mut keeping = Box::pin(n1.keep_reserve(&store, now(), rules, most));
                let target = store.calls() + failing;
                for _ in 0..1000 {
                    if store.calls() >= target || futures::FutureExt::now_or_never(&mut keeping).is_some() {
                        break;
                    }
                }
            }
            store.set_faults(Faults::default());
            let mut restarted = Allocator::new(node("n1"));
            load(&mut restarted, &store);
            keep(&mut restarted, &store, &pools, DEFAULT_RESERVE);
            assert_eq!(findings(&store), [], "{failing}");
            assert_eq!(reserve(&store, "n1").len(), 2, "{failing}");
        }
    }
}

#[test]
fn the_collector_leaves_a_reserve_alone_until_its_node_is_gone() {
    let (store, pools) = (store(), [pool("p", "10.0.0.0/28", 28)]);
    let mut n1 = Allocator::new(node("n1"));
    assign(&mut n1, &store, &pools, &[request("n1", "a")]);
    keep(&mut n1, &store, &pools, DEFAULT_RESERVE);
    release(&mut n1, &store, "a").unwrap();
    let mut collector = Collector::new(DEFAULT_GRACE);
    for round in 0..4 {
        let later = now() + DEFAULT_GRACE * round;
        let done = block_on(collect(&mut collector, &store, &["n1"], &BTreeMap::new(), later)).unwrap();
        assert_eq!(done, []);
    }
    let done = block_on(collect(&mut collector, &store, &[], &BTreeMap::new(), now())).unwrap();
    assert!(!done.is_empty());
    assert_eq!(reserve(&store, "n1"), [""; 0]);
    let usage = usage(&pools, &[]);
    assert_eq!(usage.pools.len(), 1);
    assert_eq!(RESERVE, "manxReserve", "the name is stored, and so for ever");
}
