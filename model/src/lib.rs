//! The nouns that all of Manx shares: nodes, pools, blocks and peers, as values that cannot be wrong, and
//! the objects of Calico's storage group in which a datastore keeps them.
//!
//! Nothing here opens, sleeps or logs. An [`Object`] is what is stored, with every field that we do not know
//! kept as it was; the typed views ([`IpPool`], [`Node`], …) are what the rest of Manx decides with, and are
//! made from objects by conversions whose [`Invalid`] names the object, the field and what is allowed.

mod block;
pub mod calico_metadata;
mod kind;
mod names;
mod node;
mod object;
mod peer;
mod pool;

pub use block::{
    AffinitySpec, AffinityState, AllocationAttribute, BlockSpec, HandleSpec, IpamConfigSpec, TUNNEL_IPIP,
};
pub use kind::Kind;
pub use names::{
    HOSTNAME_HASH, affinity_labels, affinity_name, check_key, check_name, cidr_name, hostname_hash,
    tunnel_handle, veth_name,
};
pub use node::{InterfaceAddress, Node, NodeName, annotation};
pub use object::{Invalid, Metadata, Object};
pub use peer::{Asn, BgpConfigurationSpec, BgpPeerSpec};
pub use pool::{DEFAULT_IPV4_POOL, IpPool, IpPoolSpec, IpipMode, check_pool_cidr};
