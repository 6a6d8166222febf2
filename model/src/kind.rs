//! The kinds of objects, by the names under which Kubernetes and Calico know them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds that Manx reads, writes or watches: those of Calico's storage group, and of Kubernetes those it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, clippy::upper_case_acronyms, reason = "the variants are the kinds' own names")]
pub enum Kind {
    Node,
    IPPool,
    IPAMBlock,
    BlockAffinity,
    IPAMHandle,
    IPAMConfig,
    IPReservation,
    BGPConfiguration,
    BGPPeer,
    BGPFilter,
    FelixConfiguration,
    ClusterInformation,
    CalicoNodeStatus,
    Namespace,
    Pod,
    Service,
    EndpointSlice,
    Secret,
    Lease,
    NetworkPolicy,
    /// Calico's own, which has the same name in its group.
    CalicoNetworkPolicy,
    GlobalNetworkPolicy,
}

/// How a kind is named.
struct Names {
    kind: &'static str,
    /// API group; empty for the core group.
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespaced: bool,
}

/// Calico's storage group.
const CALICO: &str = "crd.projectcalico.org";

impl Kind {
    /// Every kind that is kept or gone by, in the order in which a datastore lists them.
    pub const ALL: [Self; 19] = [
        Self::Node,
        Self::IPPool,
        Self::IPAMBlock,
        Self::BlockAffinity,
        Self::IPAMHandle,
        Self::IPAMConfig,
        Self::IPReservation,
        Self::BGPConfiguration,
        Self::BGPPeer,
        Self::BGPFilter,
        Self::FelixConfiguration,
        Self::ClusterInformation,
        Self::CalicoNodeStatus,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::Lease,
    ];

    /// What forbids traffic: looked at on Kubernetes alone, Calico's only where somebody has defined them.
    pub const POLICIES: [Self; 3] =
        [Self::NetworkPolicy, Self::CalicoNetworkPolicy, Self::GlobalNetworkPolicy];

    const fn names(self) -> Names {
        const fn calico(kind: &'static str, plural: &'static str) -> Names {
            Names { kind, group: CALICO, version: "v1", plural, namespaced: false }
        }
        const fn core(kind: &'static str, plural: &'static str, namespaced: bool) -> Names {
            Names { kind, group: "", version: "v1", plural, namespaced }
        }
        const fn grouped(group: &'static str, kind: &'static str, plural: &'static str) -> Names {
            Names { kind, group, version: "v1", plural, namespaced: true }
        }
        match self {
            Self::Node => core("Node", "nodes", false),
            Self::IPPool => calico("IPPool", "ippools"),
            Self::IPAMBlock => calico("IPAMBlock", "ipamblocks"),
            Self::BlockAffinity => calico("BlockAffinity", "blockaffinities"),
            Self::IPAMHandle => calico("IPAMHandle", "ipamhandles"),
            Self::IPAMConfig => calico("IPAMConfig", "ipamconfigs"),
            Self::IPReservation => calico("IPReservation", "ipreservations"),
            Self::BGPConfiguration => calico("BGPConfiguration", "bgpconfigurations"),
            Self::BGPPeer => calico("BGPPeer", "bgppeers"),
            Self::BGPFilter => calico("BGPFilter", "bgpfilters"),
            Self::FelixConfiguration => calico("FelixConfiguration", "felixconfigurations"),
            Self::ClusterInformation => calico("ClusterInformation", "clusterinformations"),
            Self::CalicoNodeStatus => calico("CalicoNodeStatus", "caliconodestatuses"),
            Self::Namespace => core("Namespace", "namespaces", false),
            Self::Pod => core("Pod", "pods", true),
            Self::Service => core("Service", "services", true),
            Self::EndpointSlice => grouped("discovery.k8s.io", "EndpointSlice", "endpointslices"),
            Self::Secret => core("Secret", "secrets", true),
            Self::Lease => grouped("coordination.k8s.io", "Lease", "leases"),
            Self::NetworkPolicy => grouped("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
            Self::CalicoNetworkPolicy => grouped(CALICO, "NetworkPolicy", "networkpolicies"),
            Self::GlobalNetworkPolicy => calico("GlobalNetworkPolicy", "globalnetworkpolicies"),
        }
    }

    /// `apiVersion` of this kind: `v1`, or `GROUP/v1`.
    pub fn api_version(self) -> String {
        let Names { group, version, .. } = self.names();
        match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// The API group; empty for the core group.
    pub const fn group(self) -> &'static str {
        self.names().group
    }

    /// The version within the group.
    pub const fn version(self) -> &'static str {
        self.names().version
    }

    /// The value of `kind`.
    pub const fn as_str(self) -> &'static str {
        self.names().kind
    }

    /// The plural by which the API server and `kubectl` know this kind; also its directory in the `file` datastore.
    pub const fn plural(self) -> &'static str {
        self.names().plural
    }

    /// Whether its objects live in namespaces.
    pub const fn is_namespaced(self) -> bool {
        self.names().namespaced
    }

    /// Whether it is one of Calico's storage group.
    pub const fn is_calicos(self) -> bool {
        matches!(self.names().group.as_bytes(), [b'c', b'r', b'd', b'.', ..])
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_the_names_under_which_the_api_server_knows_it() {
        assert_eq!(Kind::IPPool.api_version(), "crd.projectcalico.org/v1");
        assert_eq!(Kind::Pod.api_version(), "v1");
        assert_eq!(Kind::Lease.api_version(), "coordination.k8s.io/v1");
        let [kubernetes, calico, _] = Kind::POLICIES;
        assert_eq!((kubernetes.as_str(), kubernetes.plural()), (calico.as_str(), calico.plural()));
        assert_ne!(kubernetes.api_version(), calico.api_version());
        assert!(Kind::BGPPeer.is_calicos() && !Kind::Node.is_calicos() && !Kind::Lease.is_calicos());
        assert!(Kind::Secret.is_namespaced() && !Kind::Namespace.is_namespaced());
    }

    #[test]
    fn all_kinds_are_listed_once() {
        let mut plurals: Vec<_> = Kind::ALL.iter().map(|kind| kind.plural()).collect();
        plurals.sort_unstable();
        plurals.dedup();
        assert_eq!(plurals.len(), Kind::ALL.len());
    }
}
