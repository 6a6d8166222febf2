//! What a container runtime sees: ADD, DEL, CHECK, GC and STATUS of the real plugin, and the pod's own network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use manx_lab::{Fabric, Topology, eventually, netns};
use manx_netns::{Stored, host_device};
use serde_json::json;

use crate::support::{NO_BGP, SOON, assert_routes_of, cluster, cni, files_in};

#[test]
fn the_runtime_may_repeat_every_call() {
    let cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    let lab = cluster.lab();
    let pod = lab.pod_add("node1", "cat", "default").unwrap();

    let again = cni(lab, "ADD", "node1", "cat", |_| {}).ok().unwrap();
    assert_eq!(again, pod.result);
    assert_routes_of(&cluster, "node1", "Never");
    lab.pod_check("cat").unwrap();

    cni(lab, "DEL", "node1", "cat", |_| {}).ok().unwrap();
    let held = || Stored::read(&cluster.datastore()).unwrap().held().unwrap();
    assert!(held().is_empty(), "{:?}", held());
    cni(lab, "DEL", "node1", "cat", |_| {}).ok().unwrap();
    assert_eq!(lab.exec("cat", &["ip", "-br", "link"]).unwrap().lines().count(), 1, "lo alone is left");

    // A sandbox whose namespace is gone: the runtime passes none, or a path that is no more.
    for netns in [Some(""), None] {
        cni(lab, "ADD", "node1", "cat", |_| {}).ok().unwrap();
        netns::remove(&[lab.netns("cat")]).unwrap();
        let reply =
            cni(lab, "DEL", "node1", "cat", |call| call.netns = netns.map_or(call.netns.clone(), Into::into));
        reply.ok().unwrap();
        assert!(held().is_empty(), "{:?}", held());
        lab.pod_namespace("cat").unwrap();
    }
    Stored::read(&cluster.datastore()).unwrap().audit().unwrap();
}

#[test]
fn check_says_what_is_damaged_and_add_repairs_it() {
    let cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    let lab = cluster.lab();
    let pod = lab.pod_add("node1", "cat", "default").unwrap();
    let device = host_device("default", "cat");
    let damages: [(&str, &[&str], &str); 5] = [
        ("cat", &["ip", "route", "del", "default"], "default"),
        ("cat", &["ip", "address", "flush", "dev", "eth0"], &pod.address.to_string()),
        ("cat", &["ip", "neigh", "del", "169.254.1.1", "dev", "eth0"], "169.254.1.1"),
        ("node1", &["ip", "link", "set", &device, "address", "02:00:00:00:00:01"], "MAC"),
        ("node1", &["ip", "link", "del", &device], &device),
    ];
    for (place, command, words) in damages {
        lab.exec(place, command).unwrap();
        let error = format!("{:#}", lab.pod_check("cat").unwrap_err());
        assert!(error.contains("103") && error.contains(words), "after {command:?}: {error}");
        let again = cni(lab, "ADD", "node1", "cat", |_| {}).ok().unwrap();
        assert_eq!(again["ips"], pod.result["ips"], "after {command:?}");
        let reply = cni(lab, "CHECK", "node1", "cat", |call| call.config["prevResult"] = again);
        reply.ok().with_context(|| format!("after {command:?}")).unwrap();
    }
}

#[test]
fn gc_removes_what_the_runtime_no_longer_knows_and_status_says_whether_pods_can_come() {
    let mut cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    for pod in ["kept", "gone1", "gone2"] {
        cluster.lab().pod_add("node1", pod, "default").unwrap();
    }
    let lab = cluster.lab();
    let latest = |call: &mut manx_lab::Cni| call.config["cniVersion"] = json!("1.1.0");
    let kept = lab.pod("kept").unwrap();
    cni(lab, "GC", "node1", "kept", |call| {
        latest(call);
        call.config["cni.dev/valid-attachments"] =
            json!([{"containerID": kept.container_id, "ifname": "eth0"}]);
    })
    .ok()
    .unwrap();
    let stored = Stored::read(&cluster.datastore()).unwrap();
    stored.audit().unwrap();
    assert_eq!(stored.held().unwrap().into_keys().collect::<Vec<_>>(), [kept.address]);
    lab.pod_check("kept").unwrap();
    let devices = lab.exec("node1", &["ip", "-br", "link"]).unwrap();
    assert_eq!(devices.matches("cali").count(), 1, "{devices}");

    cni(lab, "STATUS", "node1", "kept", latest).ok().unwrap();
    cluster.agent("node1").unwrap().kill().unwrap();
    assert_eq!(cni(cluster.lab(), "STATUS", "node1", "kept", latest).error_code(), Some(50));
}

#[test]
fn while_the_agent_is_away_add_is_to_be_tried_again_and_a_del_is_carried_out_later() {
    let mut cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    cluster.lab().pod_add("node1", "cat", "default").unwrap();
    cluster.lab().pod_namespace("late").unwrap();
    cluster.agent("node1").unwrap().kill().unwrap();
    let lab = cluster.lab();
    assert_eq!(cni(lab, "ADD", "node1", "late", |_| {}).error_code(), Some(11));
    cni(lab, "DEL", "node1", "cat", |_| {}).ok().unwrap();
    let spool = lab.node("node1").unwrap().cni_spool();
    assert_eq!(files_in(&spool), 1);

    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    assert_eq!(files_in(&spool), 0);
    let held = Stored::read(&cluster.datastore()).unwrap().held().unwrap();
    assert!(held.is_empty(), "{held:?}");
    assert!(!cluster.lab().exec("node1", &["ip", "link"]).unwrap().contains("cali"));
    cni(cluster.lab(), "ADD", "node1", "late", |_| {}).ok().unwrap();
}

#[test]
fn what_a_pod_held_that_vanished_while_no_agent_ran_is_given_back_and_the_others_keep_theirs() {
    let mut cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    let kept = cluster.lab().pod_add("node1", "kept", "default").unwrap();
    cluster.lab().pod_add("node1", "gone", "default").unwrap();
    cluster.agent("node1").unwrap().kill().unwrap();
    // Its links go with its namespace, and with them its routes; the kernel takes its time for that.
    netns::remove(&[cluster.lab().netns("gone")]).unwrap();
    eventually(SOON, "the links to go", || {
        let links = cluster.lab().exec("node1", &["ip", "-br", "link"])?;
        ensure!(!links.contains(&host_device("default", "gone")), "{links}");
        Ok(())
    })
    .unwrap();
    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    let stored = Stored::read(&cluster.datastore()).unwrap();
    stored.audit().unwrap();
    assert_eq!(stored.held().unwrap().into_keys().collect::<Vec<_>>(), [kept.address]);
    cluster.lab().pod_check("kept").unwrap();
}

#[test]
fn a_pod_reaches_its_node_and_the_pods_beside_it_although_the_node_has_no_default_route() {
    let cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    let lab = cluster.lab();
    let (cat, mouse) =
        (lab.pod_add("node1", "cat", "default").unwrap(), lab.pod_add("node1", "mouse", "default").unwrap());
    assert!(!lab.routes("node1").unwrap().iter().any(|route| route.starts_with("default")));
    let routes = lab.routes("cat").unwrap();
    assert_eq!(routes, ["default via 169.254.1.1 dev eth0", "169.254.1.1 dev eth0 scope link"]);
    let neighbour = lab.exec("cat", &["ip", "neigh", "show", "169.254.1.1"]).unwrap();
    assert!(neighbour.contains("ee:ee:ee:ee:ee:ee") && neighbour.contains("PERMANENT"), "{neighbour}");
    lab.ping_once("cat", mouse.address).unwrap();
    lab.ping_once("cat", lab.node("node1").unwrap().address()).unwrap();
    lab.ping_once("node1", cat.address).unwrap();
}

#[test]
fn no_node_answers_arp_for_pods_its_own_or_of_others() {
    let mut topology =
        Topology::founding().keeping(&["node1", "node2"]).fabric(Fabric::Router).without_outside();
    topology.subnets.truncate(1);
    let cluster = cluster(topology, &[]);
    let lab = cluster.lab();
    let pods: Vec<Ipv4Addr> = [("node1", "cat"), ("node2", "mouse")]
        .map(|(node, pod)| lab.pod_add(node, pod, "default").unwrap().address)
        .into();
    cluster.wait_converged().unwrap();
    lab.ping_once("cat", pods[1]).unwrap();
    let capture = lab.capture("tor", "br5", "arp").unwrap();
    for address in &pods {
        // As a neighbour who takes the pod for one of the wire's own.
        lab.exec("tor", &["ip", "route", "add", &format!("{address}/32"), "dev", "br5"]).unwrap();
        lab.exec("tor", &["ping", "-n", "-c", "1", "-W", "1", &address.to_string()]).unwrap_err();
    }
    let lines = capture.lines();
    capture.stop().unwrap();
    let about = |kind: &str| {
        lines.iter().filter(|line| pods.iter().any(|pod| line.contains(&format!("{kind}{pod}")))).count()
    };
    assert!(about("who-has ") >= 2, "{lines:#?}");
    assert_eq!(about("Reply "), 0, "{lines:#?}");
}

#[test]
fn pods_of_one_name_in_two_namespaces_and_a_sandbox_that_is_replaced_are_kept_apart() {
    let cluster = cluster(Topology::one_subnet(1), &[NO_BGP]);
    let lab = cluster.lab();
    let first = lab.pod_add("node1", "cat", "default").unwrap();
    // The kubelet makes a new sandbox for the same pod, and deletes the old one afterwards.
    lab.pod_namespace("second").unwrap();
    let replace = |call: &mut manx_lab::Cni| {
        call.container_id = "second".to_owned();
        call.netns = netns::path(&lab.netns("second"));
    };
    let second = cni(lab, "ADD", "node1", "cat", replace).ok().unwrap();
    assert_ne!(second["ips"], first.result["ips"]);
    cni(lab, "DEL", "node1", "cat", |call| call.config["prevResult"] = first.result.clone()).ok().unwrap();
    let routes: BTreeSet<String> = lab.routes("node1").unwrap().into_iter().collect();
    let address = second["ips"][0]["address"].as_str().and_then(|text| text.strip_suffix("/32")).unwrap();
    let device = host_device("default", "cat");
    assert!(routes.contains(&format!("{address} dev {device} proto 77 scope link")), "{routes:#?}");
    assert!(!routes.iter().any(|route| route.starts_with(&format!("{} ", first.address))), "{routes:#?}");
    eventually(SOON, "the old address to be free", || {
        let held = Stored::read(&cluster.datastore())?.held()?;
        ensure!(held.len() == 1, "{held:?}");
        Ok(())
    })
    .unwrap();
    cni(lab, "CHECK", "node1", "cat", |call| {
        replace(call);
        call.config["prevResult"] = second.clone();
    })
    .ok()
    .unwrap();
    assert_eq!(second["interfaces"].as_array().map(Vec::len), Some(2), "{}", second);
}
