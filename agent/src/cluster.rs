//! The cluster as the datastore tells it: the watches of every kind, folded into one value.
//!
//! [`Fold`] is the pure half: events in, [`Cluster`] out. [`watch()`] is the task that runs it. A reader of the channel
//! sees whole clusters only, and asks [`Cluster::in_sync`] before it draws a conclusion from what is absent.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{SelectAll, select_all};
use manx_datastore::{Datastore, Event, Only};
use manx_ipam::check_overlaps;
use manx_model::{
    BgpConfigurationSpec, BgpPeer, Invalid, IpPool, IpamConfigSpec, Kind, Node, NodeName, Object,
};
use tokio::sync::watch;

use crate::{latest, unsupported};

/// The kinds that every agent watches. Blocks are not among them: an agent knows its own.
const WATCHED: [Kind; 5] =
    [Kind::Node, Kind::IPPool, Kind::IPAMConfig, Kind::BGPConfiguration, Kind::BGPPeer];

/// What the datastore says, read and checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Pools that can be used, by name.
    pub pools: Vec<IpPool>,
    /// The IPPool objects as they are stored, for those who write them.
    pub pool_objects: BTreeMap<String, Object>,
    /// Nodes by name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The Node objects as they are stored.
    pub node_objects: BTreeMap<String, Object>,
    /// The BGPConfiguration `default`.
    pub bgp: BgpConfigurationSpec,
    /// BGPPeers by name.
    pub peers: BTreeMap<String, BgpPeer>,
    /// The IPAMConfig `default`.
    pub ipam: IpamConfigSpec,
    /// Objects that cannot be used, and why.
    pub invalid: Vec<Invalid>,
    /// What objects ask for in vain.
    pub without_effect: Vec<String>,
    /// Every kind has been listed whole, and is being watched.
    pub in_sync: bool,
    /// Why the datastore cannot be reached, while it cannot.
    pub lost: Option<String>,
}

/// Folds watch events into a [`Cluster`].
#[derive(Debug, Default)]
pub struct Fold {
    kinds: BTreeMap<Kind, Watched>,
}

/// What one watch has said. While a list runs, the old objects stay: nothing is gone before the list is whole.
#[derive(Debug, Default)]
struct Watched {
    known: BTreeMap<String, Known>,
    listing: Option<BTreeMap<String, Known>>,
    in_sync: bool,
    lost: Option<String>,
}

/// An object, or the reason why it cannot be read and what it last said.
#[derive(Clone, Debug)]
struct Known {
    object: Option<Object>,
    invalid: Option<Invalid>,
}

impl Fold {
    /// Takes one event of the watch of `kind`.
    pub fn take(&mut self, kind: Kind, event: Event) {
        let watched = self.kinds.entry(kind).or_default();
        match event {
            Event::Init => watched.listing = Some(BTreeMap::new()),
            Event::Object(object) => {
                let name = object.name().to_owned();
                watched.insert(name, Known { object: Some(object), invalid: None });
            }
            Event::Invalid(invalid) => {
                // What it said while it could be read stays in force: damage to a file deletes no pool.
                let object = watched.known.get(&invalid.name).and_then(|known| known.object.clone());
                watched.insert(invalid.name.clone(), Known { object, invalid: Some(invalid) });
            }
            Event::Deleted(name) => {
                watched.known.remove(&name);
                if let Some(listing) = &mut watched.listing {
                    listing.remove(&name);
                }
            }
            Event::InSync => {
                if let Some(listing) = watched.listing.take() {
                    watched.known = listing;
                }
                watched.in_sync = true;
                watched.lost = None;
            }
            Event::Lost(reason) => watched.lost = Some(reason),
        }
    }

    /// The cluster as it is known now.
    pub fn cluster(&self) -> Cluster {
        let mut cluster = Cluster {
            in_sync: WATCHED.iter().all(|kind| self.kinds.get(kind).is_some_and(|watched| watched.in_sync)),
            lost: self.kinds.values().find_map(|watched| watched.lost.clone()),
            ..Cluster::default()
        };
        for (kind, watched) in &self.kinds {
            for known in watched.known.values() {
                cluster.invalid.extend(known.invalid.clone());
                if let Some(object) = &known.object {
                    cluster.add(*kind, object);
                }
            }
        }
        let (usable, refused) = check_overlaps(std::mem::take(&mut cluster.pools));
        cluster.pools = usable;
        cluster.invalid.extend(refused);
        cluster
    }
}

impl Watched {
    fn insert(&mut self, name: String, known: Known) {
        if let Some(listing) = &mut self.listing {
            listing.insert(name.clone(), known.clone());
        }
        self.known.insert(name, known);
    }
}

impl Cluster {
    fn add(&mut self, kind: Kind, object: &Object) {
        let added = match kind {
            Kind::Node => self.add_node(object),
            Kind::IPPool => self.add_pool(object),
            Kind::BGPPeer => {
                BgpPeer::from_object(object).map(|peer| drop(self.peers.insert(peer.name.clone(), peer)))
            }
            Kind::BGPConfiguration if object.name() == "default" => {
                let (spec, refused) = BgpConfigurationSpec::from_object(object);
                self.bgp = spec;
                self.invalid.extend(refused);
                Ok(())
            }
            Kind::IPAMConfig if object.name() == "default" => {
                let (spec, refused) = IpamConfigSpec::from_object(object);
                self.ipam = spec;
                self.invalid.extend(refused);
                Ok(())
            }
            _ => Ok(()),
        };
        self.invalid.extend(added.err());
    }

    fn add_node(&mut self, object: &Object) -> Result<(), Invalid> {
        self.node_objects.insert(object.name().to_owned(), object.clone());
        let (node, refused) = Node::from_object(object)?;
        self.invalid.extend(refused);
        self.nodes.insert(node.name.clone(), node);
        Ok(())
    }

    fn add_pool(&mut self, object: &Object) -> Result<(), Invalid> {
        self.pool_objects.insert(object.name().to_owned(), object.clone());
        let pool = IpPool::from_object(object)?;
        self.without_effect.extend(unsupported::of_pool(object, &pool));
        self.pools.push(pool);
        Ok(())
    }
}

/// Watches the datastore for ever and publishes the cluster after every burst of events.
pub async fn watch(store: Arc<dyn Datastore>, cluster: watch::Sender<Arc<Cluster>>) {
    let mut events = all_watches(&*store);
    let mut fold = Fold::default();
    while let Some(batch) = events.next().await {
        for (kind, event) in batch {
            fold.take(kind, event);
        }
        latest::set(&cluster, Arc::new(fold.cluster()));
    }
}

type Batches = SelectAll<futures::stream::BoxStream<'static, Vec<(Kind, Event)>>>;

/// The watches of all kinds as one stream; what is ready at once comes as one batch.
fn all_watches(store: &dyn Datastore) -> Batches {
    const BATCH: usize = 1024;
    select_all(
        WATCHED.map(|kind| {
            store.watch(kind, Only::All).map(move |event| (kind, event)).ready_chunks(BATCH).boxed()
        }),
    )
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
        let mut fold = Fold::default();
        for kind in WATCHED {
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
        let mut fold = Fold::default();
        for kind in WATCHED {
            assert!(!fold.cluster().in_sync);
            fold.take(kind, Event::Init);
            fold.take(kind, Event::InSync);
        }
        assert!(fold.cluster().in_sync);
    }

    #[test]
    fn a_pool_stays_until_a_new_list_is_whole_and_does_not_name_it() {
        let mut fold = in_sync([(Kind::IPPool, Event::Object(pool("a", "10.0.0.0/16")))]);
        fold.take(Kind::IPPool, Event::Lost("connection refused".into()));
        fold.take(Kind::IPPool, Event::Init);
        fold.take(Kind::IPPool, Event::Object(pool("b", "10.1.0.0/16")));
        assert_eq!(fold.cluster().pools.len(), 2);
        fold.take(Kind::IPPool, Event::InSync);
        let names: Vec<_> = fold.cluster().pools.into_iter().map(|pool| pool.name).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn a_damaged_object_keeps_its_last_word_and_is_reported_beside_the_good_ones() {
        let good = pool("a", "10.0.0.0/16");
        let damage = good.invalid("line 3", "no YAML");
        let fold = in_sync([
            (Kind::IPPool, Event::Object(good)),
            (Kind::IPPool, Event::Object(pool("b", "10.1.0.0/16"))),
            (Kind::IPPool, Event::Invalid(damage.clone())),
        ]);
        assert_eq!(fold.cluster().pools.len(), 2);
        assert_eq!(fold.cluster().invalid, [damage]);
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
    fn a_nodes_wrong_annotation_is_reported_and_the_node_stays() {
        let mut node = Object::new(Kind::Node, "n1", &serde_json::Value::Null);
        node.metadata.annotations.insert(annotation::IPV4_ADDRESS.into(), "nowhere".into());
        let cluster = in_sync([(Kind::Node, Event::Object(node))]).cluster();
        assert_eq!((cluster.nodes.len(), cluster.invalid.len()), (1, 1));
    }
}
