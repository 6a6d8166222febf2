//! What is read and written, and in which order.

use super::*;

const POOL: &str = "10.0.0.0/26";

fn kinds(writes: &[(Kind, String)]) -> Vec<Kind> {
    writes.iter().map(|(kind, _)| *kind).collect()
}

#[test]
fn a_claim_writes_the_affinity_pending_then_the_block_then_confirms() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let addresses = assign(&mut allocator, &store, &[pool("p", POOL, 26)], &[request("n1", "a")]);
    assert_eq!(addresses, ["10.0.0.0".parse::<IpAddr>().unwrap()], "the network address is used");
    use Kind::{BlockAffinity, IPAMBlock, IPAMHandle};
    assert_eq!(kinds(&store.take_writes()), [BlockAffinity, IPAMBlock, BlockAffinity, IPAMHandle, IPAMBlock]);
    let affinity: AffinitySpec = specs(&store, BlockAffinity).remove(0);
    assert_eq!((affinity.state, affinity.deleted.as_str()), (AffinityState::Confirmed, "false"));
    assert_eq!(allocator.confirmed_blocks(), [POOL.parse().unwrap()].into());
    assert_eq!(findings(&store), []);
}

#[test]
fn thirty_two_pods_share_one_write_of_the_block_and_need_no_list() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/24", 26)];
    assign(&mut allocator, &store, &pools, &[request("n1", "first")]);
    store.take_writes();
    let calls = store.calls();
    let addresses = assign(&mut allocator, &store, &pools, &requests("n1", 32));
    assert_eq!(addresses.iter().collect::<std::collections::BTreeSet<_>>().len(), 32);
    let writes = kinds(&store.take_writes());
    assert_eq!(writes.iter().filter(|kind| **kind == Kind::IPAMBlock).count(), 1);
    assert_eq!(writes.iter().filter(|kind| **kind == Kind::IPAMHandle).count(), 32);
    assert_eq!(store.calls() - calls, 33, "nothing is read");
    let handles: Vec<String> = requests("n1", 32).into_iter().map(|request| request.handle).collect();
    store.take_writes();
    let calls = store.calls();
    block_on(allocator.release(&store, now(), &IpamConfigSpec::default(), &handles));
    assert_eq!(store.calls() - calls, 33, "nothing is read");
    let writes = kinds(&store.take_writes());
    assert_eq!(writes.iter().filter(|kind| **kind == Kind::IPAMBlock).count(), 1);
    assert_eq!(findings(&store), []);
    assert_eq!(holders(&store).len(), 1);
}

#[test]
fn a_batch_that_fits_no_block_takes_several() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("a", "10.0.0.0/29", 30), pool("b", "10.1.0.0/29", 30)];
    let addresses = assign(&mut allocator, &store, &pools, &requests("n1", 14));
    assert_eq!(addresses.iter().collect::<std::collections::BTreeSet<_>>().len(), 14);
    assert_eq!(allocator.confirmed_blocks().len(), 4);
    assert!(addresses[..8].iter().all(|address| pools[0].contains(*address)), "the first pool first");
    assert_eq!(findings(&store), []);
}

#[test]
fn a_handle_is_given_the_same_address_whoever_remembers_it() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", POOL, 26)];
    let twice = [request("n1", "a"), request("n1", "a")];
    let first = assign(&mut allocator, &store, &pools, &twice);
    assert_eq!(first[0], first[1]);
    assert_eq!(assign(&mut allocator, &store, &pools, &twice), first);
    assert_eq!(assign(&mut Allocator::new(node("n1")), &store, &pools, &twice), first, "after a restart");
    let mut other = Allocator::new(node("n2"));
    assert_eq!(assign(&mut other, &store, &pools, &twice[..1]), first[..1], "by its stored handle");
    assert_eq!(
        allocator.allocations().map(|(address, handle, _)| (address, handle)).collect::<Vec<_>>(),
        [(first[0], "a")]
    );
    assert_eq!(findings(&store), []);
}

#[test]
fn what_somebody_else_released_is_not_given_from_memory() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", POOL, 26)];
    assign(&mut allocator, &store, &pools, &requests("n1", 2));
    let mut calicoctl = Allocator::new(node("n9"));
    release(&mut calicoctl, &store, "n1.0").unwrap();
    let again = assign(&mut allocator, &store, &pools, &requests("n1", 1));
    assert_eq!(holders(&store)["n1.0"], again);
    assert_eq!(findings(&store), []);
}

#[test]
fn an_unknown_handle_is_released_already() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    assert_eq!(release(&mut allocator, &store, "never-seen"), Ok(Vec::new()));
    assert_eq!(release(&mut allocator, &store, "No/Name"), Ok(Vec::new()));
    let pools = [pool("p", POOL, 26)];
    let address = assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    assert_eq!(release(&mut allocator, &store, "a"), Ok(address));
    assert_eq!(release(&mut allocator, &store, "a"), Ok(Vec::new()));
    assert!(specs::<HandleSpec>(&store, Kind::IPAMHandle).is_empty());
}

#[test]
fn a_block_that_is_no_longer_ours_is_forgotten_with_its_affinity() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/25", 26)];
    assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    let [block] = allocator.confirmed_blocks().into_iter().collect::<Vec<_>>()[..] else { panic!() };
    edit(&store, Kind::IPAMBlock, &manx_model::cidr_name(block), |spec: &mut BlockSpec| {
        spec.affinity = Some("host:n2".into());
    });
    let address = assign(&mut allocator, &store, &pools, &[request("n1", "b")]);
    assert!(!block.contains(&address[0]));
    assert!(!allocator.confirmed_blocks().contains(&block));
    assert!(specs::<AffinitySpec>(&store, Kind::BlockAffinity).iter().all(|affinity| affinity.cidr != block));
}

#[test]
fn a_disabled_pool_gives_nothing_and_a_disabled_block_stays_owned() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let mut pools = [pool("a", "10.0.0.0/26", 26), pool("b", "10.1.0.0/26", 26)];
    assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    pools[0].disabled = true;
    let address = assign(&mut allocator, &store, &pools, &[request("n1", "b")]);
    assert!(pools[1].contains(address[0]));
    assert_eq!(allocator.confirmed_blocks().len(), 2);
}

#[test]
fn a_half_done_claim_or_release_is_finished_or_rolled_back() {
    use AffinityState::{Confirmed, Pending, PendingDeletion};
    let (ours, theirs) = (Some("host:n1"), Some("host:n2"));
    // The affinity's state, the block's owner if there is a block, and who owns it afterwards; "" is: no block.
    for (state, deleted, owner, after, confirmed) in [
        (Confirmed, false, Some(ours), "host:n1", true),
        (Confirmed, false, None, "host:n1", true),
        (Confirmed, false, Some(theirs), "host:n2", false),
        (Confirmed, false, Some(None), "nobody", false),
        (Pending, false, Some(ours), "host:n1", true),
        (Pending, false, None, "", false),
        (Pending, false, Some(theirs), "host:n2", false),
        (PendingDeletion, false, Some(ours), "", false),
        (PendingDeletion, false, None, "", false),
        (PendingDeletion, false, Some(None), "nobody", false),
        (Pending, true, None, "", false),
    ] {
        let case = format!("{state:?} {deleted} {owner:?}");
        let (store, n1) = (store(), node("n1"));
        let cidr = POOL.parse().unwrap();
        let affinity = AffinitySpec {
            state,
            node: n1.clone(),
            kind: None,
            cidr,
            deleted: deleted.to_string(),
            rest: Default::default(),
        };
        put(&store, Object::new(Kind::BlockAffinity, manx_model::affinity_name(&n1, cidr), &affinity));
        if let Some(owner) = owner {
            let mut spec: BlockSpec = block::fresh(cidr, &n1, now()).spec().unwrap();
            spec.affinity = owner.map(str::to_owned);
            put(&store, Object::new(Kind::IPAMBlock, manx_model::cidr_name(cidr), &spec));
        }
        let mut allocator = Allocator::new(n1);
        let report = load(&mut allocator, &store);
        assert_eq!(report.confirmed.len(), usize::from(confirmed), "{case}");
        assert_eq!(report.given_up.len(), usize::from(!confirmed), "{case}");
        assert_eq!(allocator.confirmed_blocks().len(), usize::from(confirmed), "{case}");
        let blocks: Vec<BlockSpec> = specs(&store, Kind::IPAMBlock);
        let owner = blocks.first().map_or("", |block| block.affinity.as_deref().unwrap_or("nobody"));
        assert_eq!(owner, after, "{case}");
        let affinities = block_on(store.list(Kind::BlockAffinity, &manx_datastore::Only::All)).unwrap();
        assert_eq!(affinities.len(), usize::from(confirmed), "{case}");
        for affinity in affinities {
            assert_eq!(affinity.unwrap().metadata.labels.len(), 3, "{case}: old rows get their labels");
        }
        let settled = store.calls();
        load(&mut allocator, &store);
        assert_eq!(
            store.calls() - settled,
            1 + u64::from(confirmed),
            "{case}: loading again is a list and a read of each block"
        );
    }
}

#[test]
fn a_release_that_finds_the_block_in_use_again_is_taken_back() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let address = assign(&mut allocator, &store, &[pool("p", POOL, 26)], &[request("n1", "a")]);
    let name = manx_model::affinity_name(&node("n1"), POOL.parse().unwrap());
    edit(&store, Kind::BlockAffinity, &name, |spec: &mut AffinitySpec| {
        spec.state = AffinityState::PendingDeletion;
    });
    let report = load(&mut allocator, &store);
    assert_eq!(report.finished, [POOL.parse().unwrap()]);
    assert_eq!(findings(&store), []);
    assert_eq!(release(&mut allocator, &store, "a"), Ok(address));
}

#[test]
fn a_block_that_lost_its_affinity_is_taken_up_again_by_the_handles_of_its_pods() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    assign(&mut allocator, &store, &[pool("p", POOL, 26)], &[request("n1", "a")]);
    remove(&store, Kind::BlockAffinity, &manx_model::affinity_name(&node("n1"), POOL.parse().unwrap()));
    assert_ne!(findings(&store), []);
    let handles = [("a".to_owned(), Vec::new())].into();
    let mut restarted = Allocator::new(node("n1"));
    let report = block_on(restarted.load(&store, now(), &handles)).unwrap();
    assert_eq!(report.finished, [POOL.parse().unwrap()]);
    assert_eq!(findings(&store), []);
}

#[test]
fn the_sweep_releases_what_is_refused_and_only_what_is_ours() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", POOL, 26)];
    let mut all = requests("n1", 3);
    all.push(request("n2", "borrowed"));
    assign(&mut allocator, &store, &pools, &all);
    for (handle, block) in [("left", POOL), ("nowhere", "10.9.0.0/26")] {
        put(&store, crate::tests::handle(handle, block));
    }
    let keep = |handle: &str, _: &AllocationAttribute| ["n1.1", "borrowed"].contains(&handle);
    let report = block_on(sweep_all_but(&mut allocator, &store, keep)).unwrap();
    assert_eq!(
        report.released.iter().map(|(_, handle)| handle.as_str()).collect::<Vec<_>>(),
        ["n1.0", "n1.2"]
    );
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["borrowed", "n1.1"]);
    assert_eq!(findings(&store), []);
    assert_eq!(block_on(sweep_all_but(&mut allocator, &store, |_, _| true)).unwrap(), SweepReport::default());
}

#[test]
fn what_we_do_not_know_survives_our_writes() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", POOL, 26)];
    assign(&mut allocator, &store, &pools, &requests("n1", 2));
    edit(&store, Kind::IPAMBlock, "10-0-0-0-26", |spec: &mut BlockSpec| {
        spec.rest.insert("fromTheFuture".into(), 1.into());
        spec.attributes[1].rest.insert("alternateOwnerAttrs".into(), serde_json::json!({"a": "b"}));
    });
    assign(&mut allocator, &store, &pools, &[request("n1", "b")]);
    release(&mut allocator, &store, "n1.0").unwrap();
    let block: BlockSpec = specs(&store, Kind::IPAMBlock).remove(0);
    assert_eq!(block.rest["fromTheFuture"], 1);
    assert_eq!(block.attributes[0].rest["alternateOwnerAttrs"], serde_json::json!({"a": "b"}));
}

#[test]
fn the_futures_may_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    let (store, mut allocator, config) = (store(), Allocator::new(node("n1")), IpamConfigSpec::default());
    let (handles, gone) = (BTreeMap::new(), Default::default());
    is_send(allocator.load(&store, now(), &handles));
    is_send(allocator.assign(&store, now(), rules(&[], &config), &[]));
    is_send(allocator.release(&store, now(), &config, &[]));
    is_send(allocator.sweep(&store, now(), &config, &gone, |_, _| true));
}
