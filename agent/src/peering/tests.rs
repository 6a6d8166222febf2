//! One sentence for each rule; the worlds are built by [`World`].

mod export;
mod fields;
mod mesh;
mod objects;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use manx_model::{Asn, BgpConfigurationSpec, BgpFilter, BgpPeer, IpPool, Kind, Node, NodeName, Object};
use serde_json::{Value, json};

use super::*;

/// Objects, as a user writes them.
#[derive(Default)]
struct World {
    nodes: BTreeMap<String, Arc<Node>>,
    configurations: BTreeMap<String, Arc<BgpConfigurationSpec>>,
    peers: BTreeMap<String, Arc<BgpPeer>>,
    filters: BTreeMap<String, Arc<BgpFilter>>,
    pools: Vec<IpPool>,
}

impl World {
    /// Nodes of these names and addresses.
    fn of(nodes: &[(&str, &str)]) -> Self {
        let mut world = Self::default();
        for (name, address) in nodes {
            world.node(name, |node| node.address = Some(format!("{address}/24").parse().unwrap()));
        }
        world
    }

    fn node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let new = || Arc::new(Node::new(name.parse().unwrap()));
        change(Arc::make_mut(self.nodes.entry(name.into()).or_insert_with(new)));
    }

    fn label(&mut self, name: &str, label: &str) {
        self.node(name, |node| drop(node.labels.insert(label.into(), String::new())));
    }

    fn configure(&mut self, name: &str, spec: Value) {
        let object = Object::new(Kind::BGPConfiguration, name, &spec);
        let (spec, refused) = BgpConfigurationSpec::from_object(&object);
        assert!(refused.is_empty(), "{refused:?}");
        self.configurations.insert(name.into(), Arc::new(spec));
    }

    fn peer(&mut self, name: &str, spec: Value) {
        let peer = BgpPeer::from_object(&Object::new(Kind::BGPPeer, name, &spec)).unwrap();
        self.peers.insert(name.into(), Arc::new(peer));
    }

    fn filter(&mut self, name: &str, spec: Value) {
        let filter = BgpFilter::from_object(&Object::new(Kind::BGPFilter, name, &spec)).unwrap();
        self.filters.insert(name.into(), Arc::new(filter));
    }

    fn pool(&mut self, name: &str, spec: Value) {
        self.pools.push(IpPool::from_object(&Object::new(Kind::IPPool, name, &spec)).unwrap());
    }

    /// The peering of a node.
    fn at(&self, name: &str) -> Peering {
        let node: NodeName = name.parse().unwrap();
        peering(&Facts {
            address: self.nodes[name].address.unwrap().address(),
            node: &node,
            own_asn: None,
            nodes: &self.nodes,
            configurations: &self.configurations,
            peers: &self.peers,
            filters: &self.filters,
            pools: &self.pools,
        })
    }

    /// The names of the peers of a node.
    fn names(&self, name: &str) -> Vec<String> {
        self.at(name).peers.into_values().map(|peer| peer.config.name).collect()
    }
}

impl Peering {
    fn peer(&self, address: &str) -> &Peer {
        &self.peers[&address.parse::<IpAddr>().unwrap()]
    }

    fn says(&self, words: &str) -> bool {
        self.complaints.iter().any(|complaint| complaint.to_string().contains(words))
    }
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

/// Three nodes: a, b and c at 10.0.0.1, .2 and .3.
fn three() -> World {
    World::of(&[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")])
}

/// `three`, without a mesh.
fn meshless() -> World {
    let mut world = three();
    world.configure("default", json!({"nodeToNodeMeshEnabled": false}));
    world
}
