//! What an agent says about itself: one value, shown as text to people and as JSON to programs.

mod server;
mod text;

use serde::{Deserialize, Serialize};

pub use server::{Source, ask, serve};
pub use text::render;

/// The state of one agent at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Its address and subnet, once known.
    pub address: Option<String>,
    /// Serves pods.
    pub ready: bool,
    /// Why it does not.
    pub not_ready: Option<String>,
    /// `file:DIR`, `memory`.
    pub datastore: String,
    /// Every kind has been read whole, and the datastore answers.
    pub in_sync: bool,
    /// The kernel has every route of ours, and our table of nftables, as they should be.
    pub in_desired_state: bool,
    /// The CNI configuration that the agent is to install is not there.
    #[serde(default)]
    pub no_conflist: bool,
    /// A pool asks for the tunnel, and this kernel has none to give.
    #[serde(default)]
    pub no_ipip: bool,
    /// Routes written so far.
    pub routes_written: u64,
    /// The pools that are in use.
    pub pools: Vec<Pool>,
    /// Our confirmed blocks.
    pub blocks: Vec<String>,
    /// Our pods.
    pub pods: Vec<Pod>,
    /// The address of `tunl0`, while it takes packets.
    pub tunnel: Option<String>,
    /// BGP, unless it is switched off.
    pub bgp: Option<Bgp>,
    /// How the blocks of other nodes, and what routers announced, are reached.
    pub paths: Vec<RemotePath>,
    /// How many policies forbid something in vain, as the node that leads has counted; `None` before it has.
    #[serde(default)]
    pub policies_not_enforced: Option<usize>,
    /// What is wrong now.
    pub problems: Vec<String>,
    /// Variables and fields of objects without effect.
    pub notices: Vec<String>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub cidr: String,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// Its mode.
    pub ipip_mode: String,
    /// No new allocations.
    pub disabled: bool,
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its IPAM handle.
    pub handle: String,
    /// The host's device.
    pub device: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// The BGP speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bgp {
    /// Our AS.
    pub asn: u32,
    /// Our identifier.
    pub router_id: String,
    /// What it listens on, or why it cannot.
    pub listening: String,
    /// Every peer has announced everything it has, or has been given up on.
    pub converged: bool,
    /// The peers.
    pub peers: Vec<Peer>,
}

/// A BGP peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// `Mesh_…`, `Global_…`, `Node_…`.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its AS.
    pub asn: u32,
    /// `Established`, or how far the session is (RFC 4271 section 8.2.2).
    pub state: String,
    /// Seconds in this state.
    pub seconds: u64,
    /// Prefixes that it has announced.
    pub received: usize,
    /// Among them, those that are kept while it restarts.
    pub stale: usize,
    /// Prefixes that we announce to it.
    pub sent: usize,
    /// Why the session ended last.
    pub last_error: Option<String>,
}

/// How a remote prefix is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemotePath {
    /// The prefix.
    pub prefix: String,
    /// `via 172.171.5.96 dev tunl0`, or `no route`.
    pub route: String,
    /// Why this one.
    pub reason: String,
}
