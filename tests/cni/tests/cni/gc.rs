//! GC, without a DEL before it: the library forgets what it attached, as after a crash of the runtime.

use std::collections::BTreeSet;

use manx_netns::{Stored, host_device};
use serde_json::json;

use crate::runtime::{Runtime, cluster};

#[test]
fn gc_takes_away_what_is_not_valid_and_nothing_else() {
    let cluster = cluster();
    let lab = cluster.lab();
    let runtime = Runtime::new(lab);
    let mut other = Runtime::new(lab);
    other.list["name"] = json!("k8s-pod-network.2");
    let pods = ["kept", "gone", "moved"].map(|pod| runtime.sandbox(pod));
    let [kept, gone, moved] = &pods;
    let result = runtime.call("ADD", kept).ok().unwrap();
    for pod in [gone, moved] {
        runtime.call("ADD", pod).ok().unwrap();
    }
    // A name that begins with ours is another network's.
    let foreign = other.sandbox("foreign");
    other.call("ADD", &foreign).ok().unwrap();
    for command in [
        "ip link add calistranger type veth peer name stranger",
        "ip address add 10.77.0.1/24 dev calistranger",
        "ip link set calistranger up",
        "ip link set stranger up",
        "ip route add 10.78.0.0/24 via 10.77.0.2",
    ] {
        lab.exec("node1", &command.split(' ').collect::<Vec<_>>()).unwrap();
    }
    let routes = || lab.routes("node1").unwrap().into_iter().collect::<BTreeSet<_>>();
    let before = routes();

    let forgetful = Runtime::new(lab).forgetful();
    for _ in 0..2 {
        forgetful.gc(&[kept]).ok().unwrap();
    }
    let lost: Vec<String> = before.difference(&routes()).cloned().collect();
    let devices = [gone, moved].map(|pod| host_device("default", &pod.pod));
    assert_eq!(lost.len(), 2, "{lost:#?}");
    assert!(lost.iter().all(|route| devices.iter().any(|device| route.contains(device))), "{lost:#?}");
    assert!(routes().is_subset(&before));
    let links = lab.exec("node1", &["ip", "-br", "link"]).unwrap();
    for device in ["calistranger", &host_device("default", "kept"), &host_device("default", "foreign")] {
        assert!(links.contains(device), "{device} is not among {links}");
    }
    assert!(devices.iter().all(|device| !links.contains(device)), "{links}");
    let stored = Stored::read(&cluster.datastore()).unwrap();
    stored.audit().unwrap();
    assert_eq!(stored.held().unwrap().len(), 2);
    runtime.call("CHECK", kept).ok().unwrap();
    other.call("CHECK", &foreign).ok().unwrap();
    assert_eq!(runtime.call("ADD", kept).ok().unwrap(), result);

    forgetful.gc(&[]).ok().unwrap();
    assert_eq!(
        Stored::read(&cluster.datastore()).unwrap().held().unwrap().len(),
        1,
        "the foreign pod's is left"
    );
}
