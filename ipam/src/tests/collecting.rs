//! What is cleared away, when, and what never is.

use super::*;

type Pods = BTreeMap<(String, String), PodState>;

const MINUTE: Duration = Duration::from_secs(60);

fn pod(node: &str, name: &str) -> AssignRequest {
    let attributes = [("node", node), ("namespace", "default"), ("pod", name)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    AssignRequest::ipv4(format!("net.{name}"), attributes.into())
}

fn tunnel(node: &str) -> AssignRequest {
    let attributes = [("node", node), ("type", "ipipTunnelAddress")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    AssignRequest::ipv4(format!("ipip-tunnel-addr-{node}"), attributes.into())
}

fn state(node: &str, addresses: &[&str]) -> PodState {
    PodState {
        node: Some(node.to_owned()),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        finished: false,
    }
}

fn pods<const N: usize>(pods: [(&str, PodState); N]) -> Pods {
    pods.into_iter().map(|(name, state)| (("default".to_owned(), name.to_owned()), state)).collect()
}

/// What is done by a collector that looks every five minutes, by the minute.
fn watch(store: &Store, nodes: &[&str], pods: &Pods, minutes: u32) -> Vec<(u32, String)> {
    let mut collector = Collector::new(DEFAULT_GRACE);
    let mut done = Vec::new();
    for minute in (0..=minutes).step_by(5) {
        let actions = block_on(collect(&mut collector, store, nodes, pods, now() + minute * MINUTE)).unwrap();
        done.extend(actions.iter().map(|action| (minute, action.to_string())));
    }
    done
}

fn said(minute: u32, what: &str) -> (u32, String) {
    (minute, what.to_owned())
}

#[test]
fn the_address_of_a_pod_that_is_gone_elsewhere_or_finished_is_released_after_the_grace() {
    let pools = [pool("p", "10.0.0.0/26", 26)];
    let finished = PodState { finished: true, ..state("n1", &["10.0.0.0"]) };
    for (case, pods, leaked) in [
        ("alive", pods([("a", state("n1", &["10.0.0.0"]))]), false),
        ("not yet reported", pods([("a", state("n1", &[]))]), false),
        ("missing", pods([]), true),
        ("on another node", pods([("a", state("n2", &["10.0.0.0"]))]), true),
        ("with another address", pods([("a", state("n1", &["10.0.0.1"]))]), true),
        ("finished", pods([("a", finished)]), true),
    ] {
        let (store, mut n1) = (store(), Allocator::new(node("n1")));
        assign(&mut n1, &store, &pools, &[pod("n1", "a"), request("n1", "nameless"), tunnel("n1")]);
        let done = watch(&store, &["n1", "n2"], &pods, 30);
        let release = said(15, "release 10.0.0.0 of handle net.a, which nobody has any more");
        assert_eq!(done, if leaked { vec![release] } else { vec![] }, "{case}");
        assert_eq!(findings(&store), [], "{case}");
    }
}

#[test]
fn a_handle_goes_whole_or_not_at_all() {
    let pools = [pool("four", "10.0.0.0/26", 26), pool("six", "fd00::/122", 122)];
    for (addresses, leaked) in [(vec!["10.0.0.0"], false), (vec!["10.0.0.9"], true)] {
        let (store, mut n1) = (store(), Allocator::new(node("n1")));
        let ipv6 = Wanted { count: 1, pools: Vec::new() };
        assign(&mut n1, &store, &pools, &[AssignRequest { ipv6, ..pod("n1", "a") }]);
        watch(&store, &["n1"], &pods([("a", state("n1", &addresses))]), 30);
        assert_eq!(holders(&store).len(), usize::from(!leaked));
        assert_eq!(findings(&store), []);
    }
}

#[test]
fn what_a_gone_node_held_goes_at_once_and_its_tunnel_last() {
    let (store, mut n1, mut n2) = (store(), Allocator::new(node("n1")), Allocator::new(node("n2")));
    let pools = [pool("p", "10.0.0.0/26", 26)];
    assign(&mut n1, &store, &pools, &[tunnel("n1"), pod("n1", "a")]);
    assign(&mut n2, &store, &pools, &[pod("n2", "b")]);
    let alive = pods([("b", state("n2", &["10.0.0.2"]))]);
    let done = watch(&store, &["n2"], &alive, 20);
    assert_eq!(
        done,
        [
            said(0, "release 10.0.0.1 of handle net.a, which nobody has any more"),
            said(5, "release 10.0.0.0 of handle ipip-tunnel-addr-n1, which nobody has any more"),
        ]
    );
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["net.b"], "in the block of the gone node");
    release(&mut n2, &store, "net.b").unwrap();
    let done = watch(&store, &["n2"], &alive, 0);
    assert_eq!(done, [said(0, "take the empty block 10.0.0.0/26 from node n1")]);
    assert!(specs::<AffinitySpec>(&store, Kind::BlockAffinity).is_empty());
}

#[test]
fn empty_blocks_go_after_the_grace_but_never_the_last_of_a_node() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/28", 30)];
    let all = requests("n1", 12);
    assign(&mut n1, &store, &pools, &all);
    let handles: Vec<String> = all.into_iter().map(|request| request.handle).collect();
    block_on(n1.release(&store, now(), &IpamConfigSpec::default(), &handles));
    let done = watch(&store, &["n1"], &Pods::new(), 15);
    assert_eq!(done.iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [15, 15]);
    assert_eq!(specs::<BlockSpec>(&store, Kind::IPAMBlock).len(), 1);
    assert_eq!(findings(&store), []);
    assert_eq!(assign(&mut n1, &store, &pools, &requests("n1", 8)).len(), 8, "who lost them finds out");
    assert_eq!(findings(&store), []);
}

#[test]
fn a_block_that_was_used_meanwhile_waits_anew() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/29", 30)];
    assign(&mut n1, &store, &pools, &requests("n1", 5));
    release(&mut n1, &store, "n1.4").unwrap();
    let mut collector = Collector::new(DEFAULT_GRACE);
    let mut look = |minute: u32| {
        block_on(collect(&mut collector, &store, &["n1"], &Pods::new(), now() + minute * MINUTE))
            .unwrap()
            .len()
    };
    assert_eq!(look(0), 0);
    assign(&mut n1, &store, &pools, &[request("n1", "short")]);
    release(&mut n1, &store, "short").unwrap();
    assert_eq!([look(14), look(16), look(28), look(29)], [0, 0, 0, 1]);
}

#[test]
fn what_crashes_left_is_removed_or_mended_after_the_grace() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/26", 26)];
    assign(&mut n1, &store, &pools, &[request("n1", "a")]);
    let block = "10.0.0.0/26".parse().unwrap();
    remove(&store, Kind::BlockAffinity, &manx_model::affinity_name(&node("n1"), block));
    put(&store, super::handle("left", "10.0.0.0/26"));
    put(&store, super::handle("nowhere", "10.9.0.0/26"));
    for (cidr, state) in [("10.1.0.0/26", AffinityState::Pending), ("10.2.0.0/26", AffinityState::Confirmed)]
    {
        let cidr = cidr.parse().unwrap();
        let spec = AffinitySpec {
            state,
            node: node("n1"),
            kind: None,
            cidr,
            deleted: "false".into(),
            rest: Default::default(),
        };
        put(&store, Object::new(Kind::BlockAffinity, manx_model::affinity_name(&node("n1"), cidr), &spec));
    }
    let done = watch(&store, &["n1"], &Pods::new(), 10);
    assert_eq!(done, []);
    let done: Vec<String> =
        watch(&store, &["n1"], &Pods::new(), 15).into_iter().map(|(_, what)| what).collect();
    assert_eq!(
        done,
        [
            "remove handle left, which holds nothing",
            "remove handle nowhere, which holds nothing",
            "remove the affinity of node n1 for block 10.2.0.0/26, which it does not have",
            "finish or roll back the claim of node n1 for block 10.0.0.0/26",
            "finish or roll back the claim of node n1 for block 10.1.0.0/26",
        ]
    );
    assert_eq!(findings(&store), []);
}

#[test]
fn a_node_that_needs_no_blocks_keeps_none_that_is_empty() {
    let pools = [pool("p", "10.0.0.0/26", 26)];
    for (name, released) in [("n1", 0), ("blockless1", 1)] {
        let (store, mut allocator) = (store(), Allocator::new(node(name)));
        assign(&mut allocator, &store, &pools, &[pod(name, "a")]);
        release(&mut allocator, &store, "net.a").unwrap();
        assert_eq!(watch(&store, &[name], &Pods::new(), 60).len(), released, "{name}");
        let left = block_on(store.list(Kind::IPAMBlock, &Only::All)).unwrap().len();
        assert_eq!(left, 1 - released, "{name}");
    }
}

#[test]
fn a_handle_in_use_whose_deletion_was_begun_and_given_up_is_itself_again_after_the_grace() {
    let (store, pools) = (store(), [pool("p", "10.0.0.0/26", 26)]);
    assign(&mut Allocator::new(node("n1")), &store, &pools, &[tunnel("n1")]);
    let name = "ipip-tunnel-addr-n1";
    let object = block_on(store.get(Kind::IPAMHandle, name)).unwrap().unwrap();
    let marked = HandleSpec { deleted: true, ..object.spec().unwrap() };
    block_on(store.update(object.with_spec(&marked))).unwrap();
    assert_eq!(findings(&store).len(), 1);
    let done = watch(&store, &["n1"], &pods([]), 20);
    let what = format!("store handle {name} with the blocks in which it holds addresses");
    assert_eq!(done, [(15, what)]);
    assert_eq!(findings(&store), []);
}

#[test]
fn nothing_is_released_that_has_changed_since_it_was_decided() {
    let (store, mut n1) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/32", 32)];
    assign(&mut n1, &store, &pools, &[pod("n1", "a")]);
    let blocks = block_on(store.list(Kind::IPAMBlock, &Only::All)).unwrap();
    let blocks: Vec<Object> = blocks.into_iter().map(Result::unwrap).collect();
    let (nodes, gone) = ([node("n1")].into(), Pods::new());
    let observed = Observed {
        blocks: &blocks,
        affinities: &[],
        handles: &[],
        nodes: &nodes,
        blockless: &BTreeSet::new(),
        pods: &gone,
        pools: &pools,
    };
    let mut collector = Collector::new(DEFAULT_GRACE);
    collector.observe(observed, now());
    let actions = collector.observe(observed, now() + DEFAULT_GRACE);
    let action = actions.iter().find(|action| matches!(action, Action::ReleaseHandle { .. })).unwrap();
    // The same handle, the same address, another allocation.
    release(&mut n1, &store, "net.a").unwrap();
    assign(&mut n1, &store, &pools, &[pod("n1", "a")]);
    let done = block_on(collector.carry_out(&store, now(), &IpamConfigSpec::default(), action));
    assert_eq!(done, Ok(false));
    assert_eq!(holders(&store).len(), 1);
    let metrics = collector.metrics(observed);
    assert_eq!(metrics.in_use, [(("p".to_owned(), "n1".to_owned()), 1)].into());
    assert_eq!((metrics.pool_size["p"], metrics.reclaimed, metrics.borrowed.len()), (1, 0, 0));
}
