//! What is wrong with the objects, and what they ask for in vain.

use manx_model::{Complaint, Invalid, Kind};

use super::Fold;
use crate::cluster::misplaced;
use crate::{demand, unsupported};

impl Fold {
    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let of_tables = self.needed().flat_map(|kind| self.state(kind).invalid);
        of_tables.chain(&self.derived.overlapping).cloned().chain(self.misplaced()).collect()
    }

    /// The objects that nobody looks at, because of their names.
    fn misplaced(&self) -> Vec<Invalid> {
        let nodes = self.nodes.values();
        let of_nodes = [
            (Kind::BGPConfiguration, self.bgp.values().keys().cloned().collect::<Vec<_>>()),
            (Kind::FelixConfiguration, self.felix.values().keys().cloned().collect()),
        ];
        let of_cluster = [
            (Kind::IPAMConfig, self.ipam.values().keys().cloned().collect::<Vec<_>>()),
            (Kind::ClusterInformation, self.information.values().keys().cloned().collect()),
        ];
        let of_nodes =
            of_nodes.into_iter().flat_map(|(kind, names)| misplaced::of_nodes(kind, names, &nodes));
        let of_cluster = of_cluster.into_iter().flat_map(|(kind, names)| misplaced::of_cluster(kind, names));
        of_nodes.chain(of_cluster).collect()
    }

    /// What the objects ask for in vain.
    pub(super) fn without_effect(&self) -> Vec<Complaint> {
        let pools = self.pools.values();
        let of_pools = pools.values().flat_map(|pool| unsupported::of_pool(&pool.object, &pool.pool));
        let felix = self.felix.values();
        let of_felix = felix.iter().flat_map(|(name, spec)| unsupported::of_felix(name, spec));
        let ipam = self.ipam.values();
        let of_ipam = ipam.iter().flat_map(|(name, spec)| unsupported::of_ipam(name, spec));
        let (pods, namespaces, usable) = (self.pods.values(), self.namespaces.values(), &self.derived.pools);
        let living = pods.iter().filter(|(_, pod)| !pod.finished && !pod.host_network);
        let of_pods = living.flat_map(|(key, pod)| demand::in_vain(Kind::Pod, key, &pod.annotations, usable));
        let of_namespaces = namespaces
            .iter()
            .flat_map(|(name, space)| demand::in_vain(Kind::Namespace, name, &space.annotations, usable));
        of_pools.chain(of_felix).chain(of_ipam).chain(of_pods).chain(of_namespaces).collect()
    }
}
