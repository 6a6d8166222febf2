//! What a node knows about itself and the cluster, as far as its routes depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use manx_model::{InterfaceAddress, IpPool, NodeName};

/// The facts from which a node's routes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// This node's address, with its subnet, which decides CrossSubnet.
    pub address: InterfaceAddress,
    /// Whether `pools`, `nodes` and `tunnel` have been complete since this process started. Until then no remote
    /// route is decided: one chosen without them could be wrong (plain where the tunnel is wanted) and would replace
    /// a right one that an earlier process left.
    pub complete: bool,
    /// The usable pools.
    pub pools: Vec<IpPool>,
    /// The other nodes, by address, which is their BGP next hop.
    pub nodes: BTreeMap<Ipv4Addr, RemoteNode>,
    /// Our own confirmed blocks.
    pub blocks: BTreeSet<IpNet>,
    /// Local pods: the host's device of each address, from before the pod is attached until after it is detached. A pod's
    /// route that is not here is swept.
    pub endpoints: BTreeMap<IpAddr, String>,
    /// The best BGP paths: prefix and next hop.
    pub remote: BTreeMap<IpNet, IpAddr>,
    /// The address assigned to our own `tunl0`.
    pub tunnel: Option<Ipv4Addr>,
    /// BGP peers that are reached over a gateway of their own (`reachableBy`), each with it.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteNode {
    /// Its name, for explanations.
    pub name: NodeName,
    /// The address of its `tunl0`, which it publishes while its tunnel takes packets.
    pub tunnel: Option<Ipv4Addr>,
}

impl Facts {
    /// Facts of a node at `address` that knows nothing else yet.
    pub fn new(address: InterfaceAddress) -> Self {
        Self {
            address,
            complete: false,
            pools: Vec::new(),
            nodes: BTreeMap::new(),
            blocks: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            remote: BTreeMap::new(),
            tunnel: None,
            gateways: BTreeMap::new(),
        }
    }
}
