use serde_json::json;

use super::*;
use crate::Kind;

fn read(spec: Value) -> Result<BgpFilter, String> {
    BgpFilter::from_object(&Object::new(Kind::BGPFilter, "f", &spec)).map_err(|invalid| invalid.to_string())
}

#[test]
fn every_field_of_calicos_is_read() {
    let filter = read(json!({
        "exportV4": [
            {"cidr": "10.1.0.0/16", "matchOperator": "In", "prefixLength": {"min": 24, "max": 28},
             "source": "RemotePeers", "interface": "eth*", "peerType": "eBGP", "communities": {"values": ["65000:1"]},
             "asPathPrefix": [65001, "1.10"], "priority": 512, "action": "Accept",
             "operations": [{"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [65000]}},
                            {"setPriority": {"value": 100}}]},
            {"action": "Reject"},
        ],
        "importV6": [{"cidr": "fd00::/8", "matchOperator": "NotIn", "action": "Reject"}],
    }))
    .unwrap();
    let asn = |number| Asn::new(number).unwrap();
    let operations = vec![
        FilterOperation::AddCommunity(Community::Large(1, 2, 3)),
        FilterOperation::PrependAsPath(vec![asn(65000)]),
        FilterOperation::SetPriority(100),
    ];
    let first = FilterRule {
        prefix: Some(PrefixCondition {
            cidr: "10.1.0.0/16".parse().unwrap(),
            operator: MatchOperator::In,
            min_length: Some(24),
            max_length: Some(28),
        }),
        learned: true,
        interface: Some("eth*".into()),
        peer_type: Some(PeerType::External),
        community: Some(Community::Standard(65000, 1)),
        as_path_prefix: vec![asn(65001), asn(65546)],
        priority: Some(512),
        action: FilterAction::Accept(operations),
    };
    assert_eq!(filter.export_v4[0], first);
    assert_eq!((filter.export_v4[1].prefix, &filter.export_v4[1].action), (None, &FilterAction::Reject));
    assert_eq!((filter.import_v4.len(), filter.export_v6.len(), filter.import_v6.len()), (0, 0, 1));
}

#[test]
fn a_length_without_a_cidr_is_one_of_any_prefix() {
    let filter = read(json!({"importV4": [{"prefixLength": {"max": 24}, "action": "Accept"}]})).unwrap();
    let prefix = filter.import_v4[0].prefix.unwrap();
    assert_eq!((prefix.cidr, prefix.max_length), ("0.0.0.0/0".parse().unwrap(), Some(24)));
}

#[test]
fn a_rule_that_cannot_be_refuses_the_filter_and_is_named() {
    for (rule, field, words) in [
        (json!({}), "action", "Accept or Reject"),
        (json!({"action": "accept"}), "action", "`Accept`"),
        (json!({"cidr": "10.0.0.0/8", "action": "Accept"}), "matchOperator", "required with cidr"),
        (json!({"matchOperator": "In", "action": "Accept"}), "cidr", "required with matchOperator"),
        (json!({"cidr": "10.0.0.0/8", "matchOperator": "in", "action": "Accept"}), "matchOperator", "`In`"),
        (json!({"cidr": "fd00::/8", "matchOperator": "In", "action": "Accept"}), "cidr", "none of IPv4"),
        (json!({"cidr": "ten", "matchOperator": "In", "action": "Accept"}), "cidr", "invalid IP"),
        (json!({"prefixLength": {"max": 33}, "action": "Accept"}), "prefixLength.max", "more than 32"),
        (
            json!({"prefixLength": {"min": 9, "max": 8}, "action": "Accept"}),
            "prefixLength.min",
            "more than max",
        ),
        (json!({"source": "Local", "action": "Accept"}), "source", "RemotePeers"),
        (json!({"interface": "0123456789abcdef", "action": "Accept"}), "interface", "longer"),
        (json!({"peerType": "ebgp", "action": "Accept"}), "peerType", "eBGP"),
        (json!({"communities": {"values": []}, "action": "Accept"}), "communities.values", "exactly one"),
        (
            json!({"communities": {"values": ["1:2", "1:3"]}, "action": "Accept"}),
            "communities.values",
            "exactly one",
        ),
        (
            json!({"communities": {"values": ["x"]}, "action": "Accept"}),
            "communities.values[0]",
            "no community",
        ),
        (json!({"asPathPrefix": [0], "action": "Accept"}), "asPathPrefix[0]", "no AS number"),
        (json!({"priority": 2_147_483_648_u32, "action": "Accept"}), "priority", "more than"),
        (
            json!({"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}),
            "operations",
            "Accept only",
        ),
        (json!({"action": "Accept", "operations": [{}]}), "operations[0]", "exactly one of"),
        (
            json!({"action": "Accept", "operations": [{"prependASPath": {"prefix": []}}]}),
            "operations[0]",
            "empty",
        ),
        (json!({"action": "Accept", "operations": [{"setMed": 1}]}), "operations[0]", "setMed"),
        (
            json!({"action": "Accept", "operations": vec![json!({"setPriority": {"value": 1}}); 11]}),
            "operations",
            "10",
        ),
        (json!({"action": "Accept", "weather": "fine"}), "weather", "not known"),
    ] {
        let good = json!({"action": "Accept"});
        let error = read(json!({"importV4": [good, rule]})).unwrap_err();
        assert!(error.starts_with(&format!("BGPFilter f: spec.importV4[1].{field}")), "{rule}: {error}");
        assert!(error.contains(words), "{rule}: {error}");
    }
    assert!(read(json!({"importV5": []})).unwrap_err().contains("spec.importV5"));
}
