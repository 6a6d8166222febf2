//! What a user of Kubernetes sees: pods that reach each other, objects that say where they are, kubectl that changes the
//! network.

use anyhow::ensure;
use manx_lab::{Cluster, eventually};

use crate::support::{SOON, annotation, assert_everybody_reaches_everybody, assert_routes, founding, stored};

#[test]
fn pods_of_different_nodes_reach_each_other_and_their_objects_say_where_they_are() {
    let cluster = founding("Never");
    assert_routes(&cluster, "Never");
    assert_everybody_reaches_everybody(&cluster);
    let pods = cluster.lab().pods().unwrap();
    for pod in &pods {
        let path = format!("/api/v1/namespaces/default/pods/{}", pod.name);
        let said = |key: &str| annotation(&cluster, &path, &format!("cni.projectcalico.org/{key}")).unwrap();
        assert_eq!(said("podIP"), format!("{}/32", pod.address));
        assert_eq!(said("containerID"), pod.container_id);
        let node = cluster.lab().node(&pod.node).unwrap();
        let path = format!("/api/v1/nodes/{}", pod.node);
        assert_eq!(
            annotation(&cluster, &path, "projectcalico.org/IPv4Address").unwrap(),
            format!("{}/24", node.address())
        );
    }
    assert_kubectl_shows_who_has_what(&cluster);

    for pod in &pods {
        cluster.pod_del(&pod.name).unwrap();
    }
    let stored = stored(&cluster).unwrap();
    stored.audit().unwrap();
    stored.is_at_rest().unwrap();
}

/// Without `-o` of any kind.
fn assert_kubectl_shows_who_has_what(cluster: &Cluster) {
    let kubectl = |kind: &str| cluster.control_plane().unwrap().kubectl(&["get", kind]).unwrap();
    let (pools, blocks, affinities) = (kubectl("ippools"), kubectl("ipamblocks"), kubectl("blockaffinities"));
    println!("{pools}\n{blocks}\n{affinities}");
    assert!(pools.contains("192.168.0.0/16") && pools.contains("Never"), "{pools}");
    for (block, node) in cluster.blocks().unwrap() {
        let row = |table: &str| table.lines().find(|line| line.contains(&block)).unwrap().to_owned();
        assert!(row(&blocks).contains(&node), "{blocks}");
        assert!(row(&affinities).contains(&node) && row(&affinities).contains("confirmed"), "{affinities}");
    }
}

#[test]
fn a_pool_that_is_disabled_with_kubectl_gives_no_more_addresses_and_its_pods_stay_connected() {
    let cluster = founding("Never");
    let patch = |disabled: bool| {
        let patch = format!("{{\"spec\":{{\"disabled\":{disabled}}}}}");
        let control_plane = cluster.control_plane().unwrap();
        control_plane
            .kubectl(&["patch", "ippool", "default-ipv4-ippool", "--type=merge", "-p", &patch])
            .unwrap();
    };
    patch(true);
    eventually(SOON, "a pod to be refused", || {
        let refused = cluster.pod_add("node1", "late", "default");
        if refused.is_ok() {
            cluster.pod_del("late")?;
        }
        ensure!(refused.is_err(), "it was attached");
        Ok(())
    })
    .unwrap();
    assert_everybody_reaches_everybody(&cluster);
    patch(false);
    eventually(SOON, "a pod to be attached", || cluster.pod_add("node1", "late", "default")).unwrap();
    assert_everybody_reaches_everybody(&cluster);
}

#[test]
fn ipip_the_mode_is_switched_with_kubectl_and_everybody_stays_connected() {
    let cluster = founding("Always");
    assert_routes(&cluster, "Always");
    for mode in ["Never", "CrossSubnet", "Always"] {
        cluster.set_mode(mode).unwrap();
        cluster.wait_mode(mode).unwrap();
        assert_routes(&cluster, mode);
        assert_everybody_reaches_everybody(&cluster);
    }
}
