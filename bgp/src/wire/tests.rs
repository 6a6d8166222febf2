//! Golden messages both ways, the table of RFC 7606, and properties of the whole wire.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use manx_model::Asn;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    Aggregator, Announcement, AsPath, Attributes, Capability, Community, Context, ErrorCode,
    ExtendedCommunity, Family, GracefulFamily, GracefulRestart, LargeCommunity, Message, Notification, Open,
    Origin, Segment, SegmentKind, Severity, UnknownAttribute, Update, WireError, encode_announcements,
    encode_withdrawals, next_frame,
};

const IBGP: Context = Context { four_octet: true, external: false };
const EBGP: Context = Context { four_octet: true, external: true };
const OLD: Context = Context { four_octet: false, external: true };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap()).collect()
}

/// A message of this type with the header that belongs to it.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(((body.len() + 19) as u16).to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

fn decode(bytes: &[u8], context: Context) -> Result<Message, WireError> {
    let mut buffer = BytesMut::from(bytes);
    let frame = next_frame(&mut buffer)?.expect("a whole message");
    assert!(buffer.is_empty(), "nothing is left over");
    Message::decode(&frame, context)
}

fn encode(message: &Message, context: Context) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(context, &mut out).unwrap();
    out.to_vec()
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn sequence(numbers: &[u32]) -> AsPath {
    let asns = numbers.iter().map(|number| asn(*number)).collect();
    AsPath(vec![Segment { kind: SegmentKind::Sequence, asns }])
}

fn announce(attributes: Attributes, prefixes: &[&str]) -> Update {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    let next_hop = "10.0.0.1".parse().unwrap();
    Update { attributes, announced: vec![Announcement { next_hop, prefixes }], ..Update::default() }
}

#[test]
fn golden_messages_decode_and_encode_to_the_same_bytes() {
    let open = Open {
        my_as: 64512,
        hold_time: 90,
        identifier: [10, 0, 0, 1].into(),
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::RouteRefresh,
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: false,
                time: Duration::from_secs(120),
                families: vec![GracefulFamily { family: Family::IPV4_UNICAST, forwarding: true }],
            }),
            Capability::FourOctetAs(64512),
            Capability::Unknown { code: 73, value: Bytes::from_static(b"n") },
        ],
    };
    let plain = Attributes { as_path: sequence(&[65001]), med: Some(7), ..Attributes::default() };
    let cases = [
        (
            1,
            "04 fc00 005a 0a000001 1b 02 19 0104 00010001 0200 4006 8078 000101 80 4104 0000fc00 4901 6e",
            Message::Open(open),
        ),
        (
            2,
            "0000 001b 400101 00 400206 0201 0000fde9 400304 0a000001 800404 00000007 1a c0a80140 10 0a01 00",
            Message::Update(announce(plain, &["192.168.1.64/26", "10.1.0.0/16", "0.0.0.0/0"])),
        ),
        (
            2,
            "0005 18 c0a801 00 0000",
            Message::Update(Update {
                withdrawn: vec!["192.168.1.0/24".parse().unwrap(), "0.0.0.0/0".parse().unwrap()],
                ..Update::default()
            }),
        ),
        (2, "0000 0000", Message::Update(Update::end_of_rib(Family::IPV4_UNICAST))),
        (2, "0000 0006 800f03 000201", Message::Update(Update::end_of_rib(Family::IPV6_UNICAST))),
        (
            3,
            "06 02 03 627965",
            Message::Notification(Notification {
                error: ErrorCode::ADMINISTRATIVE_SHUTDOWN,
                data: Bytes::from_static(b"\x03bye"),
            }),
        ),
        (4, "", Message::Keepalive),
        (5, "0001 00 01", Message::RouteRefresh { family: Family::IPV4_UNICAST, subtype: 0 }),
    ];
    for (kind, body, message) in cases {
        let bytes = framed(kind, &hex(body));
        assert_eq!(decode(&bytes, EBGP).as_ref(), Ok(&message));
        assert_eq!(encode(&message, EBGP), bytes, "{message:?}");
    }
}

#[test]
fn a_shutdown_is_told_with_its_text() {
    let bytes = framed(3, b"\x06\x02\x03bye");
    let Ok(Message::Notification(notification)) = decode(&bytes, EBGP) else { panic!() };
    assert_eq!(notification.to_string(), "Cease/Administrative Shutdown: bye");
}

#[test]
fn headers_that_are_wrong_get_the_notification_of_rfc_4271_6_1() {
    let mut marker = framed(4, b"");
    marker[3] = 0;
    let mut long = framed(2, &[0; 4]);
    long[16..18].copy_from_slice(&4097u16.to_be_bytes());
    let cases = [
        (marker, ErrorCode::NOT_SYNCHRONIZED, &b""[..]),
        (b"GET / HTTP/1.1\r\n".to_vec(), ErrorCode::NOT_SYNCHRONIZED, b""),
        (framed(4, b"x"), ErrorCode::BAD_LENGTH, &[0, 20]),
        (framed(1, b"x"), ErrorCode::BAD_LENGTH, &[0, 20]),
        (framed(5, &[0; 5]), ErrorCode::BAD_LENGTH, &[0, 24]),
        (long, ErrorCode::BAD_LENGTH, &[0x10, 1]),
        (framed(9, b""), ErrorCode::BAD_TYPE, &[9]),
    ];
    for (bytes, error, data) in cases {
        let found = next_frame(&mut BytesMut::from(&bytes[..])).unwrap_err();
        assert_eq!((found.notification.error, &found.notification.data[..]), (error, data), "{found}");
    }
}

#[test]
fn opens_that_are_wrong_get_the_notification_of_rfc_4271_6_2() {
    let cases = [
        ("03 fc00 005a 0a000001 00", ErrorCode::UNSUPPORTED_VERSION),
        ("04 fc00 005a 0a000001 02 0100", ErrorCode::UNSUPPORTED_PARAMETER),
        ("04 fc00 005a 0a000001 05 0200", ErrorCode::OPEN_UNSPECIFIC),
        ("04 fc00 005a 0a000001 04 0202 0104", ErrorCode::OPEN_UNSPECIFIC),
        ("04 fc00 005a 0a000001 00 ff", ErrorCode::OPEN_UNSPECIFIC),
        ("04 fc00 005a 0a000001 03 0200 02", ErrorCode::OPEN_UNSPECIFIC),
    ];
    for (body, error) in cases {
        assert_eq!(decode(&framed(1, &hex(body)), EBGP).unwrap_err().notification.error, error, "{body}");
    }
}

#[test]
fn extended_optional_parameters_are_understood() {
    let Ok(Message::Open(open)) =
        decode(&framed(1, &hex("04 fc00 005a 0a000001 ff ff 0005 02 0002 0200")), EBGP)
    else {
        panic!()
    };
    assert_eq!(open.capabilities, [Capability::RouteRefresh]);
}

/// ORIGIN, AS_PATH and NEXT_HOP that are right, to be followed by the attribute in question.
const GOOD: &str = "400101 00 400206 0201 0000fde9 400304 0a000001";

fn update_with(attributes: &str, context: Context) -> Result<Update, WireError> {
    let attributes = hex(attributes);
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(hex("18 0a0102"));
    match decode(&framed(2, &body), context)? {
        Message::Update(update) => Ok(update),
        other => panic!("{other:?}"),
    }
}

#[test]
fn faulty_attributes_have_the_consequences_of_rfc_7606() {
    use Severity::{AttributeDiscard, TreatAsWithdraw};
    let good = |rest: &str| format!("{GOOD} {rest}");
    let cases = [
        ("400101 03 400206 0201 0000fde9 400304 0a000001".into(), ErrorCode::INVALID_ORIGIN, TreatAsWithdraw),
        (
            "400102 0000 400206 0201 0000fde9 400304 0a000001".into(),
            ErrorCode::ATTRIBUTE_LENGTH,
            TreatAsWithdraw,
        ),
        (
            "c00101 00 400206 0201 0000fde9 400304 0a000001".into(),
            ErrorCode::ATTRIBUTE_FLAGS,
            TreatAsWithdraw,
        ),
        (
            "400101 00 400206 0202 0000fde9 400304 0a000001".into(),
            ErrorCode::MALFORMED_AS_PATH,
            TreatAsWithdraw,
        ),
        (
            "400101 00 400206 0501 0000fde9 400304 0a000001".into(),
            ErrorCode::MALFORMED_AS_PATH,
            TreatAsWithdraw,
        ),
        ("400101 00 400202 0200 400304 0a000001".into(), ErrorCode::MALFORMED_AS_PATH, TreatAsWithdraw),
        (
            "400101 00 400206 0201 00000000 400304 0a000001".into(),
            ErrorCode::MALFORMED_AS_PATH,
            TreatAsWithdraw,
        ),
        (
            "400101 00 400206 0201 0000fde9 400304 e0000001".into(),
            ErrorCode::INVALID_NEXT_HOP,
            TreatAsWithdraw,
        ),
        ("400101 00 400206 0201 0000fde9".into(), ErrorCode::MISSING_WELL_KNOWN, TreatAsWithdraw),
        ("400206 0201 0000fde9 400304 0a000001".into(), ErrorCode::MISSING_WELL_KNOWN, TreatAsWithdraw),
        (good("800403 000000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("400503 000000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("400601 00"), ErrorCode::ATTRIBUTE_LENGTH, AttributeDiscard),
        (good("c00706 fde9 0a000001"), ErrorCode::ATTRIBUTE_LENGTH, AttributeDiscard),
        (good("c00708 00000000 0a000001"), ErrorCode::OPTIONAL_ATTRIBUTE, AttributeDiscard),
        (good("c00803 000000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("c00800"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("800902 0000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("800a05 0000000000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("c0200b 0000000000000000000000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("c01007 00020000000000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("c01000"), ErrorCode::ATTRIBUTE_LENGTH, TreatAsWithdraw),
        (good("801008 0002000000000001"), ErrorCode::ATTRIBUTE_FLAGS, TreatAsWithdraw),
        (good("406300"), ErrorCode::UNRECOGNIZED_WELL_KNOWN, TreatAsWithdraw),
        (good("400101 00"), ErrorCode::MALFORMED_ATTRIBUTES, AttributeDiscard),
        (good("800e0a 000101 04 e0000001 00 00"), ErrorCode::INVALID_NEXT_HOP, TreatAsWithdraw),
        (good("c008ff 0000"), ErrorCode::MALFORMED_ATTRIBUTES, TreatAsWithdraw),
    ];
    for (attributes, error, severity) in cases {
        let update = update_with(&attributes, IBGP).unwrap();
        let found = update.errors.iter().map(|it| (it.notification.error, it.severity)).collect::<Vec<_>>();
        assert_eq!(found, [(error, severity)], "{attributes}");
        assert_eq!(update.withdrawn.is_empty(), severity == AttributeDiscard, "{attributes}");
        assert_eq!(update.announced.is_empty(), severity == TreatAsWithdraw, "{attributes}");
    }
}

#[test]
fn faults_that_hide_prefixes_reset_the_session() {
    let cases = [
        ("0005 18c0a8 0000", ErrorCode::MALFORMED_ATTRIBUTES),
        ("0000 0009 400101 00", ErrorCode::MALFORMED_ATTRIBUTES),
        ("0000 0000 21 0a00000000", ErrorCode::INVALID_NETWORK),
        ("0000 0000 18 0a00", ErrorCode::INVALID_NETWORK),
        ("0002 2100 0000", ErrorCode::INVALID_NETWORK),
        ("0000 0006 800e03 000101", ErrorCode::OPTIONAL_ATTRIBUTE),
        ("0000 0005 800f02 0001", ErrorCode::OPTIONAL_ATTRIBUTE),
        ("0000 000c 800f03 000101 800f03 000101", ErrorCode::MALFORMED_ATTRIBUTES),
    ];
    for (body, error) in cases {
        let found = decode(&framed(2, &hex(body)), EBGP).unwrap_err();
        assert_eq!((found.notification.error, found.severity), (error, Severity::SessionReset), "{body}");
    }
}

#[test]
fn attributes_of_the_inside_are_ignored_from_outside() {
    let update = update_with(&format!("{GOOD} 400503 000000 800902 0000 800a01 00"), EBGP).unwrap();
    assert!(update.errors.is_empty() && update.announced.len() == 1);
}

#[test]
fn communities_of_every_kind_are_kept_in_their_order_and_once_each() {
    let attributes = format!(
        "{GOOD} c0080c fc000002 fc000001 fc000002 c01010 0002000000000001 4002000000000002
         c02018 0000fc00 00000001 00000002 0000fc00 00000001 00000002"
    );
    let inside = update_with(&attributes, IBGP).unwrap().attributes;
    assert_eq!(inside.communities, [Community(0xfc00_0002), Community(0xfc00_0001)]);
    assert_eq!(inside.large_communities, [LargeCommunity([64512, 1, 2])]);
    let (far, near) = ([0, 2, 0, 0, 0, 0, 0, 1], [0x40, 2, 0, 0, 0, 0, 0, 2]);
    assert_eq!(inside.extended_communities, [far, near].map(ExtendedCommunity));
    let outside = update_with(&attributes, EBGP).unwrap().attributes;
    assert_eq!(outside.extended_communities, [ExtendedCommunity(far)], "the other one is not transitive");
}

#[test]
fn bits_beyond_the_length_are_ignored() {
    let Ok(Message::Update(update)) = decode(&framed(2, &hex("0005 1a c0a801ff 0000")), EBGP) else {
        panic!()
    };
    assert_eq!(update.withdrawn, ["192.168.1.192/26".parse().unwrap()]);
}

#[test]
fn multiprotocol_nlri_for_ipv4_is_taken_and_other_families_are_ignored() {
    let body = "0000 0031 400101 00 400206 0201 0000fde9
        800e0d 000101 04 0a000009 00 18 0a0203 800f07 000101 18 0a0909 c06301 2a";
    let mut bytes = framed(2, &hex(body));
    let length = (hex(body).len() - 4) as u16;
    bytes[21..23].copy_from_slice(&length.to_be_bytes());
    let Ok(Message::Update(update)) = decode(&bytes, EBGP) else { panic!() };
    assert_eq!(update.errors, []);
    assert_eq!(update.withdrawn, ["10.9.9.0/24".parse().unwrap()]);
    assert_eq!(update.announced[0].prefixes, ["10.2.3.0/24".parse().unwrap()]);
    assert_eq!(update.announced[0].next_hop.to_string(), "10.0.0.9");
    let kept = UnknownAttribute { code: 0x63, partial: false, value: Bytes::from_static(&[0x2a]) };
    assert_eq!(update.attributes.unknown, [kept]);
    let other = "0000 000c 800e09 000201 00 00 00 00000000";
    let mut bytes = framed(2, &hex(other));
    let length = (hex(other).len() - 4) as u16;
    bytes[21..23].copy_from_slice(&length.to_be_bytes());
    let Ok(Message::Update(update)) = decode(&bytes, EBGP) else { panic!() };
    assert!(update.announced.is_empty() && update.end_of_rib.is_none());
}

#[test]
fn a_two_octet_peer_hears_as_trans_and_gives_back_the_real_path() {
    let attributes = Attributes {
        as_path: sequence(&[65001, 70000, 65002]),
        aggregator: Some(Aggregator { asn: asn(70000), identifier: [1, 1, 1, 1].into() }),
        ..Attributes::default()
    };
    let update = Message::Update(announce(attributes, &["10.0.0.0/8"]));
    let bytes = encode(&update, OLD);
    assert!(bytes.windows(8).any(|part| part == hex("0203 fde9 5ba0 fdea")));
    assert_eq!(decode(&bytes, OLD), Ok(update));
}

#[test]
fn as4_path_replaces_the_end_of_a_path_that_has_grown() {
    let merged = sequence(&[65009, 23456, 65002]).merged(sequence(&[70000, 65002]));
    assert_eq!(merged, sequence(&[65009, 70000, 65002]));
    assert_eq!(sequence(&[65009]).merged(sequence(&[70000, 65002])), sequence(&[65009]), "RFC 6793 §4.2.3");
}

#[test]
fn a_path_longer_than_a_segment_is_split_and_prepended() {
    let path = sequence(&vec![65001; 255]).prepended(asn(64512));
    assert_eq!(path.length(), 256);
    let update =
        Message::Update(announce(Attributes { as_path: path, ..Attributes::default() }, &["10.0.0.0/8"]));
    assert_eq!(decode(&encode(&update, EBGP), EBGP), Ok(update));
}

#[test]
fn many_prefixes_fill_messages_and_no_message_is_too_long() {
    let prefixes: Vec<ipnet::IpNet> =
        (0..5000u32).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap()).collect();
    let mut out = BytesMut::new();
    let next_hop = "10.0.0.1".parse().unwrap();
    encode_announcements(&Attributes::default(), next_hop, &prefixes, EBGP, &mut out).unwrap();
    encode_withdrawals(&prefixes, &mut out);
    let (mut announced, mut withdrawn, mut messages) = (Vec::new(), Vec::new(), 0);
    while let Some(frame) = next_frame(&mut out).unwrap() {
        let Ok(Message::Update(update)) = Message::decode(&frame, EBGP) else { panic!() };
        announced.extend(update.announced.into_iter().flat_map(|each| each.prefixes));
        withdrawn.extend(update.withdrawn);
        messages += 1;
    }
    assert_eq!((announced, withdrawn, messages), (prefixes.clone(), prefixes, 10));
}

#[test]
fn attributes_without_room_for_a_prefix_are_refused() {
    let communities = vec![Community(1); 1020];
    let attributes = Attributes { communities, ..Attributes::default() };
    let mut out = BytesMut::new();
    let prefixes = ["10.0.0.0/8".parse().unwrap()];
    let next_hop = "10.0.0.1".parse().unwrap();
    assert!(
        encode_announcements(&attributes, next_hop, &prefixes, EBGP, &mut out).is_err() && out.is_empty()
    );
}

fn any_asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..65000u32, 1..=u32::MAX].prop_map(asn)
}

fn any_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![
        proptest::prelude::Just(SegmentKind::Set),
        proptest::prelude::Just(SegmentKind::Sequence)
    ];
    let segment = (kind, prop::collection::vec(any_asn(), 1..6));
    prop::collection::vec(segment.prop_map(|(kind, asns)| Segment { kind, asns }), 0..4).prop_map(AsPath)
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![
        proptest::prelude::Just(Origin::Igp),
        proptest::prelude::Just(Origin::Egp),
        proptest::prelude::Just(Origin::Incomplete)
    ];
    let aggregator = (any_asn(), any::<[u8; 4]>())
        .prop_map(|(asn, identifier)| Aggregator { asn, identifier: identifier.into() });
    let unknown = (100u8..200, any::<bool>(), prop::collection::vec(any::<u8>(), 0..300));
    let first = (origin, any_path(), any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>());
    let second = (
        prop::option::of(aggregator),
        prop::collection::btree_set(any::<u32>(), 0..80),
        prop::collection::btree_set(any::<[u32; 3]>(), 0..5),
        any::<Option<[u8; 4]>>(),
        prop::collection::vec(any::<[u8; 4]>(), 0..5),
        prop::option::of(unknown),
        prop::collection::vec(any::<[u8; 8]>(), 0..5),
    );
    (first, second).prop_map(|(first, second)| Attributes {
        origin: first.0,
        as_path: first.1,
        med: first.2,
        local_pref: first.3,
        atomic_aggregate: first.4,
        aggregator: second.0,
        communities: second.1.into_iter().map(Community).collect(),
        large_communities: second.2.into_iter().map(LargeCommunity).collect(),
        extended_communities: second.6.into_iter().map(ExtendedCommunity).collect(),
        originator_id: second.3.map(Into::into),
        cluster_list: second.4.into_iter().map(Into::into).collect(),
        unknown: second
            .5
            .into_iter()
            .map(|(code, partial, value)| UnknownAttribute { code, partial, value: value.into() })
            .collect(),
    })
}

fn any_prefix() -> impl Strategy<Value = ipnet::IpNet> {
    (any::<[u8; 4]>(), 0..=32u8)
        .prop_map(|(address, length)| ipnet::IpNet::new(address.into(), length).unwrap().trunc())
}

proptest! {
    #[test]
    fn an_update_comes_back_as_it_went(
        attributes in any_attributes(),
        announced in prop::collection::vec(any_prefix(), 1..50),
    ) {
        let next_hop = "10.0.0.1".parse().unwrap();
        let announced = vec![Announcement { next_hop, prefixes: announced }];
        let update = Message::Update(Update { attributes, announced, ..Update::default() });
        prop_assert_eq!(decode(&encode(&update, IBGP), IBGP), Ok(update));
    }

    #[test]
    fn withdrawals_come_back_as_they_went(withdrawn in prop::collection::vec(any_prefix(), 1..50)) {
        let update = Message::Update(Update { withdrawn, ..Update::default() });
        prop_assert_eq!(decode(&encode(&update, IBGP), IBGP), Ok(update));
    }

    #[test]
    fn an_open_comes_back_as_it_went(
        (my_as, hold_time) in any::<(u16, u16)>(),
        identifier in any::<[u8; 4]>(),
        unknown in prop::collection::vec((128u8..=255, prop::collection::vec(any::<u8>(), 0..200)), 0..6),
    ) {
        let capabilities =
            unknown.into_iter().map(|(code, value)| Capability::Unknown { code, value: value.into() }).collect();
        let open = Message::Open(Open { my_as, hold_time, identifier: identifier.into(), capabilities });
        prop_assert_eq!(decode(&encode(&open, IBGP), IBGP), Ok(open));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_every_error_has_a_code(
        kind in 0u8..7,
        body in prop::collection::vec(any::<u8>(), 0..200),
        (four_octet, external) in any::<(bool, bool)>(),
    ) {
        let mut buffer = BytesMut::from(&framed(kind, &body)[..]);
        let context = Context { four_octet, external };
        let error = match next_frame(&mut buffer) {
            Ok(frame) => Message::decode(&frame.expect("whole"), context).err(),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            prop_assert!((1..=3).contains(&error.notification.error.code));
            prop_assert_eq!(error.severity, Severity::SessionReset);
        }
    }

    #[test]
    fn arbitrary_attributes_never_panic_and_every_fault_has_a_code(
        attributes in prop::collection::vec((0u8..40, any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)), 0..8),
        four_octet in any::<bool>(),
    ) {
        let mut field = Vec::new();
        for (code, flags, value) in attributes {
            field.extend([flags & 0xef, code, value.len() as u8]);
            field.extend(value);
        }
        let mut body = vec![0, 0];
        body.extend((field.len() as u16).to_be_bytes());
        body.extend(field);
        body.extend(hex("18 0a0102"));
        match decode(&framed(2, &body), Context { four_octet, external: false }) {
            Ok(Message::Update(update)) => {
                prop_assert!(update.errors.iter().all(|error| error.notification.error.code == 3));
                prop_assert!(!update.withdrawn.is_empty() || !update.announced.is_empty());
            }
            Ok(other) => prop_assert!(false, "{other:?}"),
            Err(error) => prop_assert_eq!(error.notification.error.code, 3),
        }
    }
}
