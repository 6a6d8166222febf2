use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_793_487_600, 5)
}

/// A block of four addresses.
fn small() -> BlockSpec {
    fresh("10.0.0.0/30".parse().unwrap(), &"n1".parse().unwrap(), now()).spec().unwrap()
}

fn holder(handle: &str) -> AllocationAttribute {
    AllocationAttribute {
        handle_id: Some(handle.into()),
        secondary: [("node".to_owned(), "n1".to_owned())].into(),
        ..Default::default()
    }
}

/// The lists of a block, as short text: who holds each ordinal, and the free ones in order.
fn lists(block: &BlockSpec) -> (String, Vec<usize>) {
    check(block).unwrap();
    let name = |index: &Option<usize>| match index.map(|index| &block.attributes[index]) {
        None => "-".to_owned(),
        Some(attribute) => attribute.handle_id.clone().unwrap_or_else(|| "cooling".into()),
    };
    (block.allocations.iter().map(name).collect::<Vec<_>>().join(" "), block.unallocated.clone())
}

#[test]
fn a_new_block_is_stored_as_calico_stores_it() {
    let object = fresh("10.0.0.0/30".parse().unwrap(), &"n1".parse().unwrap(), now());
    assert_eq!(object.name(), "10-0-0-0-30");
    assert_eq!(
        object.spec,
        json!({
            "cidr": "10.0.0.0/30", "affinity": "host:n1", "affinityClaimTime": "2026-10-31T23:00:00Z",
            "allocations": [null, null, null, null], "unallocated": [0, 1, 2, 3], "attributes": [],
            "sequenceNumber": 1_793_487_600_000_000_005_u64, "sequenceNumberForAllocation": {},
            "deleted": false, "strictAffinity": false,
        })
    );
}

#[test]
fn an_allocation_is_stored_as_calico_stores_it() {
    let mut block = small();
    block.sequence_number = 7;
    assert_eq!(allocate(&mut block, &holder("a"), &[]), Some("10.0.0.0".parse().unwrap()));
    let stored = serde_json::to_value(&block).unwrap();
    assert_eq!(stored["allocations"], json!([0, null, null, null]));
    assert_eq!(stored["unallocated"], json!([1, 2, 3]));
    assert_eq!(stored["attributes"], json!([{"handle_id": "a", "secondary": {"node": "n1"}}]));
    assert_eq!(stored["sequenceNumberForAllocation"], json!({"0": 7}));
}

#[test]
fn addresses_are_taken_from_the_head_and_come_back_at_the_tail() {
    enum Step {
        Take(&'static str),
        Give(&'static str),
    }
    use Step::{Give, Take};
    let mut block = small();
    for (step, who, free) in [
        (Take("a"), "a - - -", vec![1, 2, 3]),
        (Take("b"), "a b - -", vec![2, 3]),
        (Give("a"), "- b - -", vec![2, 3, 0]),
        (Take("c"), "- b c -", vec![3, 0]),
        (Take("c"), "- b c c", vec![0]),
        (Take("a"), "a b c c", vec![]),
        (Take("d"), "a b c c", vec![]),
        (Give("unknown"), "a b c c", vec![]),
        (Give("c"), "a b - -", vec![2, 3]),
        (Give("b"), "a - - -", vec![2, 3, 1]),
    ] {
        match step {
            Take(handle) => drop(allocate(&mut block, &holder(handle), &[])),
            Give(handle) => drop(release(&mut block, handle, now(), 0)),
        }
        assert_eq!(lists(&block), (who.to_owned(), free));
        assert_eq!(
            block.attributes.len(),
            who.replace("c c", "c").replace(['-', ' '], "").len(),
            "no spare attribute"
        );
        assert_eq!(block.sequence_number_for_allocation.len(), 4 - block.unallocated.len());
    }
    assert!(!is_empty(&block));
    release(&mut block, "a", now(), 0);
    assert!(is_empty(&block) && block.attributes.is_empty());
}

#[test]
fn a_released_address_rests_until_its_cool_down_is_over() {
    let mut block = small();
    allocate(&mut block, &holder("a"), &[]);
    allocate(&mut block, &holder("b"), &[]);
    assert_eq!(release(&mut block, "a", now(), 30).len(), 1);
    assert_eq!(release(&mut block, "b", now(), 30).len(), 1);
    assert_eq!(lists(&block), ("cooling cooling - -".into(), vec![2, 3]));
    assert_eq!(
        serde_json::to_value(&block.attributes).unwrap(),
        json!([{"releasedAt": "2026-10-31T23:00:00Z"}]),
        "what was released at one time shares an attribute"
    );
    assert_eq!(block.sequence_number_for_allocation.len(), 2);
    for (seconds, free_then) in [(29, 2), (30, 4)] {
        assert_eq!(free(&block, now() + Duration::from_secs(seconds), 30, &[]), free_then, "{seconds} s");
    }
    collect(&mut block, now() + Duration::from_secs(30), 30);
    assert_eq!(lists(&block), ("- - - -".into(), vec![2, 3, 0, 1]));
    assert!(block.sequence_number_for_allocation.is_empty() && block.attributes.is_empty());
}

#[test]
fn handles_of_a_defective_migration_end_at_the_carriage_return() {
    let mut block = small();
    allocate(&mut block, &holder("a\reth0"), &[]);
    assert_eq!(addresses_of(&block, "a").count(), 1);
    assert_eq!(release(&mut block, "a", now(), 0).len(), 1);
}

#[test]
fn what_windows_withholds_does_not_make_a_block_used() {
    let mut block = small();
    allocate(&mut block, &holder(WINDOWS_RESERVED), &[]);
    assert!(is_empty(&block));
}

#[test]
fn the_last_ordinal_is_the_last_address_in_both_families() {
    for (cidr, ordinal, expected) in [
        ("10.0.0.192/26", 63, "10.0.0.255"),
        ("255.255.255.192/26", 63, "255.255.255.255"),
        ("fd00::40/122", 63, "fd00::7f"),
    ] {
        assert_eq!(address(cidr.parse().unwrap(), ordinal), expected.parse::<IpAddr>().unwrap());
    }
}

#[test]
fn a_block_whose_lists_do_not_fit_is_refused_by_field() {
    let good = serde_json::to_value(small()).unwrap();
    for (field, value, says) in [
        ("allocations", json!([null]), "spec.allocations: 1 entries, a /30 has 4"),
        (
            "allocations",
            json!([0, null, null, null]),
            "spec.allocations: index 0, and there are 0 attributes",
        ),
        ("unallocated", json!([4]), "spec.unallocated: 4 is beyond"),
        ("unallocated", json!([1, 1]), "spec.unallocated: 1 is there twice"),
        ("cidr", json!("10.0.0.1/30"), "spec.cidr"),
        ("cidr", json!("10.0.0.0/8"), "spec.cidr"),
        ("cidr", json!("10.0.0.4/30"), "spec.cidr: 10.0.0.4/30 belongs to another name"),
    ] {
        let mut spec = good.clone();
        spec[field] = value;
        let error = Block::read(Object::new(Kind::IPAMBlock, "10-0-0-0-30", &spec)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let mut deleted = good;
    deleted["deleted"] = Value::Bool(true);
    assert!(Block::read(Object::new(Kind::IPAMBlock, "10-0-0-0-30", &deleted)).unwrap().is_none());
}
