//! The cluster as the datastore tells it: the watches of every kind that this node needs, folded into one value.
//!
//! An object is read once, when it comes, into the table of its kind ([`table`]); [`Cluster`] shares what the tables hold.
//! So a change costs what has changed, and not what there is: a pod that comes or goes on one node is nothing to a
//! thousand others. A reader of the channel sees whole clusters only, and asks [`Cluster::in_sync`] before it draws a
//! conclusion from what is absent.

mod fold;
mod misplaced;
pub(crate) mod table;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;

use manx_model::{
    BgpConfigurationSpec, BgpFilter, BgpPeer, ClusterInformationSpec, Complaint, EndpointSlice,
    FelixConfigurationSpec, Invalid, IpPool, IpReservation, IpamConfigSpec, Namespace, Node, NodeStatusSpec,
    Object, Pod, Service,
};

/// The pods of this node by `namespace/name`, as far as watches tell them. They come and go all the time, and mean nothing
/// to most of those who wait for a change of the [`Cluster`]: they are told on a channel of their own.
pub type KnownPods = Arc<BTreeMap<String, Arc<Pod>>>;

pub use fold::Fold;
pub use watching::watch;

/// What the datastore says, read and checked. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Pools that can be used, by name.
    pub pools: Arc<Vec<IpPool>>,
    /// The IPPool objects as they are stored, for those who write them.
    pub pool_objects: Arc<BTreeMap<String, Object>>,
    /// Addresses that are given to nobody new.
    pub reservations: Arc<BTreeMap<String, Arc<IpReservation>>>,
    /// Nodes by name.
    pub nodes: Arc<BTreeMap<String, Arc<Node>>>,
    /// This node's own object, as far as watches tell it.
    pub own_node: Option<Arc<Object>>,
    /// The BGPConfiguration `default`.
    pub bgp: Arc<BgpConfigurationSpec>,
    /// All BGPConfigurations by name: a peer's `node.NAME` says where it listens.
    pub bgp_configurations: Arc<BTreeMap<String, Arc<BgpConfigurationSpec>>>,
    /// BGPPeers by name.
    pub peers: Arc<BTreeMap<String, Arc<BgpPeer>>>,
    /// BGPFilters by name, while a BGPPeer refers to any.
    pub filters: Arc<BTreeMap<String, Arc<BgpFilter>>>,
    /// Services by `namespace/name`, while their addresses are announced.
    pub services: Arc<BTreeMap<String, Arc<Service>>>,
    /// EndpointSlices by `namespace/name`, while the announcement of a service follows its pods.
    pub endpoint_slices: Arc<BTreeMap<String, Arc<EndpointSlice>>>,
    /// The FelixConfiguration `default`.
    pub felix: Arc<FelixConfigurationSpec>,
    /// The FelixConfiguration `node.NAME` of this node.
    pub felix_of_node: Option<Arc<FelixConfigurationSpec>>,
    /// The ClusterInformation `default`.
    pub information: Option<Arc<ClusterInformationSpec>>,
    /// The CalicoNodeStatuses that ask about this node, by name.
    pub node_statuses: Arc<BTreeMap<String, Arc<NodeStatusSpec>>>,
    /// The IPAMConfig `default`.
    pub ipam: Arc<IpamConfigSpec>,
    /// Namespaces by name.
    pub namespaces: Arc<BTreeMap<String, Arc<Namespace>>>,
    /// This node's BlockAffinities by name: who writes them beside us is noticed here.
    pub affinities: Arc<BTreeMap<String, Arc<Object>>>,
    /// Objects that cannot be used, and why.
    pub invalid: Vec<Invalid>,
    /// What objects ask for in vain.
    pub without_effect: Vec<Complaint>,
    /// Every kind has been listed whole, and is being watched.
    pub in_sync: bool,
    /// Why the datastore cannot be reached, while it cannot.
    pub lost: Option<String>,
}
