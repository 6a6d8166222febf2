use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use manx_datastore::testing::{Faults, Faulty};
use manx_datastore::{Datastore, Memory, Only};
use manx_model::{
    AffinitySpec, AffinityState, AllocationAttribute, BlockSpec, HandleSpec, IpPool, IpPoolSpec,
    IpamConfigSpec, Kind, NodeName, Object,
};

use super::*;

mod ahead;
mod away;
mod collecting;
mod crashes;
mod dual;
mod errors;
mod operator;
mod protocol;
mod races;
mod requests;
mod reserve;
mod sharing;

type Store = Faulty<Memory>;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_793_487_600)
}

fn store() -> Store {
    Faulty::new(Memory::new(), 0, Faults::default())
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn pool(name: &str, cidr: &str, block_size: u8) -> IpPool {
    let spec = IpPoolSpec { cidr: cidr.into(), block_size: Some(block_size), ..IpPoolSpec::default() };
    IpPool::from_object(&Object::new(Kind::IPPool, name, &spec)).unwrap()
}

fn request(node: &str, handle: impl ToString) -> AssignRequest {
    let attributes = [("node".to_owned(), node.to_owned()), ("pod".to_owned(), handle.to_string())].into();
    AssignRequest::ipv4(handle.to_string(), attributes)
}

fn requests(node: &str, count: usize) -> Vec<AssignRequest> {
    (0..count).map(|n| request(node, format!("{node}.{n}"))).collect()
}

/// The rules of a cluster without labels and reservations.
fn rules<'a>(pools: &'a [IpPool], config: &'a IpamConfigSpec) -> Rules<'a> {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    Rules { pools, reserved: &[], config, node_labels: &NO_LABELS }
}

type Answers = Vec<Result<Vec<Assigned>, Error>>;

/// Assigns with the usual configuration.
fn try_assign(
    allocator: &mut Allocator,
    store: &Store,
    pools: &[IpPool],
    requests: &[AssignRequest],
) -> Answers {
    block_on(allocator.assign(store, now(), rules(pools, &IpamConfigSpec::default()), requests))
}

/// As [`try_assign`]; every request must succeed.
fn assign(
    allocator: &mut Allocator,
    store: &Store,
    pools: &[IpPool],
    requests: &[AssignRequest],
) -> Vec<IpAddr> {
    let answers = try_assign(allocator, store, pools, requests);
    answers.into_iter().flat_map(|answer| answer.unwrap()).map(|assigned| assigned.address).collect()
}

fn load(allocator: &mut Allocator, store: &Store) -> LoadReport {
    block_on(allocator.load(store, now(), &BTreeMap::new())).unwrap()
}

fn release(allocator: &mut Allocator, store: &Store, handle: &str) -> Result<Vec<IpAddr>, Error> {
    let config = IpamConfigSpec::default();
    block_on(allocator.release(store, now(), &config, &[handle.to_owned()])).remove(0)
}

/// What an agent does at its start that knows its handles, and that `keep` says which of them live.
async fn sweep_all_but(
    allocator: &mut Allocator,
    store: &Store,
    keep: impl Fn(&str, &AllocationAttribute) -> bool + Send,
) -> Result<SweepReport, Error> {
    let stored = store.list(Kind::IPAMHandle, &Only::All).await?;
    let known: BTreeMap<String, Vec<IpAddr>> =
        stored.into_iter().map(|handle| (handle.unwrap().name().to_owned(), Vec::new())).collect();
    allocator.load(store, now(), &known).await?;
    let nobody = AllocationAttribute::default();
    let gone = known.into_keys().filter(|handle| !keep(handle, &nobody)).collect();
    allocator.sweep(store, now(), &IpamConfigSpec::default(), &gone, keep).await
}

/// One look of a collector at everything, and what it then does; `None` when the store failed.
async fn collect(
    collector: &mut Collector,
    store: &Store,
    nodes: &[&str],
    pods: &BTreeMap<(String, String), PodState>,
    now: SystemTime,
) -> Option<Vec<Action>> {
    let nodes: BTreeSet<NodeName> = nodes.iter().map(|name| node(name)).collect();
    let mut listed = Vec::new();
    for kind in [Kind::IPAMBlock, Kind::BlockAffinity, Kind::IPAMHandle] {
        let objects = store.list(kind, &Only::All).await.ok()?;
        listed.push(objects.into_iter().map(Result::unwrap).collect::<Vec<_>>());
    }
    let [blocks, affinities, handles] = &listed[..] else { return None };
    let blockless = nodes.iter().filter(|node: &&NodeName| node.as_str().starts_with("blockless"));
    let blockless = blockless.cloned().collect();
    let observed =
        Observed { blocks, affinities, handles, nodes: &nodes, blockless: &blockless, pods, pools: &[] };
    let mut done = Vec::new();
    for action in collector.observe(observed, now) {
        if collector.carry_out(store, now, &IpamConfigSpec::default(), &action).await.ok()? {
            done.push(action);
        }
    }
    Some(done)
}

fn specs<S: serde::de::DeserializeOwned>(store: &Store, kind: Kind) -> Vec<S> {
    let listed = block_on(store.list(kind, &Only::All)).unwrap();
    listed.into_iter().map(|object| object.unwrap().spec().unwrap()).collect()
}

fn findings(store: &Store) -> Vec<Finding> {
    let blocks: Vec<BlockSpec> = specs(store, Kind::IPAMBlock);
    let affinities: Vec<AffinitySpec> = specs(store, Kind::BlockAffinity);
    audit(&blocks, &affinities, &specs::<HandleSpec>(store, Kind::IPAMHandle))
}

/// Who holds which address, by what is stored.
fn holders(store: &Store) -> BTreeMap<String, Vec<IpAddr>> {
    let mut holders: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for block in specs::<BlockSpec>(store, Kind::IPAMBlock) {
        for (_, address, attribute) in block::held(&block) {
            holders.entry(block::handle_of(attribute).unwrap().to_owned()).or_default().push(address);
        }
    }
    holders
}

/// A handle that says that it holds one address of `block`.
fn handle(name: &str, block: &str) -> Object {
    let spec = HandleSpec {
        handle_id: name.into(),
        block: [(block.to_owned(), 1)].into(),
        deleted: false,
        rest: Default::default(),
    };
    Object::new(Kind::IPAMHandle, name, &spec)
}

fn put(store: &Store, object: Object) {
    block_on(store.create(object)).unwrap();
}

fn edit<S: serde::de::DeserializeOwned + serde::Serialize>(
    store: &Store,
    kind: Kind,
    name: &str,
    change: impl FnOnce(&mut S),
) {
    let object = block_on(store.get(kind, name)).unwrap().unwrap();
    let mut spec: S = object.spec().unwrap();
    change(&mut spec);
    block_on(store.update(object.with_spec(&spec))).unwrap();
}

fn remove(store: &Store, kind: Kind, name: &str) {
    let object = block_on(store.get(kind, name)).unwrap().unwrap();
    block_on(store.delete(&object)).unwrap();
}
