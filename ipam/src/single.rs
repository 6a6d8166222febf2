//! Releasing one address, whoever holds it: for an operator who knows that nobody uses it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use manx_datastore::Datastore;
use manx_model::{IpPool, IpamConfigSpec};

use crate::affinity::{bump, read_block};
use crate::block::{self, Block, addresses_of};
use crate::choose::block_of;
use crate::handle::{self, Prepared};
use crate::view::View;
use crate::{Error, TRIES};

/// Releases `address` and returns the handle that held it (empty where the allocation had none); `None` when nobody did,
/// or when it was not `only` who held it. Its block is read directly where a pool says which it is, else all are listed.
///
/// # Errors
/// [`Error::Datastore`]; it can be repeated.
pub async fn release_address(
    store: &dyn Datastore,
    now: SystemTime,
    config: &IpamConfigSpec,
    pools: &[IpPool],
    address: IpAddr,
    only: Option<&str>,
) -> Result<Option<String>, Error> {
    for _ in 0..TRIES {
        let Some(mut block) = find(store, pools, address).await? else { return Ok(None) };
        let held = block::held(&block.spec).find(|(_, held, _)| *held == address);
        let Some((ordinal, _, attribute)) = held.filter(|(_, _, by)| by.released_at.is_none()) else {
            return Ok(None);
        };
        let handle = block::handle_of(attribute).unwrap_or_default().to_owned();
        if only.is_some_and(|only| only != handle) {
            return Ok(None);
        }
        block::release_ordinals(&mut block.spec, &[ordinal], now, config.ip_cooldown_seconds);
        match bump(store, block).await {
            Ok(written) => return correct(store, &handle, &written).await.map(|()| Some(handle)),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::contention(format!("the block of {address}")))
}

async fn find(store: &dyn Datastore, pools: &[IpPool], address: IpAddr) -> Result<Option<Block>, Error> {
    let pool = pools.iter().find(|pool| pool.contains(address));
    if let Some(pool) = pool
        && let Some(block) = read_block(store, block_of(pool, address)).await?
    {
        return Ok(Some(block));
    }
    Ok(View::read(store).await?.containing(address).cloned())
}

/// What the handle says about the block from now on.
async fn correct(store: &dyn Datastore, name: &str, block: &Block) -> Result<(), Error> {
    let cidr = block.spec.cidr;
    let left = addresses_of(&block.spec, name).count();
    if left == 0 {
        return handle::forget(store, name, None, &[cidr].into()).await.map(drop);
    }
    let Some(stored) = handle::read(store, name).await? else { return Ok(()) };
    let mut blocks: BTreeMap<String, u32> = stored.spec.block.clone();
    blocks.insert(cidr.to_string(), left as u32);
    match handle::prepare(store, name, Some(stored), &blocks).await? {
        Prepared::Ready(_) | Prepared::Holds(..) => Ok(()),
    }
}
