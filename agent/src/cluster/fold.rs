//! Events in, [`Cluster`] out: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use manx_datastore::{Event, Only};
use manx_ipam::check_overlaps;
use manx_model::{
    BgpConfigurationSpec, BgpFilter, BgpPeer, ClusterInformationSpec, Complaint, EndpointSlice,
    FelixConfigurationSpec, Invalid, IpPool, IpReservation, IpamConfigSpec, Kind, Namespace, Node, NodeName,
    NodeStatusSpec, Object, Pod, Service,
};
use serde_json::Value;

use super::table::{Read, Table};
use super::{Cluster, misplaced};
use crate::services::follows_pods;
use crate::{demand, unsupported};

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
            pods: self.pods.values(),
            namespaces: self.namespaces.values(),
            affinities: self.affinities.values(),
            invalid: self.invalid(),
            without_effect: self.without_effect(),
            in_sync: self.needed().all(|kind| self.state(kind).in_sync),
            lost: self.needed().find_map(|kind| self.state(kind).lost.cloned()),
        }
    }

    fn invalid(&self) -> Vec<Invalid> {
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
    fn without_effect(&self) -> Vec<Complaint> {
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

fn usable<T>((value, refused): (T, Vec<Invalid>)) -> Read<T> {
    (Some(value), refused)
}

fn strict<T>(read: Result<T, Invalid>) -> Read<T> {
    match read {
        Ok(value) => (Some(value), Vec::new()),
        Err(invalid) => (None, vec![invalid]),
    }
}

/// A mistake must not lock the datastore of a whole cluster: what was said last stays in force.
fn information(object: &Object) -> Read<ClusterInformationSpec> {
    match ClusterInformationSpec::from_object(object) {
        (spec, refused) if refused.is_empty() => (Some(spec), refused),
        (_, refused) => (None, refused),
    }
}

fn node_status(object: &Object) -> Read<NodeStatusSpec> {
    match NodeStatusSpec::from_object(object) {
        Ok(spec) => {
            let refused = misplaced::unknown(object, &spec.rest);
            (Some(spec), refused)
        }
        Err(invalid) => (None, vec![invalid]),
    }
}

/// One that belongs to no service is nobody's.
fn slice(object: &Object) -> Read<EndpointSlice> {
    match EndpointSlice::from_object(object) {
        Ok(slice) => (slice, Vec::new()),
        Err(invalid) => (None, vec![invalid]),
    }
}

fn whole(object: Object) -> Read<Object> {
    (Some(object), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::annotation;
    use serde_json::json;

    fn pool(name: &str, cidr: &str) -> Object {
        Object::new(Kind::IPPool, name, &json!({"cidr": cidr}))
    }

    fn in_sync(events: impl IntoIterator<Item = (Kind, Event)>) -> Fold {
        let mut fold = Fold::new("n1".parse().unwrap());
        for (kind, _) in fold.wanted() {
            fold.take(kind, Event::Init);
            fold.take(kind, Event::InSync);
        }
        for (kind, event) in events {
            fold.take(kind, event);
        }
        fold
    }

    #[test]
    fn a_cluster_is_in_sync_once_every_kind_has_been_listed() {
        let mut fold = Fold::new("n1".parse().unwrap());
        for (kind, _) in fold.wanted() {
            assert!(!fold.cluster().in_sync, "{kind}");
            fold.take(kind, Event::Init);
            fold.take(kind, Event::InSync);
        }
        assert!(fold.cluster().in_sync);
    }

    #[test]
    fn of_two_pools_that_overlap_one_is_refused_by_name_and_the_rest_goes_on() {
        let fold = in_sync([
            (Kind::IPPool, Event::Object(pool("a", "10.0.0.0/16"))),
            (Kind::IPPool, Event::Object(pool("b", "10.0.128.0/17"))),
            (Kind::IPPool, Event::Object(pool("c", "10.1.0.0/16"))),
        ]);
        let cluster = fold.cluster();
        assert_eq!(cluster.pools.len(), 2);
        let [refused] = &cluster.invalid[..] else { panic!("{:?}", cluster.invalid) };
        assert!(refused.name == "b" && refused.reason.contains('a'), "{refused}");
    }

    #[test]
    fn a_new_pool_does_not_put_an_older_one_out_of_use() {
        let made = |name: &str, cidr: &str, at: &str| {
            let mut pool = pool(name, cidr);
            pool.metadata.rest.insert("creationTimestamp".into(), at.into());
            (Kind::IPPool, Event::Object(pool))
        };
        let fold = in_sync([
            made("old", "10.0.0.0/16", "2026-01-01T00:00:00Z"),
            made("a-new", "10.0.0.0/17", "2026-01-01T00:00:01Z"),
        ]);
        let cluster = fold.cluster();
        assert_eq!((cluster.pools[0].name.as_str(), cluster.invalid[0].name.as_str()), ("old", "a-new"));
    }

    #[test]
    fn a_mistake_in_the_cluster_information_locks_nothing_that_was_not_locked() {
        let said = |ready: serde_json::Value| {
            let spec = json!({"datastoreReady": ready});
            (Kind::ClusterInformation, Event::Object(Object::new(Kind::ClusterInformation, "default", &spec)))
        };
        let cluster = in_sync([said(json!(true)), said(json!("yes"))]).cluster();
        assert!(!cluster.information.unwrap().is_locked());
        assert_eq!(cluster.invalid[0].field, "spec.datastoreReady");
        assert!(in_sync([said(json!(false))]).cluster().information.unwrap().is_locked());
    }

    #[test]
    fn what_a_pod_asks_for_wrongly_or_in_vain_is_said_until_it_has_ended() {
        let pod = |phase: &str| {
            let mut pod = Object::new_in(Kind::Pod, "default", "p", &json!({}));
            pod.rest.insert("status".into(), json!({"phase": phase}));
            for (key, value) in [("hwAddr", "none"), ("ipv4pools", r#"["nowhere"]"#), ("floatingIPs", "x")] {
                pod.metadata.annotations.insert(format!("cni.projectcalico.org/{key}"), value.into());
            }
            (Kind::Pod, Event::Object(pod))
        };
        let cluster = in_sync([pod("Running")]).cluster();
        assert!(
            cluster.invalid[0]
                .to_string()
                .contains("Pod default/p: metadata.annotations: cni.projectcalico.org/hwAddr")
        );
        let said: Vec<String> = cluster.without_effect.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|said| said.contains("\"nowhere\"")) && said.len() == 2, "{said:?}");
        let cluster = in_sync([pod("Running"), pod("Succeeded")]).cluster();
        assert_eq!((cluster.invalid.len(), cluster.without_effect.len()), (0, 0));
    }

    #[test]
    fn a_nodes_wrong_annotation_is_reported_and_the_node_stays() {
        let mut node = Object::new(Kind::Node, "n1", &serde_json::Value::Null);
        node.metadata.annotations.insert(annotation::IPV4_ADDRESS.into(), "nowhere".into());
        let cluster = in_sync([(Kind::Node, Event::Object(node.clone()))]).cluster();
        assert_eq!((cluster.nodes.len(), cluster.invalid.len()), (1, 1));
        assert_eq!(cluster.own_node.as_deref(), Some(&node));
    }

    #[test]
    fn a_node_watches_a_dozen_kinds_at_most_and_of_pods_and_affinities_its_own_only() {
        let wanted = in_sync([]).wanted();
        assert!(wanted.len() <= 12, "{wanted:?}");
        for kind in [Kind::Pod, Kind::BlockAffinity] {
            assert!(wanted.contains(&(kind, Only::Node("n1".parse().unwrap()))));
        }
    }

    #[test]
    fn services_their_pods_and_filters_are_watched_only_while_the_objects_ask_for_them() {
        let watched = |fold: &Fold| -> Vec<Kind> {
            let sometimes = [Kind::BGPFilter, Kind::Service, Kind::EndpointSlice];
            let wanted = fold.wanted();
            sometimes.into_iter().filter(|kind| wanted.iter().any(|(wanted, _)| wanted == kind)).collect()
        };
        let mut fold = in_sync([]);
        assert_eq!(watched(&fold), []);
        let filtered = json!({"peerIP": "10.0.0.1", "asNumber": 65000, "filters": ["f"]});
        fold.take(Kind::BGPPeer, Event::Object(Object::new(Kind::BGPPeer, "tor", &filtered)));
        assert_eq!(watched(&fold), [Kind::BGPFilter]);
        let ranges = json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]});
        let ranges = Object::new(Kind::BGPConfiguration, "default", &ranges);
        fold.take(Kind::BGPConfiguration, Event::Object(ranges));
        assert_eq!(watched(&fold), [Kind::BGPFilter, Kind::Service]);
        for kind in [Kind::BGPFilter, Kind::Service] {
            assert!(!fold.cluster().in_sync, "{kind} has not been listed");
            fold.take(kind, Event::Init);
            fold.take(kind, Event::InSync);
        }
        assert!(fold.cluster().in_sync);
        let service = |policy: &str| {
            let spec = json!({"clusterIP": "10.96.0.7", "externalTrafficPolicy": policy});
            Event::Object(Object::new_in(Kind::Service, "default", "s", &spec))
        };
        fold.take(Kind::Service, service("Cluster"));
        assert_eq!(watched(&fold), [Kind::BGPFilter, Kind::Service], "its pods may be anywhere");
        fold.take(Kind::Service, service("Local"));
        assert_eq!(watched(&fold), [Kind::BGPFilter, Kind::Service, Kind::EndpointSlice]);
        assert!(!fold.cluster().in_sync, "where its pods are is not known yet");
    }

    #[test]
    fn what_did_not_change_is_shared_and_not_copied() {
        let mut fold = in_sync([(Kind::IPPool, Event::Object(pool("a", "10.0.0.0/16")))]);
        let before = fold.cluster();
        fold.take(Kind::Pod, Event::Object(Object::new_in(Kind::Pod, "default", "p", &json!({}))));
        let after = fold.cluster();
        assert!(Arc::ptr_eq(&before.pools, &after.pools) && Arc::ptr_eq(&before.nodes, &after.nodes));
        assert_eq!((before.pods.len(), after.pods.len()), (0, 1));
    }
}
