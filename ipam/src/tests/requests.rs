//! What can be asked for, and what it costs.

use super::*;

const SIX: &str = "fd00::/112";

fn dual(handle: &str) -> AssignRequest {
    let ipv6 = Wanted { count: 1, pools: Vec::new() };
    AssignRequest { ipv6, ..request("n1", handle) }
}

fn fixed(handle: &str, addresses: &[&str]) -> AssignRequest {
    AssignRequest {
        fixed: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..request("n1", handle)
    }
}

fn dual_pools() -> [IpPool; 2] {
    [pool("four", "10.0.0.0/24", 26), pool("six", SIX, 122)]
}

fn one(
    allocator: &mut Allocator,
    store: &Store,
    pools: &[IpPool],
    request: AssignRequest,
) -> Result<Vec<Assigned>, Error> {
    try_assign(allocator, store, pools, &[request]).remove(0)
}

fn said(answer: Result<Vec<Assigned>, Error>) -> String {
    answer.unwrap_err().to_string()
}

#[test]
fn a_pod_alone_costs_two_calls_to_come_and_two_to_go() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/24", 26)];
    assign(&mut allocator, &store, &pools, &[request("n1", "first")]);
    let calls = store.calls();
    assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    assert_eq!(store.calls() - calls, 2);
    release(&mut allocator, &store, "a").unwrap();
    assert_eq!(store.calls() - calls, 4);
    assign(&mut allocator, &store, &pools, &[request("n1", "b")]);
    let mut restarted = Allocator::new(node("n1"));
    let calls = store.calls();
    load(&mut restarted, &store);
    assert_eq!(store.calls() - calls, 2, "a list of our own affinities, and our block");
    release(&mut restarted, &store, "b").unwrap();
    assert_eq!(store.calls() - calls, 5, "the handle is read once after a restart");
    assert_eq!(findings(&store), []);
}

#[test]
fn both_families_share_one_handle_and_cost_one_call_more() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = dual_pools();
    one(&mut allocator, &store, &pools, dual("first")).unwrap();
    let calls = store.calls();
    let given = one(&mut allocator, &store, &pools, dual("a")).unwrap();
    assert_eq!(store.calls() - calls, 3);
    assert!(given[0].address.is_ipv4() && given[1].address.is_ipv6(), "IPv4 first: {given:?}");
    assert_eq!(one(&mut allocator, &store, &pools, dual("a")).unwrap(), given, "the same again");
    let calls = store.calls();
    let released = release(&mut allocator, &store, "a").unwrap();
    assert_eq!(released, given.iter().map(|given| given.address).collect::<Vec<_>>());
    assert_eq!(store.calls() - calls, 3);
    assert_eq!(findings(&store), []);
}

#[test]
fn several_addresses_of_one_handle_are_counted_by_it() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let wanted = AssignRequest { ipv4: Wanted { count: 3, pools: Vec::new() }, ..request("n1", "a") };
    let given = one(&mut allocator, &store, &[pool("p", "10.0.0.0/29", 31)], wanted).unwrap();
    assert_eq!(given.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(findings(&store), []);
    assert_eq!(release(&mut allocator, &store, "a").unwrap().len(), 3);
    assert!(holders(&store).is_empty());
    assert_eq!(findings(&store), []);
}

#[test]
fn half_of_what_is_wanted_is_nothing() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("four", "10.0.0.0/24", 26), pool("six", "fd00::/128", 128)];
    one(&mut allocator, &store, &pools, dual("a")).unwrap();
    let error = said(one(&mut allocator, &store, &pools, dual("b")));
    assert!(error.contains("No IPs available in pools: [six]"), "{error}");
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(findings(&store), []);
    let error = said(one(&mut allocator, &store, &pools[..1], dual("b")));
    assert!(error.contains("no IPPool gives IPv6 addresses"), "{error}");
}

#[test]
fn the_family_that_was_had_is_given_back_when_the_other_fails_on_the_way() {
    let pools = [pool("four", "10.0.0.0/24", 26), pool("six", SIX, 122)];
    for seed in 0..100 {
        let store = Faulty::new(Memory::new(), seed, Faults::default());
        let mut allocator = Allocator::new(node("n1"));
        one(&mut allocator, &store, &pools, dual("first")).unwrap();
        store.set_faults(Faults { before: 30, ..Faults::default() });
        let answer = one(&mut allocator, &store, &pools, dual("a"));
        store.set_faults(Faults::default());
        match answer {
            Ok(given) => assert_eq!(given.len(), 2),
            // What could not be undone while calls failed is undone by asking for it.
            Err(_) => drop(release(&mut allocator, &store, "a").unwrap()),
        }
        assert!([0, 2].contains(&holders(&store).get("a").map_or(0, Vec::len)), "seed {seed}");
        assert_eq!(findings(&store), [], "seed {seed}");
    }
}

#[test]
fn a_named_address_is_given_exactly() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = dual_pools();
    let wanted = fixed("a", &["10.0.0.77", "fd00::1:5"]);
    assert!(said(one(&mut allocator, &store, &pools, wanted)).contains("it is in no IPPool in use"));
    let wanted = fixed("a", &["10.0.0.77", "fd00::55"]);
    let given = one(&mut allocator, &store, &pools, wanted.clone()).unwrap();
    assert_eq!(given.iter().map(|given| given.address).collect::<Vec<_>>(), wanted.fixed);
    assert_eq!(given[0].block, "10.0.0.64/26".parse().unwrap(), "its block is claimed");
    assert_eq!(one(&mut allocator, &store, &pools, wanted).unwrap(), given);
    let both = [request("n1", "any"), fixed("exact", &["10.0.0.64"])];
    let given = assign(&mut allocator, &store, &pools, &both);
    assert_eq!(given, ["10.0.0.65", "10.0.0.64"].map(|text| text.parse::<IpAddr>().unwrap()));
    let given = assign(&mut allocator, &store, &pools, &[fixed("b", &["10.0.0.200"])]);
    assert_eq!(given[0].to_string(), "10.0.0.200");
    assert_eq!(findings(&store), []);
}

#[test]
fn a_named_address_that_cannot_be_had_says_why() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let mut pools = [pool("p", "10.0.0.0/24", 26), pool("off", "10.1.0.0/24", 26)];
    pools[1].disabled = true;
    let mut holder = fixed("a", &["10.0.0.7"]);
    holder.attributes.insert("namespace".into(), "default".into());
    one(&mut allocator, &store, &pools, holder).unwrap();
    let mut other = Allocator::new(node("n2"));
    for allocator in [&mut allocator, &mut other] {
        let error = said(one(allocator, &store, &pools, fixed("b", &["10.0.0.7"])));
        assert!(
            error.contains("10.0.0.7 cannot be assigned: it is held by pod default/a of node n1 (a)"),
            "{error}"
        );
    }
    let error = said(one(&mut allocator, &store, &pools, fixed("b", &["10.1.0.7"])));
    assert!(error.contains("IPPool off, which contains it, is disabled"), "{error}");
    let reserved = ["10.0.0.8/30".parse().unwrap()];
    let config = IpamConfigSpec::default();
    let rules = Rules { reserved: &reserved, ..rules(&pools, &config) };
    let answer = block_on(allocator.assign(&store, now(), rules, &[fixed("b", &["10.0.0.9"])])).remove(0);
    assert!(said(answer).contains("an IPReservation reserves it"));
    release(&mut other, &store, "a").unwrap();
    one(&mut allocator, &store, &pools, fixed("b", &["10.0.0.7"])).unwrap();
    assert_eq!(findings(&store), []);
}

#[test]
fn reserved_addresses_are_skipped_in_order_and_reserved_blocks_are_not_claimed() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/28", 30)];
    let reserved = ["10.0.0.0/31", "10.0.0.5/32", "10.0.0.8/30", "10.0.0.12/31", "10.0.0.14/31"]
        .map(|text| text.parse().unwrap());
    let config = IpamConfigSpec::default();
    let rules = Rules { reserved: &reserved, ..rules(&pools, &config) };
    let answers = block_on(allocator.assign(&store, now(), rules, &requests("n1", 9)));
    let given = answers.iter().flatten().flatten().map(|given| given.address.to_string());
    let given: std::collections::BTreeSet<String> = given.collect();
    let free = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6", "10.0.0.7"].map(String::from);
    assert_eq!(given, free.into());
    assert_eq!(allocator.confirmed_blocks().len(), 2);
    assert_eq!(findings(&store), []);
}

#[test]
fn who_holds_an_address_keeps_it_when_the_pool_is_no_longer_meant_for_it() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let mut pools = [pool("p", "10.0.0.0/26", 26)];
    let given = assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    pools[0].disabled = true;
    assert_eq!(assign(&mut allocator, &store, &pools, &[request("n1", "a")]), given);
    assert_eq!(assign(&mut Allocator::new(node("n2")), &store, &pools, &[request("n1", "a")]), given);
}

#[test]
fn blocks_of_a_single_address_do() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/29", 32)];
    let given = assign(&mut allocator, &store, &pools, &requests("n1", 8));
    assert_eq!(given.iter().collect::<std::collections::BTreeSet<_>>().len(), 8);
    assert_eq!(allocator.confirmed_blocks().len(), 8);
    assert_eq!(findings(&store), []);
}
