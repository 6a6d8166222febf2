//! Addresses that are given before they are written.

use manx_model::reserve_handle;

use super::*;

/// A node whose one block of each pool has a pod and a reserve.
struct Fixture {
    store: Store,
    n1: Allocator,
    pools: Vec<IpPool>,
    config: IpamConfigSpec,
}

impl Fixture {
    fn new(pools: &[IpPool]) -> Self {
        let mut it = Self {
            store: store(),
            n1: Allocator::new(node("n1")),
            pools: pools.to_vec(),
            config: IpamConfigSpec::default(),
        };
        for pool in pools {
            let mut first = request("n1", format!("first.{}", pool.name));
            first.ipv6.count = usize::from(pool.cidr.addr().is_ipv6());
            first.ipv4.count = 1 - first.ipv6.count;
            let wanted = if first.ipv6.count > 0 { &mut first.ipv6 } else { &mut first.ipv4 };
            wanted.pools = vec![pool.name.clone()];
            assign(&mut it.n1, &it.store, pools, &[first]);
        }
        it.keep();
        it.store.take_writes();
        it
    }

    fn one_pool() -> Self {
        Self::new(&[pool("p", "10.0.0.0/28", 28)])
    }

    fn keep(&mut self) {
        let rules = rules(&self.pools, &self.config);
        block_on(self.n1.keep_reserve(&self.store, now(), rules, DEFAULT_RESERVE)).unwrap();
    }

    fn ahead(&mut self, requests: &[AssignRequest]) -> Option<Vec<Vec<Assigned>>> {
        self.n1.assign_ahead(now(), rules(&self.pools, &self.config), requests)
    }

    /// As [`Self::ahead`], of one request of one address.
    fn one(&mut self, handle: &str) -> Option<String> {
        let given = self.ahead(&[request("n1", handle)])?;
        Some(given[0][0].address.to_string())
    }

    /// Writes what was given.
    fn write(&mut self) {
        let rules = rules(&self.pools, &self.config);
        assert_eq!(block_on(self.n1.redeem(&self.store, now(), rules, &BTreeSet::new())).unwrap(), []);
    }

    fn holds(&self, handle: &str) -> Vec<String> {
        let held = holders(&self.store).remove(handle).unwrap_or_default();
        held.iter().map(ToString::to_string).collect()
    }

    fn reserve(&self) -> Vec<String> {
        self.holds(&reserve_handle(&node("n1")))
    }
}

#[test]
fn a_pod_has_its_address_without_a_call_and_one_write_of_block_and_handle_says_so() {
    let mut it = Fixture::one_pool();
    let calls = it.store.calls();
    assert_eq!(it.one("a").as_deref(), Some("10.0.0.14"));
    assert_eq!(it.store.calls(), calls);
    it.write();
    assert_eq!(it.store.calls() - calls, 2);
    it.keep();
    assert_eq!(it.store.calls() - calls, 2, "nothing is left to do");
    assert_eq!(it.holds("a"), ["10.0.0.14"]);
    assert_eq!(it.reserve(), ["10.0.0.1", "10.0.0.15"], "the next one is held back instead");
    assert_eq!(findings(&it.store), []);
}

#[test]
fn what_is_given_while_a_write_is_under_way_is_in_the_next_one() {
    let mut it = Fixture::one_pool();
    let first = it.one("a").unwrap();
    let terms = rules(&it.pools, &it.config);
    let under_way = it.n1.begin_to_redeem(now(), terms).unwrap();
    let given = [first, it.one("b").unwrap()];
    assert_eq!(it.one("c"), None, "no more is held back until the write has come to its end");
    let written = block_on(under_way.write(&it.store));
    assert!(it.n1.redeemed(written).unwrap());
    let third = it.one("c").unwrap();
    it.write();
    assert_eq!([it.holds("a"), it.holds("b")].concat(), given);
    assert_eq!(it.holds("c"), [third]);
    assert_eq!(it.reserve().len(), 2);
    let blocks = it.store.take_writes().into_iter().filter(|(kind, _)| *kind == Kind::IPAMBlock).count();
    assert_eq!(blocks, 2);
    assert_eq!(findings(&it.store), []);
}

#[test]
fn the_reserve_is_as_large_as_before_until_the_block_is_full() {
    let mut it = Fixture::one_pool();
    let ahead = (0..).take_while(|n| {
        let given = it.one(&format!("pod.{n}"));
        it.write();
        assert_eq!(it.reserve().len(), 2, "after {n}");
        given.is_some()
    });
    assert_eq!(ahead.count(), 13, "16 but for the first and the reserve");
    assert_eq!(findings(&it.store), []);
}

#[test]
fn both_families_come_together_or_not_at_all() {
    let mut it = Fixture::new(&[pool("four", "10.0.0.0/28", 28), pool("six", "fd00::/124", 124)]);
    let mut both = request("n1", "both");
    both.ipv6.count = 1;
    let given = it.ahead(&[both.clone()]).unwrap().remove(0);
    it.write();
    let given: Vec<String> = given.iter().map(|given| given.address.to_string()).collect();
    assert_eq!(it.holds("both"), given);
    assert_eq!(it.store.take_writes().len(), 3, "two blocks and a handle");
    assert_eq!(findings(&it.store), []);

    let mut it = Fixture::one_pool();
    assert_eq!(it.ahead(&[both]), None, "no pool of the other family");
    assert_eq!(it.n1.promised().count(), 0);
}

#[test]
fn nothing_is_given_ahead_that_an_ordinary_call_might_not_give() {
    let mut it = Fixture::one_pool();
    let fixed = AssignRequest { fixed: vec!["10.0.0.15".parse().unwrap()], ..request("n1", "fixed") };
    let tunnel = AssignRequest { usage: manx_model::AllowedUse::Tunnel, ..request("n1", "tunnel") };
    let mut elsewhere = request("n1", "elsewhere");
    elsewhere.ipv4.pools = vec!["q".into()];
    let known = request("n1", "first.p");
    let many: Vec<AssignRequest> = (0..3).map(|n| request("n1", n)).collect();
    for requests in [&[fixed][..], &[tunnel], &[elsewhere], &[known], &many] {
        assert_eq!(it.ahead(requests), None, "{requests:?}");
    }
    assert_eq!(it.ahead(&many[..2]).map(|given| given.len()), Some(2), "what was refused took nothing");

    let mut it = Fixture::one_pool();
    it.n1 = Allocator::new(node("n1"));
    assert_eq!(it.one("a"), None, "nothing is known yet");
    load(&mut it.n1, &it.store);
    assert_eq!(it.one("a"), None, "a write of the last agent may still come about");

    let nearer = [pool("near", "10.0.0.0/29", 29), pool("far", "10.1.0.0/28", 28)];
    let mut it = Fixture::new(&nearer);
    assert_eq!(it.one("near").as_deref(), Some("10.0.0.7"));
    let without = rules(&it.pools, &it.config);
    block_on(it.n1.keep_reserve(&it.store, now(), without, 0)).unwrap();
    assert_eq!(it.one("b"), None);
}

#[test]
fn an_agent_that_is_killed_before_the_write_finds_the_pod_in_the_kernel() {
    let mut it = Fixture::one_pool();
    let given = it.one("a").unwrap();
    it.n1 = Allocator::new(node("n1"));
    load(&mut it.n1, &it.store);
    it.n1.promise("a".into(), request("n1", "a").attributes, vec![given.parse().unwrap()]);
    it.write();
    assert_eq!(it.holds("a"), [given]);
    it.keep();
    assert_eq!(it.reserve().len(), 2);
    assert_eq!(findings(&it.store), []);
}

#[test]
fn whatever_becomes_of_the_write_every_pod_keeps_what_it_was_given() {
    for seed in 0..100 {
        let mut it = Fixture::one_pool();
        let store =
            Faulty::new(it.store.clone(), seed, Faults { before: 15, after: 15, conflict: 30, delay: 0 });
        let mut given = Vec::new();
        for handle in ["a", "b", "c"] {
            given.extend(it.one(handle).map(|address| (handle, address)));
            let rules = rules(&it.pools, &it.config);
            let _ = block_on(it.n1.redeem(&store, now(), rules, &BTreeSet::new()));
        }
        it.write();
        for (handle, address) in given {
            assert_eq!(it.holds(handle), [address], "seed {seed}");
        }
        it.keep();
        assert_eq!(findings(&it.store), [], "seed {seed}");
    }
}
