//! Everything that a whole cluster holds of addresses, as of one moment: what the collector and `manx ipam` judge by.

use std::collections::{BTreeMap, BTreeSet};

use manx_datastore::{Datastore, Error, Listed, Only};
use manx_ipam::{Observed, PodState};
use manx_model::{Invalid, IpPool, IpamConfigSpec, Kind, Node, NodeName, Object, Pod};

/// One look at everything. Objects that cannot be read are left out and named.
#[derive(Debug, Default)]
pub struct Census {
    blocks: Vec<Object>,
    affinities: Vec<Object>,
    handles: Vec<Object>,
    nodes: BTreeSet<NodeName>,
    blockless: BTreeSet<NodeName>,
    pods: BTreeMap<(String, String), PodState>,
    /// The pools that can be used.
    pub pools: Vec<IpPool>,
    /// What cannot be read.
    pub unreadable: Vec<Invalid>,
}

impl Census {
    /// Lists everything. What holds addresses comes first and pods last: a pod that is missing was not there after its
    /// address was given out.
    ///
    /// # Errors
    /// The datastore's.
    pub async fn take(store: &dyn Datastore) -> Result<Self, Error> {
        let mut census = Self::default();
        census.blocks = census.readable(store.list(Kind::IPAMBlock, &Only::All).await?);
        census.affinities = census.readable(store.list(Kind::BlockAffinity, &Only::All).await?);
        census.handles = census.readable(store.list(Kind::IPAMHandle, &Only::All).await?);
        let pools = census.readable(store.list(Kind::IPPool, &Only::All).await?);
        census.pools = pools.iter().filter_map(|pool| IpPool::from_object(pool).ok()).collect();
        let nodes = census.readable(store.list(Kind::Node, &Only::All).await?);
        let nodes: Vec<Node> =
            nodes.iter().filter_map(|node| Node::from_object(node).ok()).map(|(node, _)| node).collect();
        let blockless = nodes.iter().filter(|node| !node.pod_cidrs_in_use.is_empty());
        census.blockless = blockless.map(|node| node.name.clone()).collect();
        census.nodes = nodes.into_iter().map(|node| node.name).collect();
        let pods = census.readable(store.list(Kind::Pod, &Only::All).await?);
        census.pods = pods.iter().map(state).collect();
        Ok(census)
    }

    /// What is to be judged.
    pub fn observed(&self) -> Observed<'_> {
        Observed {
            blocks: &self.blocks,
            affinities: &self.affinities,
            handles: &self.handles,
            nodes: &self.nodes,
            blockless: &self.blockless,
            pods: &self.pods,
            pools: &self.pools,
        }
    }

    /// The IPAMBlocks.
    pub fn blocks(&self) -> &[Object] {
        &self.blocks
    }

    fn readable(&mut self, listed: Vec<Listed>) -> Vec<Object> {
        let (objects, unreadable): (Vec<_>, Vec<_>) = listed.into_iter().partition(Result::is_ok);
        self.unreadable.extend(unreadable.into_iter().filter_map(Result::err));
        objects.into_iter().flatten().collect()
    }
}

/// The IPAMConfig, for who does not watch it.
///
/// # Errors
/// The datastore's.
pub async fn ipam_config(store: &dyn Datastore) -> Result<IpamConfigSpec, Error> {
    let stored = store.get(Kind::IPAMConfig, "default").await?;
    Ok(stored.map(|object| IpamConfigSpec::from_object(&object).0).unwrap_or_default())
}

/// What a Pod object says about its addresses.
fn state(object: &Object) -> ((String, String), PodState) {
    let pod = Pod::from_object(object);
    let node = object.spec["nodeName"].as_str().filter(|node| !node.is_empty()).map(str::to_owned);
    let state = PodState { node, addresses: pod.addresses, finished: pod.finished };
    ((pod.namespace, pod.name), state)
}

/// Whether the pod that an allocation names is really gone now, or does not have these addresses.
///
/// # Errors
/// The datastore's: then nothing is known.
pub async fn is_gone(
    store: &dyn Datastore,
    (namespace, name): &(String, String),
    addresses: &[std::net::IpAddr],
) -> Result<bool, Error> {
    let Some(object) = store.get(Kind::Pod, &format!("{namespace}/{name}")).await? else { return Ok(true) };
    let (_, state) = state(&object);
    Ok(state.finished || addresses.iter().all(|address| !state.addresses.contains(address)))
}
