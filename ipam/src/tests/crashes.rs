//! An agent that dies after any of its calls, or whose caller gives up, and what the next one finds.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

/// A store whose calls yield after they were carried out, so that every poll of a future makes one of its calls.
fn stepping() -> Store {
    Faulty::new(Memory::new(), 1, Faults { delay: 100, ..Faults::default() })
}

/// Polls at most `steps` times and then drops the future; whether it came to its end.
fn run_for<F: Future>(future: F, steps: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..steps {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
    }
    None
}

/// Runs `work` on a prepared store for 0, 1, 2, … steps until it comes to its end, and `after` on what each leaves.
fn at_every_step<T>(
    prepare: impl Fn(&Store, &mut Allocator),
    work: impl AsyncFn(&Store, &mut Allocator) -> T,
    after: impl Fn(&Store, Allocator, usize),
) {
    for steps in 0.. {
        let (store, mut allocator) = (stepping(), Allocator::new(node("n1")));
        prepare(&store, &mut allocator);
        let ended = run_for(work(&store, &mut allocator), steps).is_some();
        after(&store, allocator, steps);
        if ended {
            assert!(steps > 5, "the work yields");
            return;
        }
    }
}

fn pools() -> [IpPool; 1] {
    [pool("p", "10.0.0.0/28", 30)]
}

async fn add(store: &Store, allocator: &mut Allocator) -> Answers {
    allocator.assign(store, now(), rules(&pools(), &IpamConfigSpec::default()), &requests("n1", 6)).await
}

async fn del(store: &Store, allocator: &mut Allocator) -> Vec<Result<Vec<IpAddr>, Error>> {
    let handles: Vec<String> = requests("n1", 6).into_iter().map(|request| request.handle).collect();
    allocator.release(store, now(), &IpamConfigSpec::default(), &handles).await
}

fn prepared(store: &Store, allocator: &mut Allocator) {
    assert!(block_on(add(store, allocator)).iter().all(Result::is_ok));
}

/// After a restart the sweep, told that no pod lives, leaves nothing held and nothing to find.
fn swept_clean(store: &Store, steps: usize) {
    block_on(sweep_all_but(&mut Allocator::new(node("n1")), store, |_, _| false)).unwrap();
    assert_eq!(findings(store), [], "after {steps} steps");
    assert!(holders(store).is_empty(), "after {steps} steps: {:?}", holders(store));
    assert!(specs::<HandleSpec>(store, Kind::IPAMHandle).is_empty(), "after {steps} steps");
}

/// Another node finds room although the first never comes back.
fn another_node_goes_on(store: &Store) {
    assign(&mut Allocator::new(node("n2")), store, &pools(), &requests("n2", 8));
    let holders = holders(store);
    let held: Vec<IpAddr> = holders.values().flatten().copied().collect();
    assert_eq!(held.len(), held.iter().collect::<std::collections::BTreeSet<_>>().len());
}

#[test]
fn an_assign_that_stops_anywhere_is_swept_clean_by_the_next_agent() {
    at_every_step(
        |_, _| {},
        add,
        |store, _, steps| {
            another_node_goes_on(store);
            let keep = |handle: &str, _: &AllocationAttribute| handle.starts_with("n2");
            block_on(sweep_all_but(&mut Allocator::new(node("n1")), store, keep)).unwrap();
            assert_eq!(findings(store), [], "after {steps} steps");
            assert!(holders(store).into_keys().all(|handle| handle.starts_with("n2")), "after {steps} steps");
        },
    );
}

#[test]
fn an_assign_that_stops_anywhere_gives_the_same_addresses_when_it_is_repeated() {
    // The same allocator, whose caller gave up; and the next agent.
    for restart in [false, true] {
        at_every_step(
            |_, _| {},
            add,
            |store, allocator, steps| {
                let before = holders(store);
                let mut allocator = if restart { Allocator::new(node("n1")) } else { allocator };
                prepared(store, &mut allocator);
                let after = holders(store);
                assert_eq!(after.len(), 6, "after {steps} steps");
                assert!(
                    after.values().all(|addresses| addresses.len() == 1),
                    "after {steps} steps: {after:?}"
                );
                assert!(
                    before.iter().all(|(handle, addresses)| after[handle] == *addresses),
                    "after {steps} steps"
                );
                assert_eq!(findings(store), [], "after {steps} steps");
                swept_clean(store, steps);
            },
        );
    }
}

#[test]
fn a_release_that_stops_anywhere_ends_when_it_is_repeated() {
    for restart in [false, true] {
        at_every_step(prepared, del, |store, allocator, steps| {
            let mut allocator = if restart { Allocator::new(node("n1")) } else { allocator };
            assert!(block_on(del(store, &mut allocator)).iter().all(Result::is_ok));
            assert_eq!(findings(store), [], "after {steps} steps");
            assert!(holders(store).is_empty(), "after {steps} steps");
            assert!(specs::<HandleSpec>(store, Kind::IPAMHandle).is_empty(), "after {steps} steps");
        });
    }
}

#[test]
fn a_release_that_stops_anywhere_is_swept_clean_by_the_next_agent() {
    at_every_step(prepared, del, |store, _, steps| swept_clean(store, steps));
}

#[test]
fn a_sweep_that_stops_anywhere_is_ended_by_the_next() {
    let work = async |store: &Store, allocator: &mut Allocator| {
        sweep_all_but(allocator, store, |_, _| false).await.unwrap();
    };
    at_every_step(prepared, work, |store, _, steps| swept_clean(store, steps));
}

#[test]
fn a_repair_that_stops_anywhere_is_ended_by_the_next() {
    let half_released = |store: &Store, allocator: &mut Allocator| {
        prepared(store, allocator);
        for affinity in specs::<AffinitySpec>(store, Kind::BlockAffinity) {
            let name = manx_model::affinity_name(&node("n1"), affinity.cidr);
            edit(store, Kind::BlockAffinity, &name, |spec: &mut AffinitySpec| {
                spec.state = AffinityState::PendingDeletion;
            });
        }
    };
    let work = async |store: &Store, allocator: &mut Allocator| {
        allocator.load(store, now(), &BTreeMap::new()).await.unwrap();
    };
    at_every_step(half_released, work, |store, _, steps| {
        let mut next = Allocator::new(node("n1"));
        load(&mut next, store);
        assert_eq!(next.allocations().count(), 6, "after {steps} steps: blocks in use are kept");
        assert!(block_on(del(store, &mut next)).iter().all(Result::is_ok));
        assert_eq!(findings(store), [], "after {steps} steps");
        assert!(holders(store).is_empty(), "after {steps} steps");
    });
}
