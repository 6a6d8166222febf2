//! What an operator asks for: show, check and fix, release, split.

use super::*;

const POOL: &str = "10.0.0.0/26";

fn listed(store: &Store, kind: Kind) -> Vec<Object> {
    block_on(store.list(kind, &Only::All)).unwrap().into_iter().map(Result::unwrap).collect()
}

/// What is wrong, each with whether it is mended, after which everything is.
fn checked_and_fixed(store: &Store, nodes: &[&str], pods: &[(&str, &str)]) -> Vec<(String, bool)> {
    let (blocks, affinities, handles) =
        (listed(store, Kind::IPAMBlock), listed(store, Kind::BlockAffinity), listed(store, Kind::IPAMHandle));
    let nodes = nodes.iter().map(|name| node(name)).collect();
    let state = |on: &str| PodState { node: Some(on.to_owned()), ..PodState::default() };
    let pods =
        pods.iter().map(|(name, on)| (("default".to_owned(), (*name).to_owned()), state(on))).collect();
    let pools = [pool("p", "10.0.0.0/24", 26)];
    let observed = Observed {
        blocks: &blocks,
        affinities: &affinities,
        handles: &handles,
        nodes: &nodes,
        blockless: &BTreeSet::new(),
        pods: &pods,
        pools: &pools,
    };
    let problems = check(observed, DEFAULT_GRACE, now());
    let mut told = Vec::new();
    for problem in problems {
        if let Some(wanted) = &problem.fix {
            assert_eq!(
                block_on(fix(store, now(), &IpamConfigSpec::default(), wanted)),
                Ok(true),
                "{problem:?}"
            );
            assert_ne!(block_on(fix(store, now(), &IpamConfigSpec::default(), wanted)).ok(), None);
        }
        told.push((problem.what, problem.fix.is_some()));
    }
    told
}

fn pod(node: &str, name: &str, time: &str) -> AssignRequest {
    let attributes = [("node", node), ("namespace", "default"), ("pod", name), ("timestamp", time)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    AssignRequest::ipv4(format!("net.{name}"), attributes.into())
}

fn told(what: &str, fixed: bool) -> (String, bool) {
    (what.to_owned(), fixed)
}

#[test]
fn nothing_is_wrong_with_what_we_write() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    let pools = [pool("p", POOL, 26)];
    assign(&mut n1, &store, &pools, &[pod("n1", "a", "2026-01-01T00:00:00Z"), request("n1", "b")]);
    assign(&mut n2, &store, &pools, &[request("n2", "c")]);
    assert_eq!(checked_and_fixed(&store, &["n1", "n2"], &[("a", "n1")]), []);
}

#[test]
fn a_leak_is_released_once_it_is_older_than_the_grace() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let (old, young) = (rfc3339(now() - DEFAULT_GRACE), rfc3339(now() - DEFAULT_GRACE / 2));
    let all = [
        pod("n1", "old", &old),
        pod("n1", "young", &young),
        pod("n1", "moved", &old),
        pod("n1", "here", &old),
    ];
    assign(&mut n1, &store, &[pool("p", POOL, 26)], &all);
    let found = checked_and_fixed(&store, &["n1"], &[("moved", "n2"), ("here", "n1")]);
    assert_eq!(
        found,
        [
            told("10.0.0.0 is held by handle net.old, and pod default/old does not exist", true),
            told("10.0.0.1 is held by handle net.young, and pod default/young does not exist", false),
            told(
                "10.0.0.2 is held by handle net.moved, and pod default/moved is elsewhere, has ended or has another address",
                true
            ),
        ]
    );
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["net.here", "net.young"]);
    assert_eq!(findings(&store), []);
}

#[test]
fn what_is_certainly_wrong_is_mended_and_the_rest_is_told() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", POOL, 26)];
    assign(&mut n1, &store, &pools, &requests("n1", 3));
    edit(&store, Kind::IPAMBlock, "10-0-0-0-26", |spec: &mut BlockSpec| {
        spec.unallocated.retain(|ordinal| *ordinal != 7);
    });
    remove(&store, Kind::IPAMHandle, "n1.1");
    edit(&store, Kind::IPAMHandle, "n1.2", |spec: &mut HandleSpec| {
        spec.block.insert(POOL.into(), 2);
    });
    put(&store, handle("left", POOL));
    let mut young = handle("young", POOL);
    young.metadata.rest.insert("creationTimestamp".into(), rfc3339(now()).into());
    put(&store, young);
    let name = manx_model::affinity_name(&node("n1"), POOL.parse().unwrap());
    let mut affinity = block_on(store.get(Kind::BlockAffinity, &name)).unwrap().unwrap();
    affinity.metadata.labels.clear();
    block_on(store.update(affinity)).unwrap();
    let mut gone = Allocator::new(node("gone"));
    assign(&mut gone, &store, &[pool("elsewhere", "10.9.0.0/26", 26)], &[request("gone", "x")]);
    let found = checked_and_fixed(&store, &["n1"], &[]);
    assert_eq!(
        found,
        [
            told("10.9.0.0 is held by handle x, and its node does not exist", true),
            told("block 10.0.0.0/26: address 10.0.0.7 is neither held nor free", true),
            told("block 10.9.0.0/26 is in no IPPool", false),
            told("handle left holds nothing", true),
            told("handle n1.1 holds 1 of 10.0.0.0/26, and is not stored", true),
            told("handle n1.2 holds 1 of 10.0.0.0/26, and says something else", true),
            told("handle young holds nothing", false),
            told(
                "the affinity of node n1 for block 10.0.0.0/26 lacks the labels by which Calico finds it",
                true
            ),
        ]
    );
    let found = checked_and_fixed(&store, &["n1"], &[]);
    let fixed: Vec<&str> = found.iter().filter(|(_, fixed)| *fixed).map(|(what, _)| what.as_str()).collect();
    assert_eq!(fixed, ["block 10.9.0.0/26 belongs to node gone, which does not exist"]);
    assert_eq!(listed(&store, Kind::IPAMBlock).len(), 1);
}

#[test]
fn an_address_in_two_blocks_is_left_to_a_person() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    assign(&mut n1, &store, &[pool("p", POOL, 26)], &[request("n1", "a")]);
    let mut twin: BlockSpec = specs(&store, Kind::IPAMBlock).remove(0);
    twin.cidr = "10.0.0.0/32".parse().unwrap();
    twin.affinity = None;
    twin.allocations.truncate(1);
    twin.unallocated.clear();
    put(&store, Object::new(Kind::IPAMBlock, "10-0-0-0-32", &twin));
    let found = checked_and_fixed(&store, &["n1"], &[]);
    assert!(
        found.contains(&told("address 10.0.0.0 is held in 2 blocks: 10.0.0.0/26 10.0.0.0/32", false)),
        "{found:?}"
    );
}

#[test]
fn the_usage_says_who_has_what() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    let pools = [pool("p", "10.0.0.0/30", 30), pool("empty", "fd00::/64", 122)];
    let cooling = IpamConfigSpec { ip_cooldown_seconds: 60, ..IpamConfigSpec::default() };
    assign(&mut n1, &store, &pools, &requests("n1", 2));
    assign(&mut n2, &store, &pools, &[request("n2", "b")]);
    block_on(n1.release(&store, now(), &cooling, &["n1.0".to_owned()]));
    let blocks = listed(&store, Kind::IPAMBlock);
    let used = usage(&pools, &blocks);
    let block = &used.pools[0].blocks[0];
    assert_eq!((block.size, block.free, block.cooling, block.borrowed()), (4, 1, 1, 1));
    assert_eq!(block.owner.as_deref(), Some("n1"));
    let held: Vec<String> =
        block.held.iter().map(|held| format!("{} {}", held.address, held.handle)).collect();
    assert_eq!(held, ["10.0.0.1 n1.1", "10.0.0.2 b"]);
    assert!(block.held[1].borrowed && block.held[1].node.as_deref() == Some("n2"));
    assert_eq!((used.pools[0].in_use(), used.pools[0].borrowed(), used.pools[0].percent()), (2, 1, 50.0));
    assert_eq!((used.pools[1].size, used.pools[1].percent()), (1 << 64, 0.0));
    assert_eq!(usage(&[], &blocks).outside.len(), 1);
}

#[test]
fn one_address_is_released_and_its_handle_keeps_the_others() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", POOL, 26)];
    let wanted = AssignRequest { ipv4: Wanted { count: 2, pools: Vec::new() }, ..request("n1", "a") };
    assign(&mut n1, &store, &pools, &[wanted]);
    let free = |address: &str, pools: &[IpPool], only: Option<&str>| {
        let config = IpamConfigSpec::default();
        block_on(release_address(&store, now(), &config, pools, address.parse().unwrap(), only)).unwrap()
    };
    assert_eq!(free("10.0.0.9", &pools, None), None);
    assert_eq!(free("10.0.0.0", &pools, Some("b")), None, "held by somebody else");
    assert_eq!(free("10.0.0.0", &pools, Some("a")).as_deref(), Some("a"));
    assert_eq!(findings(&store), []);
    assert_eq!(free("10.0.0.1", &[], None).as_deref(), Some("a"), "found without a pool");
    assert!(listed(&store, Kind::IPAMHandle).is_empty());
    assert_eq!(findings(&store), []);
}

#[test]
fn a_disabled_pool_is_split_into_equal_parts_and_its_blocks_go_on() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let spec = serde_json::json!({"cidr": "10.0.0.0/24", "ipipMode": "Always", "fromTheFuture": 1});
    put(&store, Object::new(Kind::IPPool, "p", &spec));
    let given = assign(&mut n1, &store, &[pool("p", "10.0.0.0/24", 26)], &[request("n1", "a")]);
    let said = |parts| block_on(split(&store, "p", parts)).unwrap_err().to_string();
    assert!(said(2).contains("set disabled: true first"), "{}", said(2));
    edit(&store, Kind::IPPool, "p", |spec: &mut serde_json::Value| spec["disabled"] = true.into());
    for (parts, reason) in [(0, "2, 4, 8"), (1, "2, 4, 8"), (3, "2, 4, 8"), (8, "smaller than one block")] {
        assert!(said(parts).contains(reason), "{}", said(parts));
    }
    assert_eq!(block_on(split(&store, "p", 4)).unwrap(), [0, 1, 2, 3].map(|n| format!("split-p-{n}")));
    let mut parts: Vec<IpPool> =
        listed(&store, Kind::IPPool).iter().map(|object| IpPool::from_object(object).unwrap()).collect();
    let cidrs: Vec<String> = parts.iter().map(|part| part.cidr.to_string()).collect();
    assert_eq!(cidrs, ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26", "10.0.0.192/26"]);
    assert!(listed(&store, Kind::IPPool).iter().all(|part| part.spec["fromTheFuture"] == 1));
    parts.iter_mut().for_each(|part| part.disabled = false);
    assert_eq!(assign(&mut n1, &store, &parts, &[request("n1", "a")]), given);
    let part: Vec<IpPool> = parts.into_iter().filter(|part| part.contains(given[0])).collect();
    assign(&mut n1, &store, &part, &[request("n1", "b")]);
    assert_eq!(n1.confirmed_blocks().len(), 1);
}

#[test]
fn a_split_that_stops_anywhere_is_ended_by_the_next() {
    for seed in 0..50 {
        let store = Faulty::new(Memory::new(), seed, Faults::default());
        put(
            &store,
            Object::new(Kind::IPPool, "p", &serde_json::json!({"cidr": "10.0.0.0/24", "disabled": true})),
        );
        store.set_faults(Faults { before: 20, after: 20, ..Faults::default() });
        let first = block_on(split(&store, "p", 4));
        store.set_faults(Faults::default());
        let names: Vec<String> = match (first, block_on(store.get(Kind::IPPool, "p")).unwrap()) {
            (_, Some(_)) => block_on(split(&store, "p", 4)).unwrap(),
            (_, None) => listed(&store, Kind::IPPool).iter().map(|part| part.name().to_owned()).collect(),
        };
        assert_eq!(names.len(), 4, "seed {seed}");
        assert_eq!(listed(&store, Kind::IPPool).len(), 4, "seed {seed}");
    }
}
