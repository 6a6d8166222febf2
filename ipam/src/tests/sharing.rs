//! What nodes have of each other: loans, and empty blocks.

use super::*;

const LATER: Duration = Duration::from_secs(120);

fn block() -> [IpPool; 1] {
    [pool("p", "10.0.0.0/30", 30)]
}

fn owners(store: &Store) -> Vec<String> {
    specs::<BlockSpec>(store, Kind::IPAMBlock).into_iter().filter_map(|block| block.affinity).collect()
}

fn borrowed(allocator: &Allocator) -> Vec<String> {
    allocator.borrowed().map(|(address, handle)| format!("{address} {handle}")).collect()
}

#[test]
fn a_node_borrows_from_a_block_of_another_which_stays_its_owner() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    assign(&mut n1, &store, &block(), &[request("n1", "a")]);
    assign(&mut n2, &store, &block(), &[request("n2", "b")]);
    assert_eq!(owners(&store), ["host:n1"]);
    assert_eq!(borrowed(&n2), ["10.0.0.1 b"]);
    assert_eq!(borrowed(&n1), [""; 0]);
    assert!(n2.confirmed_blocks().is_empty());
    assert_eq!(n2.allocations().count(), 1);
    assign(&mut n1, &store, &block(), &[request("n1", "c")]);
    assert_eq!(findings(&store), []);
    let calls = store.calls();
    release(&mut n2, &store, "b").unwrap();
    assert_eq!(borrowed(&n2), [""; 0]);
    assert_eq!(store.calls() - calls, 4, "the block was changed since: one write in vain and one read more");
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(findings(&store), []);
}

#[test]
fn what_was_borrowed_is_found_again_by_its_handle_in_two_reads() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    assign(&mut n1, &store, &block(), &[request("n1", "a")]);
    assign(&mut n2, &store, &block(), &[request("n2", "b")]);
    let mut restarted = Allocator::new(node("n2"));
    let calls = store.calls();
    let known = [("b".to_owned(), vec!["10.0.0.1".parse().unwrap()])].into();
    block_on(restarted.load(&store, now(), &known)).unwrap();
    assert_eq!(store.calls() - calls, 3, "the list of our affinities, the handle, the block");
    assert_eq!(borrowed(&restarted), ["10.0.0.1 b"]);
    let mut n1 = Allocator::new(node("n1"));
    let calls = store.calls();
    block_on(n1.load(&store, now(), &[("a".to_owned(), vec!["10.0.0.0".parse().unwrap()])].into())).unwrap();
    assert_eq!(store.calls() - calls, 2, "nothing is looked up that is in a block of ours");
}

#[test]
fn a_repeated_add_is_given_what_was_borrowed_although_nobody_remembers_it() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    assign(&mut n1, &store, &block(), &[request("n1", "a")]);
    let given = assign(&mut n2, &store, &block(), &[request("n2", "b")]);
    let mut restarted = Allocator::new(node("n2"));
    assert_eq!(assign(&mut restarted, &store, &block(), &[request("n2", "b")]), given);
    assert_eq!(borrowed(&restarted), ["10.0.0.1 b"]);
    let pools = [block()[0].clone(), pool("q", "10.1.0.0/30", 30)];
    let mut restarted = Allocator::new(node("n2"));
    assert_eq!(assign(&mut restarted, &store, &pools, &[request("n2", "b")]), given);
    assert!(restarted.confirmed_blocks().is_empty(), "and it costs no block");
}

#[test]
fn strict_affinity_forbids_loans_of_any_and_of_named_addresses() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    assign(&mut n1, &store, &block(), &[request("n1", "a")]);
    let strict = IpamConfigSpec { strict_affinity: true, ..IpamConfigSpec::default() };
    let named = AssignRequest { fixed: vec!["10.0.0.3".parse().unwrap()], ..request("n2", "c") };
    let pools = block();
    let answers =
        block_on(n2.assign(&store, now(), rules(&pools, &strict), &[request("n2", "b"), named.clone()]));
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::StrictAffinity { .. }))), "{answers:?}");
    assign(&mut n2, &store, &pools, &[named]);
    assert_eq!(borrowed(&n2), ["10.0.0.3 c"]);
    assert_eq!(findings(&store), []);
}

#[test]
fn a_node_that_may_claim_nothing_borrows() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    let pools = [pool("p", "10.0.0.0/29", 30)];
    assign(&mut n1, &store, &pools, &[request("n1", "a")]);
    let config = IpamConfigSpec { auto_allocate_blocks: false, ..IpamConfigSpec::default() };
    let answers = block_on(n2.assign(&store, now(), rules(&pools, &config), &requests("n2", 4)));
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert_eq!(owners(&store), ["host:n1"]);
    assert_eq!(findings(&store), []);
}

#[test]
fn an_empty_block_of_another_is_taken_once_its_claim_is_a_minute_old() {
    for (age, owner) in [(Duration::from_secs(59), "host:n1"), (Duration::from_secs(60), "host:n2")] {
        let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
        let (pools, config) = (block(), IpamConfigSpec::default());
        assign(&mut n1, &store, &pools, &[request("n1", "a")]);
        release(&mut n1, &store, "a").unwrap();
        let answers = block_on(n2.assign(&store, now() + age, rules(&pools, &config), &[request("n2", "b")]));
        assert!(answers[0].is_ok());
        assert_eq!(owners(&store), [owner]);
        assert_eq!(findings(&store), [], "{age:?}");
        let answers = block_on(n1.assign(&store, now() + age, rules(&pools, &config), &[request("n1", "c")]));
        assert!(answers[0].is_ok(), "who lost it finds out: {answers:?}");
        assert_eq!(n1.confirmed_blocks().len(), usize::from(owner == "host:n1"));
        assert_eq!(findings(&store), [], "{age:?}");
    }
}

#[test]
fn a_block_in_use_is_not_taken() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    let (pools, config) = (block(), IpamConfigSpec::default());
    assign(&mut n1, &store, &pools, &[request("n1", "a")]);
    block_on(n2.assign(&store, now() + LATER, rules(&pools, &config), &[request("n2", "b")]));
    assert_eq!(owners(&store), ["host:n1"]);
    assert_eq!(borrowed(&n2).len(), 1);
}

#[test]
fn an_empty_block_in_a_pool_that_no_longer_selects_the_node_makes_room_for_another() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let mut pools = [pool("a", "10.0.0.0/30", 30), pool("b", "10.1.0.0/30", 30)];
    assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    release(&mut allocator, &store, "a").unwrap();
    pools[0].node_selector = "rack == '2'".parse().unwrap();
    let config = IpamConfigSpec { max_blocks_per_host: 1, ..IpamConfigSpec::default() };
    let answers = block_on(allocator.assign(&store, now(), rules(&pools, &config), &[request("n1", "b")]));
    assert!(answers[0].is_ok(), "{answers:?}");
    assert_eq!(allocator.confirmed_blocks(), ["10.1.0.0/30".parse().unwrap()].into());
    assert_eq!(findings(&store), []);
}

#[test]
fn at_the_limit_what_others_have_freed_in_our_blocks_is_found() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let config = IpamConfigSpec { max_blocks_per_host: 1, ..IpamConfigSpec::default() };
    let pools = [pool("p", "10.0.0.0/29", 30)];
    assign(&mut n1, &store, &pools, &requests("n1", 4));
    release(&mut Allocator::new(node("n9")), &store, "n1.2").unwrap();
    let answers = block_on(n1.assign(&store, now(), rules(&pools, &config), &[request("n1", "b")]));
    assert!(answers[0].is_ok(), "{answers:?}");
    let answers = block_on(n1.assign(&store, now(), rules(&pools, &config), &[request("n1", "c")]));
    assert!(matches!(answers[0], Err(Error::BlockLimit { limit: 1, .. })), "{answers:?}");
}
