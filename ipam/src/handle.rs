//! IPAMHandles: in which blocks a handle holds addresses. Written before the blocks and corrected after them, so that an
//! address never has a handle that nobody can find; a handle without an address is what a crash leaves behind. A new
//! handle is written beside the blocks if they are its node's own: there the node finds an address without its handle.
//!
//! Whoever takes such a leftover away marks it, rewrites its blocks, and only then deletes it (see [`crate::Collector`]).
//! A writer whose block was rewritten under it therefore reads its handle again before it goes on: [`prepare`] is
//! told to forget what it knew.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError};
use manx_model::{HandleSpec, Kind, Object, check_name};

use crate::affinity::{delete, read_block};
use crate::block::{Block, addresses_of};
use crate::{Error, TRIES};

/// A stored handle.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) object: Object,
    pub(crate) spec: HandleSpec,
}

/// Whether `handle` can be the name of an object, as it must.
pub(crate) fn check(handle: &str) -> Result<(), Error> {
    check_name(handle).map_err(|reason| Error::Handle { handle: handle.to_owned(), reason })
}

/// What became of [`prepare`].
#[derive(Debug)]
pub(crate) enum Prepared {
    /// The handle is stored as it was wanted.
    Ready(Handle),
    /// The handle was there already, and holds addresses of these blocks.
    Holds(Handle, Vec<Block>),
}

/// Records that `handle` is about to hold so many addresses of each block. `known` is its last known version; without one
/// a handle that is there already, and holds something, is left as it is.
pub(crate) async fn prepare(
    store: &dyn Datastore,
    handle: &str,
    mut known: Option<Handle>,
    wanted: &BTreeMap<String, u32>,
) -> Result<Prepared, Error> {
    for _ in 0..TRIES {
        let Some(Handle { object, spec }) = known.take() else {
            if let Some(created) = create(store, handle, wanted).await? {
                return Ok(Prepared::Ready(created));
            }
            let Some(found) = read(store, handle).await? else { continue };
            let blocks = holdings(store, &found.spec).await?;
            if !blocks.is_empty() {
                return Ok(Prepared::Holds(found, blocks));
            }
            known = Some(found);
            continue;
        };
        if spec.block == *wanted {
            return Ok(Prepared::Ready(Handle { object, spec }));
        }
        let spec = HandleSpec { block: wanted.clone(), ..spec };
        match store.update(object.with_spec(&spec)).await {
            Ok(object) => return Ok(Prepared::Ready(Handle { object, spec })),
            Err(StoreError::Conflict { .. } | StoreError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::contention(format!("IPAMHandle {handle}")))
}

/// Stores a new handle; `None` where there is one already.
pub(crate) async fn create(
    store: &dyn Datastore,
    handle: &str,
    wanted: &BTreeMap<String, u32>,
) -> Result<Option<Handle>, Error> {
    match store.create(fresh(handle, wanted)).await {
        Ok(object) => Ok(Some(Handle { spec: object.spec()?, object })),
        Err(StoreError::Exists { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn fresh(handle: &str, blocks: &BTreeMap<String, u32>) -> Object {
    let spec = HandleSpec {
        handle_id: handle.to_owned(),
        block: blocks.clone(),
        deleted: false,
        rest: Default::default(),
    };
    Object::new(Kind::IPAMHandle, handle, &spec)
}

/// The blocks in which the handle holds an address in fact.
pub(crate) async fn holdings(store: &dyn Datastore, handle: &HandleSpec) -> Result<Vec<Block>, Error> {
    let mut holding = Vec::new();
    for cidr in blocks(handle) {
        let found = read_block(store, cidr).await?;
        holding.extend(found.filter(|block| addresses_of(&block.spec, &handle.handle_id).next().is_some()));
    }
    Ok(holding)
}

/// The handle, if there is one. A deletion that somebody has begun is finished first; where the handle turns out to hold
/// something all the same, it is taken back.
pub(crate) async fn read(store: &dyn Datastore, handle: &str) -> Result<Option<Handle>, Error> {
    if check_name(handle).is_err() {
        return Ok(None);
    }
    let Some(object) = store.get(Kind::IPAMHandle, handle).await? else { return Ok(None) };
    let found = Handle { spec: object.spec()?, object };
    if !found.spec.deleted {
        return Ok(Some(found));
    }
    let settled = match holdings(store, &found.spec).await?.is_empty() {
        true => delete(store, &found.object).await.map(|()| None),
        false => mark(store, found, false).await.map(Some),
    };
    match settled {
        Err(error) if error.is_conflict() => Ok(None),
        settled => settled,
    }
}

/// Marks this very version of the handle as deleted, or takes the mark back.
pub(crate) async fn mark(store: &dyn Datastore, handle: Handle, deleted: bool) -> Result<Handle, Error> {
    let Handle { object, mut spec } = handle;
    if spec.deleted == deleted {
        return Ok(Handle { object, spec });
    }
    spec.deleted = deleted;
    let object = store.update(object.with_spec(&spec)).await?;
    Ok(Handle { object, spec })
}

/// Records that `handle` holds nothing in these blocks any more; the last block takes the handle with it. `known` is its
/// last known version, which is tried first. Returns whether the handle is gone; otherwise it names other blocks.
pub(crate) async fn forget(
    store: &dyn Datastore,
    handle: &str,
    mut known: Option<Handle>,
    gone: &BTreeSet<IpNet>,
) -> Result<bool, Error> {
    for _ in 0..TRIES {
        let found = match known.take() {
            Some(known) => known,
            None => match read(store, handle).await? {
                Some(found) => found,
                None => return Ok(true),
            },
        };
        match remove(store, found, gone).await {
            Err(error) if error.is_conflict() => {}
            ended => return ended,
        }
    }
    Err(Error::contention(format!("IPAMHandle {handle}")))
}

/// As [`forget`], but only in this very version of the handle; otherwise a conflict.
async fn remove(store: &dyn Datastore, handle: Handle, gone: &BTreeSet<IpNet>) -> Result<bool, Error> {
    let Handle { object, mut spec } = handle;
    let before = spec.block.len();
    spec.block.retain(|cidr, _| cidr.parse().is_ok_and(|cidr: IpNet| !gone.contains(&cidr)));
    match spec.block.len() {
        0 => delete(store, &object).await.map(|()| true),
        left if left == before => Ok(false),
        _ => Ok(store.update(object.with_spec(&spec)).await.map(|_| false)?),
    }
}

/// The blocks that a handle names; what is no CIDR is left to [`crate::audit()`].
pub(crate) fn blocks(handle: &HandleSpec) -> impl Iterator<Item = IpNet> {
    handle.block.keys().filter_map(|cidr| cidr.parse().ok())
}
