//! The imitation of Calico's nodes is worth something: on its own, without an agent of ours, it is a cluster.

use anyhow::Result;
use manx_lab::{Topology, eventually};
use manx_netns::Stored;
use manx_netns::calico::{Api, Bird, Ipam, Workload};

use crate::support::{POOL, SOON, bare};

#[test]
fn nodes_of_calicos_kind_alone_are_a_cluster_whose_addresses_fit_together() {
    let cluster = bare(Topology::founding());
    let (lab, control_plane) = (cluster.lab(), cluster.control_plane().unwrap());
    control_plane.apply(POOL).unwrap();
    let api = Api::new(control_plane.client());
    let mut pods = Vec::new();
    let mut birds = Vec::new();
    for node in cluster.node_names() {
        let ipam = Ipam::new(api.clone(), &node);
        let mut bird = Bird::start(lab, &node, &["192.168.0.0/16".parse().unwrap()]).unwrap();
        pods.push(Workload::attach(lab, &ipam, &node, &node.replace("node", "pod")).unwrap());
        bird.set_blocks(&ipam.blocks().unwrap()).unwrap();
        birds.push(bird);
    }
    eventually(SOON, "all sessions", || birds.iter().try_for_each(Bird::check_sessions)).unwrap();
    for from in &pods {
        for to in &pods {
            eventually(SOON, "a ping", || lab.ping_once(&from.name, to.address)).unwrap();
        }
    }
    let stored = || -> Result<Stored> { Stored::in_kubernetes(control_plane) };
    stored().unwrap().audit().unwrap();
    assert_eq!(stored().unwrap().held().unwrap().len(), 4);
    for pod in pods {
        let ipam = Ipam::new(api.clone(), &pod.node);
        pod.detach(lab, &ipam).unwrap();
    }
    stored().unwrap().audit().unwrap();
    assert!(stored().unwrap().handles.is_empty());
}
