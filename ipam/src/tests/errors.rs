//! What is said when there is no address.

use super::*;

fn refusal(allocator: &mut Allocator, store: &Store, pools: &[IpPool], config: &IpamConfigSpec) -> String {
    let answers = block_on(allocator.assign(store, now(), rules(pools, config), &requests("n1", 9)));
    let refused: Vec<String> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(ToString::to_string).collect();
    assert!(refused.iter().all(|other| *other == refused[0]), "one reason for all: {refused:?}");
    assert_eq!(findings(store), [], "the handles of refused requests are taken back");
    assert_eq!(holders(store).len(), 9 - refused.len(), "what could be had was given");
    refused[0].clone()
}

#[test]
fn each_reason_has_its_own_sentence() {
    let pools = [pool("p", "10.0.0.0/29", 30)];
    let usual = IpamConfigSpec::default();
    let limited = IpamConfigSpec { max_blocks_per_host: 1, ..usual.clone() };
    let strict = IpamConfigSpec { strict_affinity: true, ..usual.clone() };
    let no_claims = IpamConfigSpec { auto_allocate_blocks: false, strict_affinity: true, ..usual.clone() };
    let mut disabled = pools.clone();
    disabled[0].disabled = true;
    for (pools, config, says) in [
        (&pools, &usual, "No IPs available in pools: [p] (node n1"),
        (&pools, &strict, "No more free affine blocks and strict affinity enabled (node n1, pools: [p])"),
        (
            &pools,
            &limited,
            "Need to allocate an IPAM block but could not - limit of 1 blocks reached for this node (n1)",
        ),
        (&pools, &no_claims, "autoAllocateBlocks"),
        (&disabled, &usual, "no IPPool gives IPv4 addresses to this request on node n1 (p: is disabled)"),
    ] {
        let (store, mut allocator) = (store(), Allocator::new(node("n1")));
        let said = refusal(&mut allocator, &store, pools, config);
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn a_handle_that_cannot_be_stored_is_named_and_hinders_nobody() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let requests = [request("n1", "Bad Handle"), request("n1", "good"), request("n1", "x".repeat(254))];
    let pools = [pool("p", "10.0.0.0/26", 26)];
    let answers = try_assign(&mut allocator, &store, &pools, &requests);
    assert!(answers[0].as_ref().unwrap_err().to_string().contains("handle \"Bad Handle\" cannot be stored"));
    assert!(answers[1].is_ok());
    assert!(matches!(answers[2], Err(Error::Handle { .. })));
}

#[test]
fn a_block_that_cannot_be_read_is_kept_reported_and_not_used() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/25", 26)];
    assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    let damaged = *allocator.confirmed_blocks().first().unwrap();
    edit(&store, Kind::IPAMBlock, &manx_model::cidr_name(damaged), |spec: &mut serde_json::Value| {
        spec["allocations"] = serde_json::json!([]);
    });
    let address = assign(&mut allocator, &store, &pools, &[request("n1", "b")]);
    assert!(!damaged.contains(&address[0]));
    assert!(allocator.confirmed_blocks().contains(&damaged), "its pods are routed as before");
    let mut restarted = Allocator::new(node("n1"));
    let report = load(&mut restarted, &store);
    assert!(report.refused[0].to_string().contains("spec.allocations"), "{report:?}");
    assert_eq!(restarted.confirmed_blocks(), allocator.confirmed_blocks());
    assert!(release(&mut restarted, &store, "a").is_err(), "nobody can say that it is released");
}

#[test]
fn nothing_is_given_while_the_store_is_cut_off_and_nothing_is_lost_by_it() {
    let (store, mut allocator) = (store(), Allocator::new(node("n1")));
    let pools = [pool("p", "10.0.0.0/26", 26)];
    assign(&mut allocator, &store, &pools, &[request("n1", "a")]);
    store.down();
    let answers = try_assign(&mut allocator, &store, &pools, &requests("n1", 2));
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Datastore(_)))));
    assert!(release(&mut allocator, &store, "a").is_err());
    assert_eq!(allocator.confirmed_blocks().len(), 1, "what is known stays known");
    store.up();
    assign(&mut allocator, &store, &pools, &requests("n1", 2));
    release(&mut allocator, &store, "a").unwrap();
    assert_eq!(findings(&store), []);
}
