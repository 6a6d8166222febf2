//! What others do to the kernel's routes: ours come back by the kernel's event, theirs are never touched.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use manx_lab::{Topology, eventually, slowness};
use manx_netns::host_device;

use crate::support::{SOON, assert_problem, assert_routes_of, cluster};

/// Far below any interval at which somebody would look.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_route_of_ours_that_is_deleted_or_bent_comes_back_by_the_kernels_event_and_foreign_ones_are_not_touched()
{
    let cluster = cluster(Topology::one_subnet(2), &[]);
    let lab = cluster.lab();
    let cat = lab.pod_add("node1", "cat", "default").unwrap();
    let mouse = lab.pod_add("node2", "mouse", "default").unwrap();
    cluster.wait_converged().unwrap();
    assert_routes_of(&cluster, "node1", "Never");
    let blocks = cluster.blocks().unwrap();
    let block_of = |node: &str| blocks.iter().find(|(_, owner)| *owner == node).unwrap().0.clone();
    let (own, far) = (block_of("node1"), block_of("node2"));
    let host_route = format!("{} dev {}", cat.address, host_device("default", "cat"));

    let foreign: [&[&str]; 4] = [
        &["10.50.0.0/16", "via", "172.171.5.96", "proto", "static"],
        &["10.51.0.0/16", "via", "172.171.5.96", "proto", "80"],
        &["10.52.0.0/16", "via", "172.171.5.96", "proto", "77", "table", "100"],
        &[&far, "via", "172.171.5.96", "metric", "500", "proto", "bird"],
    ];
    for route in foreign {
        lab.exec("node1", &[&["ip", "route", "add"], route].concat()).unwrap();
    }
    let theirs = || {
        let table = lab.exec("node1", &["ip", "route", "show", "table", "100"]).unwrap();
        let main = lab.routes("node1").unwrap();
        let of_others = |route: &&String| route.starts_with("10.5") || route.contains("metric 500");
        (table, main.iter().filter(of_others).cloned().collect::<Vec<_>>())
    };
    let before = theirs();
    assert_eq!(before.1.len(), 3, "{before:?}");

    let monitor = lab.route_monitor("node1").unwrap();
    let mut delays = Vec::new();
    for (what, key) in
        [("block of a node", far.as_str()), ("pod", host_route.as_str()), ("blackhole", own.as_str())]
    {
        let seen = monitor.events().len();
        let kind: &[&str] = if what == "blackhole" { &["blackhole"] } else { &[] };
        let metric: &[&str] = if what == "block of a node" { &["metric", "0"] } else { &[] };
        let words: Vec<&str> = key.split_whitespace().collect();
        lab.exec("node1", &[&["ip", "route", "del"], kind, &words, metric].concat()).unwrap();
        let prefix = words[0];
        let (gone, back) = eventually(SOON, &format!("the route of the {what}"), || {
            let events = monitor.events();
            let ours = || events.iter().skip(seen).filter(|event| event.route.contains(prefix));
            let gone = ours().find(|event| event.deleted).context("it is not deleted yet")?.at;
            let back = ours().find(|event| !event.deleted && event.at >= gone).context("it is not back")?.at;
            Ok((gone, back))
        })
        .unwrap();
        delays.push((what, back.saturating_sub(gone)));
    }
    println!("repaired after: {delays:?}");
    assert!(delays.iter().all(|(_, delay)| *delay < AT_ONCE * slowness()), "{delays:?}");

    // Bent under our own protocol: written again.
    lab.exec("node1", &["ip", "route", "replace", "blackhole", &far, "proto", "77"]).unwrap();
    eventually(SOON, "the bent route to be straight", || {
        let wanted = format!("{far} via 172.171.5.96 dev eth0 proto 77");
        ensure!(lab.routes("node1")?.contains(&wanted), "{:?}", lab.routes("node1"));
        Ok(())
    })
    .unwrap();
    // Replaced by another program: that is its route now, said by name, until it takes it away.
    lab.exec(
        "node1",
        &["ip", "route", "replace", &far, "via", "172.171.5.96", "proto", "static", "mtu", "1400"],
    )
    .unwrap();
    lab.exec("node1", &["ip", "route", "replace", "unreachable", &far, "proto", "static"]).unwrap();
    assert_problem(&cluster, "node1", &[&far, "held back", "4"]);
    lab.exec("node1", &["ip", "route", "del", "unreachable", &far, "proto", "static"]).unwrap();
    eventually(SOON, "our route in its place", || lab.ping_once("cat", mouse.address)).unwrap();

    assert_eq!(theirs(), before);
    lab.exec("node1", &["ip", "route", "del", &far, "metric", "500"]).unwrap();
    for prefix in ["10.50.0.0/16", "10.51.0.0/16"] {
        lab.exec("node1", &["ip", "route", "del", prefix]).unwrap();
    }
    assert_routes_of(&cluster, "node1", "Never");
}
