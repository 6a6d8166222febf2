//! The clock is paused: a sleep takes no time, and ends when everything that could happen until then has happened.

use super::affinities::MISSED;
use super::*;
use manx_datastore::testing::{Faults, Faulty};
use manx_datastore::{Memory, Only};
use manx_model::{IpPool, Kind, Object};

/// An owner with one pool, on a store that can be cut off.
fn owner() -> (Addresses, Faulty<Memory>) {
    owner_with(0)
}

fn owner_with(reserve: usize) -> (Addresses, Faulty<Memory>) {
    owner_on(Faulty::new(Memory::new(), 1, Faults::default()), reserve)
}

fn owner_on(store: Faulty<Memory>, reserve: usize) -> (Addresses, Faulty<Memory>) {
    let (addresses, _) = owner_told(&store, reserve);
    (addresses, store)
}

/// An owner, and where it tells what it has. No watch ever tells an affinity.
fn owner_told(store: &Faulty<Memory>, reserve: usize) -> (Addresses, Told) {
    let pool = Object::new(Kind::IPPool, "p", &serde_json::json!({"cidr": "10.0.0.0/24"}));
    let pools = vec![IpPool::from_object(&pool).unwrap()];
    let (_, cluster) =
        watch::channel(Arc::new(Cluster { pools: Arc::new(pools), in_sync: true, ..Cluster::default() }));
    let allocator = Allocator::new("n1".parse().unwrap());
    let (door, told) = (Arc::new(store.clone()), Told::default());
    let clock = || SystemTime::UNIX_EPOCH;
    let (mut owner, addresses) =
        Owner::new(allocator, door, cluster, told.clone(), clock, Problems::default());
    owner.reserve = reserve;
    tokio::spawn(owner.run());
    (addresses, told)
}

async fn assign(addresses: &Addresses, handle: &str) -> IpAddr {
    let request = AssignRequest::ipv4(handle, BTreeMap::new());
    addresses.assign(request).await.unwrap().assigned[0].address
}

async fn handles(store: &Faulty<Memory>) -> usize {
    store.list(Kind::IPAMHandle, &Only::All).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn what_is_released_while_the_datastore_is_away_is_given_back_when_it_answers() {
    let (addresses, store) = owner();
    let held = assign(&addresses, "net.a").await;
    store.down();
    assert_eq!(addresses.release("net.a".into()).await.unwrap(), Release::Owed);
    tokio::time::sleep(RETRY_MOST * 10).await;
    store.up();
    assert_eq!(handles(&store).await, 1);
    tokio::time::sleep(RETRY_MOST).await;
    assert_eq!(handles(&store).await, 0);
    assert_eq!(addresses.release("net.a".into()).await.unwrap(), Release::Done(Vec::new()));
    assert_ne!(assign(&addresses, "net.b").await, held, "the first free one is another");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_comes_back_keeps_what_it_was_to_give_back() {
    let (addresses, store) = owner();
    let held = assign(&addresses, "net.a").await;
    store.down();
    assert_eq!(addresses.release("net.a".into()).await.unwrap(), Release::Owed);
    store.up();
    assert_eq!(assign(&addresses, "net.a").await, held);
    tokio::time::sleep(RETRY_MOST * 2).await;
    assert_eq!(handles(&store).await, 1);
}

/// As [`owner_with`]: one pod is attached, and the reserve is there.
async fn owner_with_reserve(reserve: usize) -> (Addresses, Faulty<Memory>) {
    let (addresses, store) = owner_with(reserve);
    assign(&addresses, "net.a").await;
    tokio::time::sleep(RETRY_FIRST).await;
    assert_eq!(handles(&store).await, 2, "net.a and the reserve");
    (addresses, store)
}

fn writes_of_blocks(store: &Faulty<Memory>) -> usize {
    store.take_writes().into_iter().filter(|(kind, _)| *kind == Kind::IPAMBlock).count()
}

async fn grant(addresses: &Addresses, handle: &str) -> Granted {
    addresses.assign(AssignRequest::ipv4(handle, BTreeMap::new())).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn pods_do_not_wait_until_what_they_have_is_written_and_those_that_come_meanwhile_share_a_write() {
    let (addresses, store) = owner_with_reserve(8).await;
    store.take_writes();
    store.stall();
    for count in 0..8 {
        assert!(!grant(&addresses, &format!("net.{count}")).await.away);
    }
    assert_eq!(writes_of_blocks(&store), 1, "of the first");
    store.go_on();
    assert!(!grant(&addresses, "net.8").await.away);
    tokio::time::sleep(RETRY_FIRST).await;
    assert_eq!(writes_of_blocks(&store), 2, "of the seven others, and of the last");
    assert_eq!(handles(&store).await, 11);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_before_its_address_is_written_leaves_nothing_behind() {
    let (addresses, store) = owner_with_reserve(8).await;
    store.stall();
    let held = grant(&addresses, "net.b").await.assigned[0].address;
    let released = tokio::spawn({
        let addresses = addresses.clone();
        async move { addresses.release("net.b".into()).await }
    });
    store.go_on();
    assert_eq!(released.await.unwrap().unwrap(), Release::Done(vec![held]));
    assert_eq!(handles(&store).await, 2);
}

#[tokio::test(start_paused = true)]
async fn more_pods_at_once_than_are_held_back_share_one_write() {
    let (addresses, store) = owner_with_reserve(8).await;
    store.take_writes();
    let names: Vec<String> = (0..9).map(|count| format!("net.{count}")).collect();
    let given = futures::future::join_all(names.iter().map(|name| assign(&addresses, name))).await;
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 9);
    assert_eq!(handles(&store).await, 11);
    assert_eq!(writes_of_blocks(&store), 1);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_a_write_that_was_refused_is_told_so() {
    let (addresses, store) = owner_with_reserve(8).await;
    store.set_faults(Faults { conflict: 100, ..Faults::default() });
    let given = grant(&addresses, "net.b").await;
    let refused = addresses.assign(AssignRequest::ipv4("net.c", BTreeMap::new())).await.unwrap_err();
    assert!(refused.is_passing(), "{refused}");
    store.set_faults(Faults::default());
    tokio::time::sleep(RETRY_MOST).await;
    assert_eq!(given, grant(&addresses, "net.b").await);
    grant(&addresses, "net.c").await;
    assert_eq!(handles(&store).await, 4, "net.a, net.b, net.c and the reserve");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_answered_is_served_from_the_reserve_and_written_when_it_is() {
    let (addresses, store) = owner_with_reserve(8).await;
    store.down();
    assert!(!grant(&addresses, "net.b").await.away, "nobody has asked yet");
    let granted = grant(&addresses, "net.c").await;
    assert!(granted.away);
    assert_eq!(granted, grant(&addresses, "net.c").await);
    store.up();
    tokio::time::sleep(RETRY_MOST).await;
    assert_eq!(handles(&store).await, 4);
    assert_eq!(grant(&addresses, "net.c").await, Granted { away: false, ..granted });
}

#[tokio::test(start_paused = true)]
async fn what_was_given_although_a_write_beside_it_was_not_answered_is_kept() {
    for seed in 0..40 {
        let (addresses, store) = owner_on(Faulty::new(Memory::new(), seed, Faults::default()), 8);
        assign(&addresses, "net.a").await;
        tokio::time::sleep(RETRY_FIRST).await;
        store.set_faults(Faults { before: 30, after: 20, ..Faults::default() });
        let granted = addresses.assign(AssignRequest::ipv4("net.b", BTreeMap::new())).await;
        store.set_faults(Faults::default());
        tokio::time::sleep(RETRY_MOST * 2).await;
        let Ok(granted) = granted else { continue };
        let again = addresses.assign(AssignRequest::ipv4("net.b", BTreeMap::new())).await.unwrap();
        assert_eq!(granted.assigned, again.assigned, "seed {seed}");
        assert_eq!(handles(&store).await, 3, "seed {seed}: net.a, net.b and the reserve");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_taken_away_while_nobody_watched_is_let_go() {
    let store = Faulty::new(Memory::new(), 1, Faults::default());
    let (addresses, told) = owner_told(&store, 0);
    assign(&addresses, "net.a").await;
    tokio::time::sleep(MISSED * 2).await;
    assert_eq!(told.blocks.borrow().len(), 1, "it is there, although the watch does not tell");
    for kind in [Kind::IPAMHandle, Kind::BlockAffinity, Kind::IPAMBlock] {
        for object in store.list(kind, &Only::All).await.unwrap().into_iter().flatten() {
            store.delete(&object).await.unwrap();
        }
    }
    tokio::time::sleep(MISSED * 2).await;
    assert_eq!(*told.blocks.borrow(), BTreeSet::new());
}
