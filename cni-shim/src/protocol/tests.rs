//! Frames both ways, and texts that are none.

use proptest::prelude::*;

use super::*;

#[test]
fn a_frame_says_its_version_before_its_body() {
    let newer = br#"{"protocol": 3, "body": {"what": "ever"}}"#;
    let error = decode::<Request>(newer).unwrap_err();
    assert!(matches!(error, ProtocolError::Version(3)));
    assert_eq!(CniError::from(&error).code, Code::PROTOCOL);
    assert!(error.to_string().contains("same release"), "{error}");
}

#[test]
fn what_is_no_frame_of_ours_is_an_error() {
    for text in [
        "",
        "{",
        "[]",
        "{}",
        "null",
        r#"{"protocol":"1"}"#,
        r#"{"protocol":2}"#,
        r#"{"protocol":2,"body":{}}"#,
    ] {
        assert!(matches!(decode::<Request>(text.as_bytes()), Err(ProtocolError::Malformed(_))), "{text}");
    }
}

#[test]
fn a_body_that_makes_too_long_a_frame_is_refused() {
    let error = encode(&"x".repeat(MAX_FRAME)).unwrap_err();
    assert!(matches!(error, ProtocolError::TooLong(_)));
}

#[test]
fn a_mac_is_six_pairs_of_hex_digits() {
    assert_eq!(Mac::try_from("EE:ee:ee:ee:ee:0a".to_owned()).unwrap().to_string(), "ee:ee:ee:ee:ee:0a");
    for wrong in [
        "",
        "ee:ee:ee:ee:ee",
        "ee:ee:ee:ee:ee:ee:ee",
        "+e:ee:ee:ee:ee:ee",
        "eee:e:ee:ee:ee:ee",
        "gg:ee:ee:ee:ee:ee",
    ] {
        assert!(Mac::try_from(wrong.to_owned()).is_err(), "{wrong}");
    }
}

fn container() -> impl Strategy<Value = Container> {
    let pod = (".*", ".*", proptest::option::of(".*"), proptest::option::of(".*"));
    let pod = pod.prop_map(|(namespace, name, infra_container_id, uid)| Pod {
        namespace,
        name,
        infra_container_id,
        uid,
    });
    let args = proptest::collection::btree_map(".*", ".*", 0..3);
    (".*", ".*", proptest::option::of(".*"), proptest::option::of(pod), args).prop_map(
        |(container_id, pod_device, netns, pod, args)| Container {
            container_id,
            pod_device,
            netns,
            pod,
            wishes: Wishes::default(),
            args,
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let attachment =
        (".*", ".*").prop_map(|(container_id, pod_device)| Attachment { container_id, pod_device });
    prop_oneof![
        container().prop_map(Command::Add),
        container().prop_map(|container| Command::Check { container, previous: Previous::default() }),
        container().prop_map(Command::Del),
        proptest::collection::vec(attachment, 0..4).prop_map(|valid| Command::Gc { valid }),
        Just(Command::Status),
    ]
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(network in ".*", command in command()) {
        let request = Request { network, command, settings: Settings { mtu: Some(1400), ..Settings::default() } };
        prop_assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
    }

    #[test]
    fn an_attachment_is_read_as_it_was_written(mac: [u8; 6], mtu: u32, addresses: Vec<IpAddr>, name in ".*") {
        let attached = Attached {
            host_device: name.clone(), host_mac: Mac(mac), pod_device: name, pod_mac: Mac(mac), mtu, addresses,
        };
        let reply = Reply::Attached(attached);
        prop_assert_eq!(decode::<Reply>(&encode(&reply).unwrap()).unwrap(), reply);
    }

    #[test]
    fn no_octets_make_the_decoder_panic(text: Vec<u8>) {
        let _ = decode::<Request>(&text);
        let _ = decode::<Reply>(&text);
    }
}
