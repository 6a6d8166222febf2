//! Events in, [`Cluster`] out: pure.

mod complaints;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use manx_datastore::{Event, Only};
use manx_ipam::check_overlaps;
use manx_model::{
    BgpConfigurationSpec, BgpFilter, BgpPeer, ClusterInformationSpec, EndpointSlice, FelixConfigurationSpec,
    Invalid, IpPool, IpReservation, IpamConfigSpec, Kind, Namespace, Node, NodeName, NodeStatusSpec, Object,
    Pod, Service,
};
use serde_json::Value;

use self::read::{information, node_status, slice, strict, usable, whole};
use super::table::Table;
use super::{Cluster, KnownPods, misplaced};
use crate::demand;
use crate::services::follows_pods;

/// The kinds that every agent watches. Blocks and handles are not among them: an agent knows its own.
const ALWAYS: [Kind; 12] = [
    Kind::Node,
    Kind::IPPool,
    Kind::IPReservation,
    Kind::IPAMConfig,
    Kind::BGPConfiguration,
    Kind::BGPPeer,
    Kind::FelixConfiguration,
    Kind::ClusterInformation,
    Kind::CalicoNodeStatus,
    Kind::BlockAffinity,
    Kind::Pod,
    Kind::Namespace,
];

/// The name of the objects of which there is one for the cluster.
const DEFAULT: &str = "default";

/// Folds watch events into a [`Cluster`].
#[derive(Debug)]
pub struct Fold {
    node: NodeName,
    nodes: Table<Node>,
    own_node: Table<Object>,
    pools: Table<UsablePool>,
    reservations: Table<IpReservation>,
    ipam: Table<IpamConfigSpec>,
    bgp: Table<BgpConfigurationSpec>,
    peers: Table<BgpPeer>,
    filters: Table<BgpFilter>,
    services: Table<Service>,
    endpoint_slices: Table<EndpointSlice>,
    felix: Table<FelixConfigurationSpec>,
    information: Table<ClusterInformationSpec>,
    node_statuses: Table<NodeStatusSpec>,
    affinities: Table<Object>,
    pods: Table<Pod>,
    namespaces: Table<Namespace>,
    /// What follows from tables that seldom change, so that it is computed when they do.
    derived: Derived,
}

#[derive(Debug, PartialEq)]
struct UsablePool {
    object: Object,
    pool: IpPool,
}

impl UsablePool {
    /// When it was made, as Kubernetes writes it: a text that sorts as time does. Files do not say.
    fn made(&self) -> &str {
        let at = self.object.metadata.rest.get("creationTimestamp");
        at.and_then(Value::as_str).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Derived {
    pools: Arc<Vec<IpPool>>,
    pool_objects: Arc<BTreeMap<String, Object>>,
    overlapping: Vec<Invalid>,
}

impl Fold {
    /// Nothing is known yet to this node.
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            nodes: Table::default(),
            own_node: Table::default(),
            pools: Table::default(),
            reservations: Table::default(),
            ipam: Table::default(),
            bgp: Table::default(),
            peers: Table::default(),
            filters: Table::default(),
            services: Table::default(),
            endpoint_slices: Table::default(),
            felix: Table::default(),
            information: Table::default(),
            node_statuses: Table::default(),
            affinities: Table::default(),
            pods: Table::default(),
            namespaces: Table::default(),
            derived: Derived::default(),
        }
    }

    /// What is to be watched, as far as is known now.
    pub fn wanted(&self) -> Vec<(Kind, Only)> {
        self.needed().map(|kind| (kind, self.only(kind))).collect()
    }

    fn needed(&self) -> impl Iterator<Item = Kind> {
        let filters = self.peers.values().values().any(|peer| !peer.filters.is_empty());
        let announces = self.bgp.get(DEFAULT).filter(|bgp| bgp.announces_services());
        let pods = announces
            .as_ref()
            .is_some_and(|bgp| self.services.values().values().any(|service| follows_pods(bgp, service)));
        let sometimes =
            [(Kind::BGPFilter, filters), (Kind::Service, announces.is_some()), (Kind::EndpointSlice, pods)];
        let now = sometimes.into_iter().filter(|(_, needed)| *needed).map(|(kind, _)| kind);
        ALWAYS.into_iter().chain(now)
    }

    /// Which objects of a kind this node needs.
    fn only(&self, kind: Kind) -> Only {
        match kind {
            Kind::BlockAffinity | Kind::Pod | Kind::CalicoNodeStatus => Only::Node(self.node.clone()),
            _ => Only::All,
        }
    }

    /// Takes one event of the watch of `kind`.
    pub fn take(&mut self, kind: Kind, event: Event) {
        match kind {
            Kind::Node => self.take_node(event),
            Kind::IPPool => self.take_pool(event),
            Kind::IPReservation => {
                self.reservations.take(event, |object| {
                    let (reservation, mut refused) = IpReservation::from_object(&object);
                    refused.extend(misplaced::fields(&object, &["reservedCIDRs"]));
                    usable((reservation, refused))
                });
            }
            Kind::IPAMConfig => self.ipam.take(event, |object| {
                let (spec, mut refused) = IpamConfigSpec::from_object(&object);
                refused.extend(misplaced::unknown(&object, &spec.rest));
                usable((spec, refused))
            }),
            Kind::BGPConfiguration => {
                self.bgp.take(event, |object| usable(BgpConfigurationSpec::from_object(&object)));
            }
            Kind::BGPPeer => self.peers.take(event, |object| strict(BgpPeer::from_object(&object))),
            Kind::BGPFilter => self.filters.take(event, |object| strict(BgpFilter::from_object(&object))),
            Kind::Service => self.services.take(event, |object| strict(Service::from_object(&object))),
            Kind::EndpointSlice => self.endpoint_slices.take(event, |object| slice(&object)),
            Kind::FelixConfiguration => {
                self.felix.take(event, |object| usable(FelixConfigurationSpec::from_object(&object)));
            }
            Kind::ClusterInformation => {
                self.information.take(event, |object| information(&object));
            }
            Kind::CalicoNodeStatus => self.node_statuses.take(event, |object| node_status(&object)),
            Kind::BlockAffinity => self.affinities.take(event, whole),
            Kind::Pod => self.pods.take(event, |object| {
                let pod = Pod::from_object(&object);
                let refused = match pod.finished || pod.host_network {
                    true => Vec::new(),
                    false => demand::refused(&object, &pod.annotations),
                };
                (Some(pod), refused)
            }),
            Kind::Namespace => self.namespaces.take(event, |object| {
                let namespace = Namespace::from_object(&object);
                let refused = demand::refused(&object, &namespace.annotations);
                (Some(namespace), refused)
            }),
            Kind::IPAMBlock
            | Kind::IPAMHandle
            | Kind::Secret
            | Kind::Lease
            | Kind::NetworkPolicy
            | Kind::CalicoNetworkPolicy
            | Kind::GlobalNetworkPolicy => {}
        }
    }

    fn take_node(&mut self, event: Event) {
        let concerns_own = match &event {
            Event::Object(object) => object.name() == self.node.as_str(),
            Event::Deleted(name) => name == self.node.as_str(),
            _ => true,
        };
        if concerns_own {
            self.own_node.take(event.clone(), whole);
        }
        self.nodes.take(event, |object| match Node::from_object(&object) {
            Ok((node, refused)) => (Some(node), refused),
            Err(invalid) => (None, vec![invalid]),
        });
    }

    fn take_pool(&mut self, event: Event) {
        self.pools.take(event, |object| match IpPool::from_object(&object) {
            Ok(pool) => (Some(UsablePool { object, pool }), Vec::new()),
            Err(invalid) => (None, vec![invalid]),
        });
        let known = self.pools.values();
        let mut by_age: Vec<&UsablePool> = known.values().map(|pool| &**pool).collect();
        by_age.sort_by_key(|pool| (pool.made(), &pool.pool.name));
        let (usable, overlapping) =
            check_overlaps(by_age.into_iter().map(|pool| pool.pool.clone()).collect());
        self.derived.pools = Arc::new(usable);
        self.derived.overlapping = overlapping;
        let objects = known.iter().map(|(name, pool)| (name.clone(), pool.object.clone()));
        self.derived.pool_objects = Arc::new(objects.collect());
    }

    /// The cluster as it is known now.
    pub fn cluster(&self) -> Cluster {
        let of_node = format!("node.{}", self.node);
        Cluster {
            pools: Arc::clone(&self.derived.pools),
            pool_objects: Arc::clone(&self.derived.pool_objects),
            reservations: self.reservations.values(),
            nodes: self.nodes.values(),
            own_node: self.own_node.get(self.node.as_str()),
            bgp: self.bgp.get(DEFAULT).unwrap_or_default(),
            bgp_configurations: self.bgp.values(),
            peers: self.peers.values(),
            filters: self.filters.values(),
            services: self.services.values(),
            endpoint_slices: self.endpoint_slices.values(),
            felix: self.felix.get(DEFAULT).unwrap_or_default(),
            felix_of_node: self.felix.get(&of_node),
            information: self.information.get(DEFAULT),
            node_statuses: self.node_statuses.values(),
            ipam: self.ipam.get(DEFAULT).unwrap_or_default(),
            namespaces: self.namespaces.values(),
            affinities: self.affinities.values(),
            invalid: self.invalid(),
            without_effect: self.without_effect(),
            in_sync: self.needed().all(|kind| self.state(kind).in_sync),
            lost: self.needed().find_map(|kind| self.state(kind).lost.cloned()),
        }
    }

    /// The pods of this node as they are known now.
    pub fn pods(&self) -> KnownPods {
        self.pods.values()
    }

    fn state(&self, kind: Kind) -> State<'_> {
        match kind {
            Kind::Node => State::of(&self.nodes),
            Kind::IPPool => State::of(&self.pools),
            Kind::IPReservation => State::of(&self.reservations),
            Kind::IPAMConfig => State::of(&self.ipam),
            Kind::BGPConfiguration => State::of(&self.bgp),
            Kind::BGPPeer => State::of(&self.peers),
            Kind::BGPFilter => State::of(&self.filters),
            Kind::Service => State::of(&self.services),
            Kind::EndpointSlice => State::of(&self.endpoint_slices),
            Kind::FelixConfiguration => State::of(&self.felix),
            Kind::ClusterInformation => State::of(&self.information),
            Kind::CalicoNodeStatus => State::of(&self.node_statuses),
            Kind::BlockAffinity => State::of(&self.affinities),
            Kind::Pod => State::of(&self.pods),
            Kind::Namespace => State::of(&self.namespaces),
            Kind::IPAMBlock
            | Kind::IPAMHandle
            | Kind::Secret
            | Kind::Lease
            | Kind::NetworkPolicy
            | Kind::CalicoNetworkPolicy
            | Kind::GlobalNetworkPolicy => State::not_watched(),
        }
    }
}

/// What all tables have in common, whatever they hold.
struct State<'a> {
    in_sync: bool,
    lost: Option<&'a String>,
    invalid: Box<dyn Iterator<Item = &'a Invalid> + 'a>,
}

impl<'a> State<'a> {
    fn not_watched() -> Self {
        Self { in_sync: true, lost: None, invalid: Box::new(std::iter::empty()) }
    }

    fn of<T>(table: &'a Table<T>) -> Self {
        Self { in_sync: table.in_sync(), lost: table.lost(), invalid: Box::new(table.invalid()) }
    }
}
