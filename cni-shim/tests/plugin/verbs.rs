//! Every verb with every outcome.

use crate::support::{Agent, Call, NETNS, Scratch};
use std::os::unix::net::UnixListener;

use manx_cni::protocol::{Attachment, Pod};
use manx_cni::settings::Wishes;
use manx_cni::{Attached, CniError, Code, Command, Mac, Reply, spool};
use serde_json::{Value, json};

fn attached() -> Attached {
    Attached {
        host_device: "calic440f455693".to_owned(),
        host_mac: Mac([0xee; 6]),
        pod_device: "eth0".to_owned(),
        pod_mac: Mac([0x02, 0, 0, 0, 0, 0x0a]),
        mtu: 1480,
        addresses: vec!["192.168.171.65".parse().unwrap()],
    }
}

fn with_previous(call: Call) -> Call {
    let interface = json!({ "name": "eth0", "mac": "02:00:00:00:00:0a", "sandbox": NETNS });
    let ip = json!({ "address": "10.0.0.1/32", "interface": 0 });
    call.conf("prevResult", json!({ "cniVersion": "1.1.0", "interfaces": [interface], "ips": [ip] }))
}

#[test]
fn an_add_prints_the_agents_result_in_the_version_of_the_configuration() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let scratch = Scratch::new();
        let agent = Agent::replies(&scratch, Reply::Attached(attached()));
        let outcome = Call::new("ADD", &scratch).conf("cniVersion", json!(version)).run();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let result = outcome.json();
        assert_eq!(result["cniVersion"], json!(version));
        assert_eq!(result["interfaces"][1]["sandbox"], json!(NETNS));
        assert_eq!(result["ips"][0]["address"], json!("192.168.171.65/32"));
        assert!(matches!(agent.heard().0.command, Command::Add(_)));
    }
}

#[test]
fn the_agent_gets_the_containers_own_namespace_and_everything_about_the_call() {
    let scratch = Scratch::new();
    let agent = Agent::replies(&scratch, Reply::Attached(attached()));
    Call::new("ADD", &scratch).conf("mtu", json!(1400)).run();
    let (request, netns) = agent.heard();
    let path = rustix::fs::stat(NETNS).unwrap();
    let arrived = rustix::fs::fstat(netns.unwrap()).unwrap();
    assert_eq!((arrived.st_dev, arrived.st_ino), (path.st_dev, path.st_ino));
    assert_eq!(request.network, "test-network");
    assert_eq!(request.settings.mtu, Some(1400));
    let container = request.command.container().unwrap();
    assert_eq!((container.container_id.as_str(), container.pod_device.as_str()), ("4f2a", "eth0"));
    let pod = Pod {
        namespace: "default".to_owned(),
        name: "nginx".to_owned(),
        infra_container_id: None,
        uid: None,
    };
    assert_eq!(container.pod, Some(pod));
}

#[test]
fn check_del_gc_and_status_print_nothing_when_the_agent_did_them() {
    for verb in ["CHECK", "DEL", "GC", "STATUS"] {
        let scratch = Scratch::new();
        let agent = Agent::replies(&scratch, Reply::Done);
        let call = Call::new(verb, &scratch).conf("cni.dev/valid-attachments", json!([]));
        let outcome = with_previous(call).run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (0, ""), "{verb}");
        agent.heard();
        assert_eq!(spool::drain(&scratch.spool()).unwrap().len(), 0);
    }
}

#[test]
fn the_agents_error_is_printed_as_it_is() {
    for verb in ["ADD", "CHECK", "DEL", "GC", "STATUS"] {
        let scratch = Scratch::new();
        let error = CniError::new(Code(4711), "pools are full", "pool a: 64 of 64 addresses in use");
        let agent = Agent::replies(&scratch, Reply::Error(error));
        let call = Call::new(verb, &scratch).conf("cni.dev/valid-attachments", json!([]));
        let outcome = if verb == "CHECK" { with_previous(call) } else { call }.run();
        outcome.expect_error(4711, "64 of 64");
        agent.heard();
        assert_eq!(spool::drain(&scratch.spool()).unwrap().len(), 0, "{verb}");
    }
}

#[test]
fn an_add_adds_to_the_result_of_the_plugins_before_it_in_the_version_of_the_configuration() {
    let scratch = Scratch::new();
    let agent = Agent::replies(&scratch, Reply::Attached(attached()));
    let before = json!({ "cniVersion": "0.4.0", "interfaces": [{ "name": "dummy0" }], "dns": {},
        "ips": [{ "version": "4", "address": "10.9.0.1/24", "interface": 0 }] });
    let result = Call::new("ADD", &scratch).conf("prevResult", before).run().json();
    assert_eq!(result["cniVersion"], json!("1.1.0"));
    assert_eq!(result["interfaces"][0], json!({ "name": "dummy0" }));
    assert_eq!(result["interfaces"][2]["name"], json!("eth0"));
    let ips = json!([{ "address": "10.9.0.1/24", "interface": 0 }, { "address": "192.168.171.65/32", "interface": 2 }]);
    assert_eq!(result["ips"], ips);
    agent.heard();
}

#[test]
fn what_the_runtime_wishes_for_a_container_reaches_the_agent() {
    let scratch = Scratch::new();
    let agent = Agent::replies(&scratch, Reply::Attached(attached()));
    let mac = json!({ "mac": "02:00:00:00:00:02" });
    let call = Call::new("ADD", &scratch).conf("runtimeConfig", mac);
    call.env("CNI_ARGS", "IgnoreUnknown=1;IP=10.0.0.7/24,fd00::7;MAC=02:00:00:00:00:01").run();
    let Command::Add(container) = agent.heard().0.command else { panic!("no ADD") };
    let addresses = ["10.0.0.7", "fd00::7"].map(|text| text.parse().unwrap()).into();
    let mac = Some(Mac([2, 0, 0, 0, 0, 2]));
    assert_eq!(container.wishes, Wishes { addresses, mac, bandwidth: None });
    assert_eq!(container.args.into_keys().collect::<Vec<_>>(), ["IgnoreUnknown"]);
}

#[test]
fn a_check_tells_the_agent_what_add_had_reported() {
    let scratch = Scratch::new();
    let agent = Agent::replies(&scratch, Reply::Done);
    with_previous(Call::new("CHECK", &scratch)).run();
    let Command::Check { previous, .. } = agent.heard().0.command else { panic!("no CHECK") };
    assert_eq!(previous.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn a_pod_whose_add_was_refused_for_its_configuration_can_still_be_taken_away() {
    for (key, value) in [
        ("datastore_type", json!("etcdv3")),
        ("mtu", json!("big")),
        ("ipam", json!("host-local")),
        ("prevResult", json!("garbage")),
        ("runtimeConfig", json!({ "mac": "x" })),
    ] {
        let scratch = Scratch::new();
        let agent = Agent::replies(&scratch, Reply::Done);
        let call = Call::new("DEL", &scratch).conf(key, value).env("CNI_ARGS", "IP=x;MAC=y");
        let outcome = call.run();
        assert_eq!(outcome.code, 0, "{key}: {outcome:?}");
        agent.heard();
    }
}

#[test]
fn gc_hands_over_the_attachments_that_are_valid() {
    let scratch = Scratch::new();
    let agent = Agent::replies(&scratch, Reply::Done);
    let valid = json!([{ "containerID": "4f2a", "ifname": "eth0" }]);
    Call::new("GC", &scratch).without_container().conf("cni.dev/valid-attachments", valid).run();
    let valid = vec![Attachment { container_id: "4f2a".to_owned(), pod_device: "eth0".to_owned() }];
    assert_eq!(agent.heard().0.command, Command::Gc { valid });
}

#[test]
fn without_an_agent_every_verb_says_so_but_del() {
    for (verb, code) in [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
        let scratch = Scratch::new();
        let call = Call::new(verb, &scratch).conf("cni.dev/valid-attachments", json!([]));
        let outcome = if verb == "CHECK" { with_previous(call) } else { call }.run();
        let error = outcome.expect_error(code, "Is the manx agent running on this node?");
        assert!(error.contains(&scratch.socket().display().to_string()), "{error}");
    }
}

#[test]
fn a_del_is_spooled_whenever_no_agent_takes_it_to_the_end() {
    type Start = fn(&Scratch) -> Option<Agent>;
    let faults: [(&str, Start); 5] = [
        ("no socket", |_| None),
        ("nobody behind the socket", |scratch| {
            drop(UnixListener::bind(scratch.socket()).unwrap());
            None
        }),
        ("closed at once", |scratch| Some(Agent::says(scratch, Vec::new()))),
        ("closed in the middle", |scratch| Some(Agent::says(scratch, b"\0\0\0\x40{\"protocol\"".to_vec()))),
        ("silent", |scratch| Some(Agent::silent(scratch))),
    ];
    for (fault, start) in faults {
        let scratch = Scratch::new();
        let agent = start(&scratch);
        for _ in 0..2 {
            let outcome = Call::new("DEL", &scratch).conf("timeout_seconds", json!(1)).run();
            assert_eq!((outcome.code, outcome.stdout.as_str()), (0, ""), "{fault}");
        }
        let spooled = spool::drain(&scratch.spool()).unwrap();
        assert_eq!(spooled.len(), 1, "{fault}");
        let request = spooled[0].1.clone().unwrap();
        assert_eq!(request.command.container().unwrap().container_id, "4f2a");
        assert_eq!(request.network, "test-network");
        if let Some(agent) = agent {
            agent.heard();
        }
    }
}

#[test]
fn a_del_that_cannot_even_be_spooled_is_to_be_tried_again() {
    let scratch = Scratch::new();
    std::fs::write(scratch.spool(), "a file where the directory should be").unwrap();
    let error = Call::new("DEL", &scratch).run().expect_error(11, "could not be left in");
    assert!(error.contains(&scratch.spool().display().to_string()), "{error}");
}

#[test]
fn an_agent_that_falls_silent_or_hangs_up_is_away() {
    for (agent, said) in [
        (Agent::silent as fn(&Scratch) -> Agent, "no answer within 1 s"),
        (|scratch| Agent::says(scratch, Vec::new()), "closed before anything was said"),
        (|scratch| Agent::says(scratch, b"\0\0\0\x40{".to_vec()), "in the middle of a frame"),
    ] {
        let scratch = Scratch::new();
        let agent = agent(&scratch);
        Call::new("ADD", &scratch).conf("timeout_seconds", json!(1)).run().expect_error(11, said);
        agent.heard();
    }
}

#[test]
fn an_answer_that_is_none_is_an_error_of_its_own() {
    for verb in ["ADD", "DEL"] {
        for (octets, said) in [
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "longer than"),
            (b"\0\0\0\x04null".to_vec(), "cannot be understood"),
            (b"\0\0\0\x1c{\"protocol\":99,\"body\":\"done\"}".to_vec(), "cannot be understood"),
            (b"\0\0\0\x1d{\"protocol\":99,\"body\":\"done\"}".to_vec(), "protocol version 99"),
            (b"\0\0\0\x1e{\"protocol\":2,\"body\":\"dunno\"} ".to_vec(), "cannot be understood"),
        ] {
            let scratch = Scratch::new();
            let agent = Agent::says(&scratch, octets);
            Call::new(verb, &scratch).run().expect_error(100, said);
            agent.heard();
        }
    }
    let scratch = Scratch::new();
    let agent = Agent::replies(&scratch, Reply::Done);
    Call::new("ADD", &scratch).run().expect_error(100, "ADD was answered with Done");
    agent.heard();
}

#[test]
fn version_is_answered_without_an_agent_in_the_callers_version() {
    for (stdin, version) in [(r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), ("", "1.1.0"), ("no json", "1.1.0")] {
        let scratch = Scratch::new();
        let outcome = Call::new("VERSION", &scratch).without_container().stdin(stdin).run();
        assert_eq!(outcome.code, 0);
        let expected =
            json!({ "cniVersion": version, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] });
        assert_eq!(outcome.json(), expected);
    }
}

#[test]
fn run_by_hand_it_explains_itself_to_the_person_and_to_the_program() {
    let scratch = Scratch::new();
    let outcome = Call::new("", &scratch).without_container().stdin("").run();
    outcome.expect_error(4, "");
    assert_eq!(outcome.json()["msg"], json!("CNI_COMMAND is missing"));
    assert!(outcome.stderr.contains("is a CNI plugin"), "{}", outcome.stderr);
}

#[test]
fn a_call_that_cannot_be_right_is_refused_before_anybody_is_asked() {
    let scratch = Scratch::new();
    let plain =
        std::fs::File::create(scratch.path().join("plain")).map(|_| scratch.path().join("plain")).unwrap();
    let call = |verb| Call::new(verb, &scratch);
    for (call, code, said) in [
        (call("CREATE"), 4, "\"CREATE\" is none of ADD"),
        (call("ADD").stdin(""), 6, "stdin is empty"),
        (call("ADD").stdin("{"), 6, "no JSON"),
        (call("ADD").stdin("[]"), 6, "no object"),
        (call("ADD").stdin(" ".repeat((1 << 20) + 1)), 7, "1048576"),
        (call("ADD").conf("cniVersion", json!("0.2.0")), 1, "\"0.2.0\"; manx-cni speaks 0.3.1"),
        (call("CHECK").conf("cniVersion", json!("0.3.1")), 1, "CHECK"),
        (call("GC").conf("cniVersion", json!("1.0.0")), 1, "GC"),
        (call("STATUS").conf("cniVersion", json!("1.0.0")), 1, "STATUS"),
        (call("GC"), 7, "cni.dev/valid-attachments is missing"),
        (call("CHECK"), 7, "prevResult"),
        (call("CHECK").conf("prevResult", json!({ "interfaces": [] })), 7, "no interface \"eth0\""),
        (with_previous(call("ADD")), 7, "has \"eth0\" in the pod already"),
        (call("ADD").conf("prevResult", json!({ "ips": 7 })), 7, "prevResult.ips"),
        (call("ADD").conf("datastore_type", json!("etcdv3")), 2, "MANX_DATASTORE"),
        (call("STATUS").conf("datastore_type", json!("etcdv3")), 2, "MANX_DATASTORE"),
        (call("ADD").env("CNI_ARGS", "IP=10.0.0"), 4, "IP=10.0.0"),
        (call("ADD").env("CNI_ARGS", "MAC=x"), 4, "MAC=x"),
        (call("ADD").conf("mtu", json!("big")), 7, "mtu is \"big\""),
        (call("ADD").env("CNI_NETNS", "/nowhere/at/all"), 4, "cannot be opened"),
        (call("ADD").env("CNI_NETNS", plain.to_str().unwrap()), 4, "is no namespace"),
        (call("ADD").env("CNI_NETNS", "/proc/self/ns/net"), 4, "the node's own"),
        (call("DEL").env("CNI_CONTAINERID", "../x"), 4, "../x"),
    ] {
        call.run().expect_error(code, said);
    }
}

#[test]
fn a_configuration_that_fits_stdin_but_no_frame_is_too_long() {
    let scratch = Scratch::new();
    let _listener = UnixListener::bind(scratch.socket()).unwrap();
    let pools = json!({ "ipv4_pools": ["x".repeat((1 << 20) - 320)] });
    Call::new("ADD", &scratch).conf("ipam", pools).run().expect_error(7, "1048576");
}

#[test]
fn a_del_whose_namespace_is_gone_or_not_the_pods_is_sent_without_it() {
    for netns in ["", "/nowhere/at/all", "/etc/passwd", "/proc/self/ns/net"] {
        let scratch = Scratch::new();
        let agent = Agent::replies(&scratch, Reply::Done);
        let outcome = Call::new("DEL", &scratch).env("CNI_NETNS", netns).run();
        assert_eq!(outcome.code, 0, "{netns}: {outcome:?}");
        assert!(agent.heard().1.is_none(), "{netns}");
    }
}

#[test]
fn an_error_is_written_in_the_callers_version() {
    let scratch = Scratch::new();
    let outcome = Call::new("ADD", &scratch).conf("cniVersion", json!("0.4.0")).run();
    assert_eq!(outcome.json()["cniVersion"], Value::from("0.4.0"));
}
