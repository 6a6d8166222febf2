//! The nouns that all of Manx shares: nodes, pools, blocks and peers, as values that cannot be wrong, and
//! the objects of Calico's storage group in which a datastore keeps them.
//!
//! Nothing here opens, sleeps or logs. An [`Object`] is what is stored, with every field that we do not know
//! kept as it was; the typed views ([`IpPool`], [`Node`], …) are what the rest of Manx decides with, and are
//! made from objects by conversions whose [`Invalid`] names the object, the field and what is allowed.

mod absent;
mod asn;
mod bgp_configuration;
mod bgp_filter;
mod bgp_peer;
mod block;
pub mod calico_metadata;
mod cluster_information;
mod community;
mod complaint;
mod felix_configuration;
mod interval;
mod ipam_config;
mod kind;
mod names;
mod namespace;
mod node;
mod node_status;
mod object;
mod password;
mod pod;
mod pool;
mod port_range;
mod read;
mod reservation;
mod selector;
mod service;

pub use asn::Asn;
pub use bgp_configuration::{
    BgpConfigurationSpec, BindMode, LogSeverity, NamedCommunity, PrefixAdvertisement, ProgramClusterRoutes,
    ServiceRange, Switch,
};
pub use bgp_filter::{
    BgpFilter, BgpFilterSpec, FilterAction, FilterOperation, FilterRule, MatchOperator, PeerType,
    PrefixCondition,
};
pub use bgp_peer::{
    BgpPeer, BgpPeerSpec, NextHopMode, PeerEndpoint, PeeringNodes, Peers, ReversePeering, SourceAddress,
};
pub use block::{
    AffinitySpec, AffinityState, AllocationAttribute, BlockSpec, HandleSpec, RESERVE, TUNNEL_IPIP,
};
pub use cluster_information::ClusterInformationSpec;
pub use community::Community;
pub use complaint::Complaint;
pub use felix_configuration::{FelixConfigurationSpec, NatExclusions, Network};
pub use interval::Interval;
pub use ipam_config::IpamConfigSpec;
pub use kind::Kind;
pub use names::{
    HOSTNAME_HASH, affinity_labels, affinity_name, check_key, check_name, cidr_name, hostname_hash,
    is_reserve_handle, reserve_handle, router_id_of, tunnel_handle, veth_name,
};
pub use namespace::Namespace;
pub use node::{EXCLUDE_FROM_LOAD_BALANCERS, InterfaceAddress, Node, NodeName, annotation};
pub use node_status::{
    AgentStatus, BgpStatus, LearnedFrom, NodeStatus, NodeStatusSpec, PeerStatus, RouteStatus, RoutesStatus,
    SpeakerStatus, StatusClass,
};
pub use object::{Invalid, Metadata, Object};
pub use password::{Password, SecretKeyRef};
pub use pod::{Pod, pod_annotation};
pub use pool::{
    AllowedUse, AssignmentMode, DEFAULT_IPV4_POOL, DEFAULT_IPV6_POOL, IpPool, IpPoolSpec, IpipMode,
    check_pool_cidr,
};
pub use port_range::PortRange;
pub use reservation::{IpReservation, IpReservationSpec};
pub use selector::{Selector, SelectorError};
pub use service::{EndpointSlice, Service, ServiceEndpoint};
