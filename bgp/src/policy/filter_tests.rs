use super::*;
use crate::wire::{AsPath, Community, LargeCommunity, Segment, SegmentKind};

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn route<'a>(prefix: &'a IpNet, attributes: &'a Attributes, interfaces: &'a Interfaces) -> Route<'a> {
    let learned = Some([10, 0, 0, 1].into());
    Route { prefix, attributes, learned, peer_type: PeerType::External, interfaces }
}

fn filter(rules: Vec<Rule>) -> Arc<Filter> {
    Arc::new(Filter { name: "filter".into(), ipv4: rules, ipv6: Vec::new() })
}

fn accept() -> Action {
    Action::Accept(Vec::new())
}

#[test]
fn prefixes_are_compared_as_calicos_operators_say() {
    use MatchOperator::{Equal, In, NotEqual, NotIn};
    let cases = [
        (Equal, None, None, "10.1.0.0/16", true),
        (Equal, None, None, "10.1.0.0/17", false),
        (Equal, Some(17), None, "10.1.0.0/16", false),
        (NotEqual, None, None, "10.1.0.0/16", false),
        (NotEqual, None, None, "10.1.1.0/24", true),
        (In, None, None, "10.1.0.0/16", true),
        (In, None, None, "10.1.1.0/24", true),
        (In, None, None, "10.0.0.0/8", false),
        (In, None, None, "10.2.0.0/24", false),
        (In, Some(26), Some(28), "10.1.0.0/26", true),
        (In, Some(26), Some(28), "10.1.0.0/28", true),
        (In, Some(26), Some(28), "10.1.0.0/25", false),
        (In, Some(26), Some(28), "10.1.0.0/29", false),
        (In, Some(8), None, "10.0.0.0/8", false),
        (NotIn, None, None, "10.1.1.0/24", false),
        (NotIn, None, None, "10.2.0.0/24", true),
        (NotIn, Some(26), None, "10.1.1.0/24", true),
        (In, None, None, "fd00::/64", false),
        (NotIn, None, None, "fd00::/64", true),
    ];
    for (operator, min_length, max_length, prefix, holds) in cases {
        // The host's bits of a CIDR mean nothing.
        let cidr = "10.1.2.3/16".parse().unwrap();
        let condition = PrefixMatch { operator, cidr, min_length, max_length };
        assert_eq!(condition.matches(&prefix.parse().unwrap()), holds, "{condition:?} {prefix}");
    }
}

#[test]
fn every_condition_must_hold() {
    let prefix = "10.1.0.0/24".parse().unwrap();
    let segment = |kind, asns: &[u32]| Segment { kind, asns: asns.iter().copied().map(asn).collect() };
    let attributes = Attributes {
        as_path: AsPath(vec![
            segment(SegmentKind::Sequence, &[65001]),
            segment(SegmentKind::Sequence, &[65002]),
            segment(SegmentKind::Set, &[65003]),
        ]),
        communities: vec![Community(64512 << 16 | 1)],
        large_communities: vec![LargeCommunity([64512, 1, 2])],
        local_pref: Some(i32::MAX as u32 - 512),
        ..Attributes::default()
    };
    let interfaces = Interfaces([("10.0.0.0/24".parse().unwrap(), "eth0".to_owned())].into());
    let all = Conditions {
        prefix: Some(PrefixMatch::new(MatchOperator::In, "10.0.0.0/8".parse().unwrap())),
        learned: true,
        interface: Some(Glob("eth*".into())),
        peer_type: Some(PeerType::External),
        community: Some("64512:1".parse().unwrap()),
        as_path_prefix: vec![asn(65001), asn(65002)],
        priority: Some(512),
    };
    let route = route(&prefix, &attributes, &interfaces);
    assert!(all.hold(route) && Conditions::default().hold(route));
    let large = Conditions { community: Some("64512:1:2".parse().unwrap()), ..all.clone() };
    assert!(large.hold(route));
    let broken: [fn(&mut Conditions); 8] = [
        |it| it.prefix = Some(PrefixMatch::new(MatchOperator::In, "11.0.0.0/8".parse().unwrap())),
        |it| it.interface = Some(Glob("tunl0".into())),
        |it| it.peer_type = Some(PeerType::Internal),
        |it| it.community = Some("64512:2".parse().unwrap()),
        |it| it.community = Some("64512:1:3".parse().unwrap()),
        |it| it.as_path_prefix = vec![asn(65002)],
        |it| it.as_path_prefix = vec![asn(65001), asn(65002), asn(65003)],
        |it| it.priority = Some(1024),
    ];
    for (index, break_it) in broken.into_iter().enumerate() {
        let mut conditions = all.clone();
        break_it(&mut conditions);
        assert!(!conditions.hold(route), "case {index}");
    }
    let own = Route { learned: None, ..route };
    assert!(!Conditions { learned: true, ..Conditions::default() }.hold(own));
    assert!(!Conditions { interface: Some(Glob("*".into())), ..Conditions::default() }.hold(own));
}

#[test]
fn the_first_rule_that_matches_decides_across_filters_and_families_are_apart() {
    let within = |cidr: &str| Conditions {
        prefix: Some(PrefixMatch::new(MatchOperator::In, cidr.parse().unwrap())),
        ..Conditions::default()
    };
    let rule = |cidr: &str, action| Rule { conditions: within(cidr), action };
    let filters = [
        filter(vec![rule("10.1.0.0/16", Action::Reject), rule("10.1.0.0/16", accept())]),
        filter(vec![rule("10.0.0.0/8", accept()), rule("10.0.0.0/8", Action::Reject)]),
    ];
    let (attributes, interfaces) = (Attributes::default(), Interfaces::default());
    let verdict = |prefix: &str| judge(&filters, route(&prefix.parse().unwrap(), &attributes, &interfaces));
    assert_eq!(verdict("10.1.1.0/24"), Verdict::Reject);
    assert_eq!(verdict("10.2.0.0/24"), Verdict::Accept(&[]));
    assert_eq!(verdict("11.0.0.0/24"), Verdict::Undecided);
    let any = Rule { conditions: Conditions::default(), action: Action::Reject };
    let filters = [filter(vec![any])];
    let verdict = |prefix: &str| judge(&filters, route(&prefix.parse().unwrap(), &attributes, &interfaces));
    assert_eq!((verdict("10.0.0.0/8"), verdict("fd00::/64")), (Verdict::Reject, Verdict::Undecided));
}

#[test]
fn operations_add_prepend_and_prefer() {
    let mut attributes = Attributes::default();
    let operations = [
        Operation::AddCommunity("64512:1".parse().unwrap()),
        Operation::AddCommunity("64512:1".parse().unwrap()),
        Operation::AddCommunity("1:2:3".parse().unwrap()),
        Operation::PrependAsPath(vec![asn(3)]),
        Operation::PrependAsPath(vec![asn(1), asn(2)]),
        Operation::SetPriority(512),
    ];
    operations.iter().for_each(|operation| operation.apply(&mut attributes));
    assert_eq!(attributes.communities, [Community(64512 << 16 | 1)]);
    assert_eq!(attributes.large_communities, [LargeCommunity([1, 2, 3])]);
    assert_eq!(attributes.as_path.to_string(), "1 2 3");
    assert_eq!(attributes.local_pref, Some(2_147_483_135));
    assert_eq!(priority(&attributes), 512);
    Operation::SetPriority(u32::MAX).apply(&mut attributes);
    assert_eq!(attributes.local_pref, Some(0));
}
