//! IPAMHandles: in which blocks a handle holds addresses. Written before the block and corrected after it, so that an
//! address never has a handle that nobody can find; a handle without an address is what a crash leaves behind.

use std::net::IpAddr;

use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError};
use manx_model::{HandleSpec, Kind, Object, check_name};

use crate::affinity::{delete_in_two_steps, read_block};
use crate::block::addresses_of;
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

/// Records that `handle` is about to hold an address of `block`. `Some` when it holds one already, anywhere.
pub(crate) async fn prepare(
    store: &dyn Datastore,
    handle: &str,
    block: IpNet,
) -> Result<Option<(IpAddr, IpNet)>, Error> {
    let wanted = HandleSpec {
        handle_id: handle.to_owned(),
        block: [(block.to_string(), 1)].into(),
        deleted: false,
        rest: Default::default(),
    };
    for _ in 0..TRIES {
        match store.create(Object::new(Kind::IPAMHandle, handle, &wanted)).await {
            Ok(_) => return Ok(None),
            Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(found) = read(store, handle).await? else { continue };
        if let Some(address) = address_of(store, &found.spec).await? {
            return Ok(Some(address));
        }
        if found.spec.block == wanted.block {
            return Ok(None);
        }
        let spec = HandleSpec { block: wanted.block.clone(), ..found.spec };
        match store.update(found.object.with_spec(&spec)).await {
            Ok(_) => return Ok(None),
            Err(StoreError::Conflict { .. } | StoreError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::contention(format!("IPAMHandle {handle}")))
}

/// The address that `handle` holds, in whichever block.
pub(crate) async fn find(store: &dyn Datastore, handle: &str) -> Result<Option<(IpAddr, IpNet)>, Error> {
    match read(store, handle).await? {
        Some(found) => address_of(store, &found.spec).await,
        None => Ok(None),
    }
}

/// Where the handle holds an address in fact.
async fn address_of(store: &dyn Datastore, handle: &HandleSpec) -> Result<Option<(IpAddr, IpNet)>, Error> {
    for cidr in blocks(handle) {
        let found = read_block(store, cidr).await?;
        let address = found.and_then(|block| addresses_of(&block.spec, &handle.handle_id).next());
        if let Some((_, address)) = address {
            return Ok(Some((address, cidr)));
        }
    }
    Ok(None)
}

/// The handle, if there is one. A deletion that somebody has begun is finished first.
pub(crate) async fn read(store: &dyn Datastore, handle: &str) -> Result<Option<Handle>, Error> {
    if check_name(handle).is_err() {
        return Ok(None);
    }
    let Some(object) = store.get(Kind::IPAMHandle, handle).await? else { return Ok(None) };
    let spec: HandleSpec = object.spec()?;
    if spec.deleted {
        match delete_in_two_steps(store, object, true).await {
            Err(error) if !error.is_conflict() => return Err(error),
            _ => return Ok(None),
        }
    }
    Ok(Some(Handle { object, spec }))
}

/// Records that `handle` holds nothing in `block` any more; the last block takes the handle with it.
pub(crate) async fn forget(store: &dyn Datastore, handle: &str, block: IpNet) -> Result<(), Error> {
    for _ in 0..TRIES {
        let Some(found) = read(store, handle).await? else { return Ok(()) };
        match remove(store, found, block).await {
            Err(error) if error.is_conflict() => {}
            ended => return ended,
        }
    }
    Err(Error::contention(format!("IPAMHandle {handle}")))
}

/// As [`forget`], but only in this very version of the handle; otherwise a conflict.
pub(crate) async fn remove(store: &dyn Datastore, handle: Handle, block: IpNet) -> Result<(), Error> {
    let Handle { object, mut spec } = handle;
    if spec.block.remove(&block.to_string()).is_none() && !spec.block.is_empty() {
        return Ok(());
    }
    if !spec.block.is_empty() {
        store.update(object.with_spec(&spec)).await?;
        return Ok(());
    }
    spec.deleted = true;
    delete_in_two_steps(store, object.with_spec(&spec), false).await
}

/// The blocks that a handle names; what is no CIDR is left to [`crate::audit()`].
pub(crate) fn blocks(handle: &HandleSpec) -> impl Iterator<Item = IpNet> {
    handle.block.keys().filter_map(|cidr| cidr.parse().ok())
}
