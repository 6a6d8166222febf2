//! A start that is refused: one message, exit code 2, and the kernel as it was.

use manx_lab::{Program, Topology, eventually, manx_binary};

use crate::support::{NO_BGP, SOON, assert_routes_of, cluster};

#[test]
fn a_wrong_setting_ends_the_start_by_name_and_the_routes_stay() {
    let mut cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    cluster.lab().pod_add("node1", "cat", "default").unwrap();
    // The carrier of a new link comes up by itself, a little later: until then `ip` says linkdown.
    assert_routes_of(&cluster, "node1", "Never");
    cluster.agent("node1").unwrap().kill().unwrap();
    let before = cluster.lab().routes("node1").unwrap();
    assert_eq!(before.iter().filter(|route| route.contains("proto 77")).count(), 2, "{before:?}");
    type Environment = &'static [(&'static str, &'static str)];
    let cases: [(Environment, &[&str]); 9] = [
        (
            &[("CALICO_IPV4POOL_IPIP", "Sometimes")],
            &["CALICO_IPV4POOL_IPIP=Sometimes", "Always, CrossSubnet, Never"],
        ),
        (
            &[("CALICO_IPV4POOL_CIDR", "10.0.0.0/27")],
            &["CALICO_IPV4POOL_CIDR=10.0.0.0/27", "smaller than", "26"],
        ),
        (
            &[("CALICO_IPV4POOL_CIDR", "10.0.0.0/25"), ("CALICO_IPV4POOL_BLOCK_SIZE", "24")],
            &["CALICO_IPV4POOL_CIDR=10.0.0.0/25", "24"],
        ),
        (&[("CALICO_IPV4POOL_BLOCK_SIZE", "33")], &["CALICO_IPV4POOL_BLOCK_SIZE=33", "20 to 32"]),
        (&[("IP", "nowhere")], &["IP=nowhere", "autodetect", "10.0.0.5/24"]),
        (&[("AS", "4294967296")], &["AS=4294967296", "1 to 4294967295"]),
        (&[("CALICO_NETWORKING_BACKEND", "frr")], &["CALICO_NETWORKING_BACKEND=frr", "bird, none"]),
        (&[("MANX_DATASTORE", "etcd")], &["MANX_DATASTORE=etcd", "memory", "file:DIR"]),
        (&[("MANX_DATASTROE", "memory")], &["MANX_DATASTROE", "no such variable", "MANX_DATASTORE"]),
    ];
    for (env, words) in cases {
        let program = cluster.agent_program("node1", env).unwrap();
        let output = cluster.lab().output("node1", &program).unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{env:?}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{env:?}: {message}");
        assert_eq!(message.lines().count(), 2, "one message with one problem: {message}");
        assert_eq!(cluster.lab().routes("node1").unwrap(), before, "{env:?}");
    }
    let flag = cluster.agent_program("node1", &[]).unwrap().args(["--ipip", "Sometimes"]);
    let output = cluster.lab().output("node1", &flag).unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && message.contains("--ipip"), "{message}");
}

#[test]
fn variables_of_calico_without_effect_yet_and_misspelt_ones_of_felix_are_said_and_stop_nothing() {
    let env =
        [NO_BGP, ("FELIX_VXLANMTU", "1400"), ("FELIX_IPINIPMUT", "1400"), ("CALICO_IPV4POOL_IPIP", "oFf")];
    let mut cluster = cluster(Topology::one_subnet(1), &env);
    let status = cluster.status("node1").unwrap();
    let notices = status["notices"].to_string();
    assert!(notices.contains("FELIX_VXLANMTU is not supported yet"), "{notices}");
    assert!(notices.contains("FELIX_IPINIPMUT"), "{notices}");
    assert_eq!(status["pools"][0]["ipipMode"], "Never");
    let log = cluster.agent("node1").unwrap();
    eventually(SOON, "the notices in the log", || {
        anyhow::ensure!(log.log().contains("FELIX_VXLANMTU"), "{}", log.log());
        Ok(())
    })
    .unwrap();
}

#[test]
fn manx_status_ends_with_0_while_the_agent_serves_and_says_what_to_look_at_when_it_does_not() {
    let mut cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    cluster.lab().pod_add("node1", "cat", "default").unwrap();
    let dir = cluster.lab().node("node1").unwrap().dir();
    let program = Program::new(manx_binary().unwrap()).arg("status").arg("--run-dir").arg(&dir);
    let output = cluster.lab().output("node1", &program).unwrap();
    let page = String::from_utf8_lossy(&output.stdout);
    let address = cluster.lab().pod("cat").unwrap().address.to_string();
    assert_eq!(output.status.code(), Some(0), "{page}");
    assert!(
        ["node1", "172.171.5.95/24", "default-ipv4-ippool", &address].iter().all(|word| page.contains(word)),
        "{page}"
    );
    cluster.agent("node1").unwrap().kill().unwrap();
    let output = cluster.lab().output("node1", &program).unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("status.sock") && message.contains("manx agent"), "{message}");
}
