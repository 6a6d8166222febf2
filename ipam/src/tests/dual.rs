//! Pods with an address of each family: two blocks, written beside each other, and what becomes of one of them is not the
//! other's.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

/// Each call to a store that delays gives way at most three times before it is carried out, and three times after.
const POLLS_OF_A_CALL: usize = 7;

fn pools() -> [IpPool; 2] {
    [pool("four", "10.0.0.0/28", 28), pool("six", "fd00::/126", 126)]
}

fn dual(node: &str, handle: &str) -> AssignRequest {
    let request = request(node, handle);
    AssignRequest { ipv6: request.ipv4.clone(), ..request }
}

fn six_only(node: &str, handle: &str) -> AssignRequest {
    AssignRequest { ipv4: Wanted::default(), ..dual(node, handle) }
}

/// An allocator that owns a block of each family, in which `first` holds an address.
fn with_blocks(store: &Store) -> Allocator {
    let mut allocator = Allocator::new(node("n1"));
    assign(&mut allocator, store, &pools(), &[dual("n1", "first")]);
    store.take_writes();
    allocator
}

async fn add(store: &Store, allocator: &mut Allocator) -> Answers {
    allocator.assign(store, now(), rules(&pools(), &IpamConfigSpec::default()), &[dual("n1", "pod")]).await
}

async fn del(store: &Store, allocator: &mut Allocator) -> Vec<Result<Vec<IpAddr>, Error>> {
    allocator.release(store, now(), &IpamConfigSpec::default(), &["pod".to_owned()]).await
}

/// Polls at most so many times; what came of it, and after how many.
fn poll<F: Future>(future: F, most: usize) -> Option<(F::Output, usize)> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (1..=most).find_map(|polls| match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Some((output, polls)),
        Poll::Pending => None,
    })
}

fn addresses(texts: [&str; 2]) -> Vec<IpAddr> {
    texts.map(|text| text.parse().unwrap()).to_vec()
}

/// What somebody else does to a block meanwhile, so that the next write of it is a conflict.
fn touch(store: &Store, block: &str) {
    edit(store, Kind::IPAMBlock, block, |spec: &mut BlockSpec| spec.sequence_number += 1);
}

fn writes_of(store: &Store, block: &str) -> usize {
    store.take_writes().iter().filter(|(kind, key)| *kind == Kind::IPAMBlock && key == block).count()
}

#[test]
fn two_addresses_take_no_longer_than_one_call_to_get_and_one_to_give_back() {
    for seed in 0..50 {
        let store = store();
        let mut allocator = with_blocks(&store);
        let store = Faulty::new(store, seed, Faults { delay: 100, ..Faults::default() });
        let (pools, config) = (pools(), IpamConfigSpec::default());
        let asked = [dual("n1", "pod")];
        let given = allocator.assign(&store, now(), rules(&pools, &config), &asked);
        let (given, adding) = poll(given, 100).unwrap();
        assert_eq!(given[0].as_ref().unwrap().len(), 2);
        let handles = ["pod".to_owned()];
        let freed = allocator.release(&store, now(), &config, &handles);
        let (freed, deleting) = poll(freed, 100).unwrap();
        assert_eq!(freed[0].as_ref().unwrap().len(), 2);
        assert!(adding <= POLLS_OF_A_CALL, "{adding} polls of an assign, seed {seed}");
        assert!(deleting <= POLLS_OF_A_CALL, "{deleting} polls of a release, seed {seed}");
    }
}

#[test]
fn a_conflict_in_the_block_of_one_family_is_decided_anew_and_the_other_is_written_once() {
    for (touched, other) in [("fd00---126", "10-0-0-0-28"), ("10-0-0-0-28", "fd00---126")] {
        let store = store();
        let mut allocator = with_blocks(&store);
        touch(&store, touched);
        store.take_writes();
        let given = block_on(add(&store, &mut allocator)).remove(0).unwrap();
        assert_eq!(given.len(), 2);
        assert_eq!(writes_of(&store, other), 1, "of an assign, {touched} touched");
        assert_eq!(findings(&store), []);
        touch(&store, touched);
        store.take_writes();
        let freed = block_on(del(&store, &mut allocator)).remove(0).unwrap();
        assert_eq!(freed, addresses(["10.0.0.1", "fd00::1"]));
        assert_eq!(writes_of(&store, other), 1, "of a release, {touched} touched");
        assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["first"]);
        assert_eq!(findings(&store), []);
        assert_eq!(block_on(add(&store, &mut allocator)).remove(0).unwrap().len(), 2, "it goes on");
    }
}

#[test]
fn where_one_family_is_used_up_while_the_other_is_written_nothing_is_kept() {
    let store = store();
    let mut allocator = with_blocks(&store);
    // Behind our back another node borrows all that was left.
    let others: Vec<_> = ["x", "y", "z"].iter().map(|handle| six_only("n2", handle)).collect();
    assign(&mut Allocator::new(node("n2")), &store, &pools(), &others);
    store.take_writes();
    block_on(add(&store, &mut allocator)).remove(0).unwrap_err();
    let four = writes_of(&store, "10-0-0-0-28");
    assert_eq!(four, 2, "taken, since nobody knew, and given back");
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["first", "x", "y", "z"]);
    assert_eq!(specs::<HandleSpec>(&store, Kind::IPAMHandle).len(), 4);
    assert_eq!(findings(&store), []);
}

#[test]
fn a_block_that_is_gone_does_not_keep_the_address_of_the_other_family() {
    let store = store();
    let mut allocator = with_blocks(&store);
    block_on(add(&store, &mut allocator)).remove(0).unwrap();
    remove(&store, Kind::IPAMBlock, "fd00---126");
    let freed = block_on(del(&store, &mut allocator)).remove(0).unwrap();
    assert_eq!(
        freed,
        addresses(["10.0.0.1", "fd00::1"]),
        "of what was in the block nobody has anything any more"
    );
    assert_eq!(holders(&store), [("first".to_owned(), vec!["10.0.0.0".parse().unwrap()])].into());
    assert!(!allocator.confirmed_blocks().contains(&"fd00::/126".parse().unwrap()));
}

/// A store on which an ADD or a DEL was stopped after so many steps, the allocator that was at it, and whether it had ended.
fn stopped(adds: bool, seed: u64, steps: usize) -> (Store, Allocator, bool) {
    let store = Faulty::new(Memory::new(), seed, Faults::default());
    let mut allocator = with_blocks(&store);
    if !adds {
        block_on(add(&store, &mut allocator)).remove(0).unwrap();
    }
    store.set_faults(Faults { delay: 100, ..Faults::default() });
    let ended = match adds {
        true => poll(add(&store, &mut allocator), steps).is_some(),
        false => poll(del(&store, &mut allocator), steps).is_some(),
    };
    store.set_faults(Faults::default());
    (store, allocator, ended)
}

fn is_whole(store: &Store, held: &[&str], context: &str) {
    assert_eq!(holders(store).into_keys().collect::<Vec<_>>(), held, "{context}");
    assert!(holders(store).values().all(|addresses| addresses.len() == 2), "{context}");
    assert_eq!(specs::<HandleSpec>(store, Kind::IPAMHandle).len(), held.len(), "{context}");
    assert_eq!(findings(store), [], "{context}");
}

/// Does so with an ADD or a DEL that was stopped anywhere, in many orders of the writes that are under way at once.
fn wherever_it_stops(adds: bool, then: impl Fn(&Store, Allocator), held: &[&str]) {
    for seed in 0..20 {
        for steps in 0.. {
            let (store, allocator, ended) = stopped(adds, seed, steps);
            then(&store, allocator);
            is_whole(&store, held, &format!("adds: {adds}, seed {seed}, {steps} steps"));
            if ended {
                break;
            }
        }
    }
}

#[test]
fn an_add_of_two_addresses_that_stops_anywhere_is_ended_by_the_next() {
    let again = |store: &Store, mut allocator: Allocator| {
        assert_eq!(block_on(add(store, &mut allocator)).remove(0).unwrap().len(), 2);
    };
    wherever_it_stops(true, again, &["first", "pod"]);
    wherever_it_stops(true, |store, _| again(store, Allocator::new(node("n1"))), &["first", "pod"]);
}

#[test]
fn a_del_of_two_addresses_that_stops_anywhere_is_ended_by_the_next() {
    let again = |store: &Store, mut allocator: Allocator| {
        block_on(del(store, &mut allocator)).remove(0).unwrap();
    };
    wherever_it_stops(false, again, &["first"]);
    wherever_it_stops(false, |store, _| again(store, Allocator::new(node("n1"))), &["first"]);
}

#[test]
fn what_either_leaves_when_it_stops_anywhere_is_swept_by_the_next_agent() {
    let sweep = |store: &Store, _| {
        let keep = |handle: &str, _: &AllocationAttribute| handle == "first";
        block_on(sweep_all_but(&mut Allocator::new(node("n1")), store, keep)).unwrap();
    };
    wherever_it_stops(true, sweep, &["first"]);
    wherever_it_stops(false, sweep, &["first"]);
}
