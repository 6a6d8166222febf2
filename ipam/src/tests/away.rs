//! Addresses that are given while the datastore is away, and what becomes of them.

use std::collections::BTreeSet;

use super::*;

/// A node whose one block has a pod and a reserve; from then on the datastore is away.
struct Fixture {
    store: Store,
    n1: Allocator,
    pools: [IpPool; 1],
    config: IpamConfigSpec,
}

fn pod(handle: &str, name: &str) -> AssignRequest {
    let attributes = [("node", "n1"), ("namespace", "default"), ("pod", name)];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    AssignRequest::ipv4(handle, attributes)
}

impl Fixture {
    fn new() -> Self {
        let (store, pools) = (store(), [pool("p", "10.0.0.0/28", 28)]);
        let mut fixture =
            Self { store, n1: Allocator::new(node("n1")), pools, config: IpamConfigSpec::default() };
        assign(&mut fixture.n1, &fixture.store, &fixture.pools, &[pod("net.web-1", "web")]);
        fixture.keep();
        fixture.store.down();
        fixture
    }

    fn keep(&mut self) {
        let rules = rules(&self.pools, &self.config);
        block_on(self.n1.keep_reserve(&self.store, now(), rules, DEFAULT_RESERVE)).unwrap();
    }

    fn try_away_at(&mut self, at: SystemTime, request: AssignRequest) -> Result<String, String> {
        let rules = rules(&self.pools, &self.config);
        let answer = self.n1.assign_away(at, rules, &[request]).remove(0);
        answer.map(|given| given[0].address.to_string()).map_err(|error| error.to_string())
    }

    fn try_away(&mut self, request: AssignRequest) -> Result<String, String> {
        self.try_away_at(now(), request)
    }

    fn away(&mut self, request: AssignRequest) -> String {
        self.try_away(request).unwrap()
    }

    fn back(&mut self, gone: &[&str]) -> Vec<Broken> {
        self.store.up();
        let gone: BTreeSet<String> = gone.iter().map(|handle| (*handle).to_owned()).collect();
        let rules = rules(&self.pools, &self.config);
        let broken = block_on(self.n1.redeem(&self.store, now(), rules, &gone)).unwrap();
        for handle in gone {
            release(&mut self.n1, &self.store, &handle).unwrap();
        }
        if broken.is_empty() {
            self.keep();
            assert_eq!(findings(&self.store), []);
        }
        broken
    }

    fn holds(&self, handle: &str) -> Vec<String> {
        let held = holders(&self.store).remove(handle).unwrap_or_default();
        held.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn pods_are_given_the_reserve_until_it_is_used_up_and_ipam_knows_of_them_afterwards() {
    let mut it = Fixture::new();
    let given = [it.away(pod("net.a-1", "a")), it.away(pod("net.b-1", "b"))];
    assert_eq!(given, ["10.0.0.14", "10.0.0.15"]);
    let refused = it.try_away(pod("net.c-1", "c")).unwrap_err();
    assert!(refused.contains("datastore is away") && refused.contains("MANX_IPAM_RESERVE"), "{refused}");
    assert_eq!(it.away(pod("net.a-1", "a")), "10.0.0.14", "a repeated ADD");
    assert_eq!(it.away(pod("net.web-1", "web")), "10.0.0.0", "nor is one from before refused");
    assert_eq!(it.back(&[]), []);
    assert_eq!(
        (it.holds("net.a-1"), it.holds("net.b-1")),
        (vec!["10.0.0.14".into()], vec!["10.0.0.15".into()])
    );
    assert_eq!(it.holds("manx-reserve-n1").len(), 2, "it is filled up again");
    assert_eq!(it.n1.promised().count(), 0);
}

#[test]
fn a_pods_next_container_is_given_what_the_last_one_had_and_no_other_pod_is() {
    let mut it = Fixture::new();
    it.n1.leave(now(), "net.web-1");
    assert_eq!(it.away(pod("net.other", "other")), "10.0.0.14");
    assert_eq!(it.away(pod("net.web-2", "web")), "10.0.0.0");
    assert_eq!(it.back(&["net.web-1"]), []);
    assert_eq!(
        (it.holds("net.web-2"), it.holds("net.web-1")),
        (vec!["10.0.0.0".into()], Vec::<String>::new())
    );
}

#[test]
fn a_release_that_was_asked_for_in_vain_may_have_come_about() {
    let mut it = Fixture::new();
    release(&mut it.n1, &it.store, "net.web-1").unwrap_err();
    it.n1.leave(now(), "net.web-1");
    assert_eq!(it.away(pod("net.web-2", "web")), "10.0.0.14", "not what may be free by now");
    assert_eq!(it.away(pod("net.web-1", "web")), "10.0.0.15", "not even for the same container");
    assert_eq!(it.back(&[]), []);
    assert_eq!(it.holds("net.web-1"), ["10.0.0.15"], "it has one address, not two");
}

#[test]
fn what_a_pod_had_rests_as_long_as_it_must() {
    let mut it = Fixture::new();
    it.config.ip_cooldown_seconds = 60;
    it.n1.leave(now(), "net.web-1");
    assert_eq!(it.away(pod("net.web-2", "web")), "10.0.0.14");
    it.n1.leave(now(), "net.web-2");
    assert_eq!(it.away(pod("net.web-3", "web")), "10.0.0.15");
    let refused = it.try_away_at(now() + Duration::from_secs(59), pod("net.web-4", "web"));
    assert!(refused.is_err(), "{refused:?}");
    let later = now() + Duration::from_secs(60);
    assert_eq!(it.try_away_at(later, pod("net.web-4", "web")).unwrap(), "10.0.0.0");
    assert_eq!(it.back(&["net.web-1", "net.web-2"]), []);
}

#[test]
fn a_pod_that_came_and_went_meanwhile_leaves_nothing_behind() {
    let mut it = Fixture::new();
    it.away(pod("net.a-1", "a"));
    it.n1.leave(now(), "net.a-1");
    assert_eq!(it.away(pod("net.b-1", "b")), "10.0.0.14", "it is there for the next one");
    assert_eq!(it.back(&["net.a-1"]), []);
    assert_eq!(it.holds("net.b-1"), ["10.0.0.14"]);
    assert_eq!(it.holds("net.a-1"), [""; 0]);
}

#[test]
fn an_agent_that_restarts_is_told_by_the_kernel_and_gives_nothing_twice() {
    for back_before in [false, true] {
        let mut it = Fixture::new();
        it.n1.leave(now(), "net.web-1");
        let given = [it.away(pod("net.web-2", "web")), it.away(pod("net.a-1", "a"))];
        // What it read before the datastore went away it remembers: here it is read while the cut is lifted.
        it.store.up();
        it.n1 = Allocator::new(node("n1"));
        load(&mut it.n1, &it.store);
        if !back_before {
            it.store.down();
        }
        for (handle, name, address) in [("net.web-2", "web", &given[0]), ("net.a-1", "a", &given[1])] {
            let attributes = pod(handle, name).attributes;
            it.n1.promise(handle.into(), attributes, vec![address.parse().unwrap()]);
        }
        let next = it.away(pod("net.c-1", "c"));
        assert!(!given.contains(&next), "{next}");
        assert_eq!(it.back(&["net.web-1"]), []);
        assert_eq!([it.holds("net.web-2"), it.holds("net.a-1")].concat(), given);
        assert_eq!(it.holds("net.c-1"), [next]);
    }
}

#[test]
fn an_address_that_an_operator_gave_to_somebody_else_is_named_and_never_shared() {
    let mut it = Fixture::new();
    let given = it.away(pod("net.a-1", "a"));
    it.store.up();
    let address: IpAddr = given.parse().unwrap();
    block_on(release_address(&it.store, now(), &it.config, &it.pools, address, None)).unwrap().unwrap();
    let fixed = AssignRequest { fixed: vec![address], ..request("n2", "theirs") };
    assign(&mut Allocator::new(node("n2")), &it.store, &it.pools, &[fixed]);
    let broken = it.back(&[]);
    assert_eq!(broken.len(), 1);
    assert!(broken[0].to_string().contains("theirs has it by IPAM"), "{}", broken[0]);
    release(&mut Allocator::new(node("n9")), &it.store, "theirs").unwrap();
    assert_eq!(it.back(&[]), [], "as soon as nobody has it, it is the pod's");
    assert_eq!(it.holds("net.a-1"), [given]);
}

#[test]
fn with_strict_affinity_the_free_addresses_of_a_block_that_stays_ours_are_given_too() {
    let mut it = Fixture::new();
    it.config.strict_affinity = true;
    let given: BTreeSet<String> =
        (0..15).map(|n| it.away(pod(&format!("net.{n}"), &format!("p{n}")))).collect();
    assert_eq!(given.len(), 15);
    assert!(it.try_away(pod("net.more", "more")).is_err());
    assert_eq!(it.back(&[]), []);
    assert_eq!(holders(&it.store).len(), 16, "{:?}", holders(&it.store));

    let mut unsure = Fixture::new();
    unsure.config.strict_affinity = true;
    unsure.store.up();
    unsure.n1 = Allocator::new(node("n1"));
    load(&mut unsure.n1, &unsure.store);
    let given: Vec<_> =
        (0..3).map(|n| unsure.try_away(pod(&format!("net.{n}"), &format!("p{n}"))).is_ok()).collect();
    assert_eq!(given, [true, true, false], "what the last agent wrote last is not certain");
}

#[test]
fn what_a_pod_asks_for_is_honoured_or_refused_with_a_reason() {
    let mut it = Fixture::new();
    let fixed = |address: &str| AssignRequest {
        fixed: vec![address.parse().unwrap()],
        ..pod(&format!("net.{address}"), "fixed")
    };
    assert_eq!(it.away(fixed("10.0.0.15")), "10.0.0.15");
    for (request, reason) in [
        (fixed("10.0.0.9"), "not held back by this node"),
        (fixed("10.9.9.9"), "in no IPPool"),
        (
            AssignRequest { ipv4: Wanted { count: 1, pools: vec!["q".into()] }, ..pod("net.q", "q") },
            "no such IPPool",
        ),
        (AssignRequest { ipv6: Wanted { count: 1, pools: Vec::new() }, ..pod("net.six", "six") }, "IPv6"),
        (AssignRequest { usage: manx_model::AllowedUse::Tunnel, ..pod("net.t", "t") }, "only pods"),
    ] {
        let refused = it.try_away(request).unwrap_err();
        assert!(refused.contains("datastore is away") && refused.contains(reason), "{refused}");
    }
    assert_eq!(it.away(pod("net.last", "last")), "10.0.0.14", "what was refused took nothing");
}

#[test]
fn a_write_before_the_cut_that_came_through_after_all_is_made_up_for() {
    let mut it = Fixture::new();
    it.store.up();
    it.store.set_faults(Faults { after: 100, ..Faults::default() });
    try_assign(&mut it.n1, &it.store, &it.pools, &[pod("net.a-1", "a")]).remove(0).unwrap_err();
    it.store.set_faults(Faults::default());
    it.store.down();
    let given = it.away(pod("net.a-1", "a"));
    assert_eq!(it.back(&[]), []);
    assert_eq!(it.holds("net.a-1"), [given]);
}

#[test]
fn whatever_fails_on_the_way_back_every_pod_ends_up_with_what_it_was_given() {
    for seed in 0..200 {
        let mut it = Fixture::new();
        it.store = Faulty::new(Memory::new(), seed, Faults::default());
        it.n1 = Allocator::new(node("n1"));
        assign(&mut it.n1, &it.store, &it.pools, &[pod("net.web-1", "web")]);
        it.keep();
        it.store.down();
        it.n1.leave(now(), "net.web-1");
        let given = [it.away(pod("net.web-2", "web")), it.away(pod("net.a-1", "a"))];
        it.store.up();
        it.store.set_faults(Faults { before: 20, after: 20, conflict: 20, delay: 0 });
        let gone: BTreeSet<String> = ["net.web-1".to_owned()].into();
        for _ in 0..3 {
            let rules = rules(&it.pools, &it.config);
            let _ = block_on(it.n1.redeem(&it.store, now(), rules, &gone));
        }
        it.store.set_faults(Faults::default());
        assert_eq!(it.back(&["net.web-1"]), [], "seed {seed}");
        assert_eq!([it.holds("net.web-2"), it.holds("net.a-1")].concat(), given, "seed {seed}");
    }
}
