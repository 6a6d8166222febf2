//! Cutting a pool into equal parts (`calicoctl ipam split`): so that racks or tenants can be given their own.
//!
//! The blocks stay as they are and belong to the part that contains them. The pool must be disabled, and its parts are made
//! disabled, so that nobody is given an address by two pools at once; enabling the parts is the operator's next step.
//! Stopped anywhere it can be repeated: the parts that are there already are left alone, the pool is deleted last.

use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError};
use manx_model::{IpPool, Kind, Object};

use crate::Error;

/// Why a pool cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// As it says.
    #[error("IPPool {pool} cannot be split into {parts}: {reason}")]
    Refused {
        /// The pool.
        pool: String,
        /// The number of parts.
        parts: u32,
        /// Why not, and what to do.
        reason: String,
    },
    /// The pool cannot be read, or the datastore failed.
    #[error(transparent)]
    Ipam(#[from] Error),
}

/// The IPPools into which `pool` would be split: as it, but for their names (`split-<pool>-<n>`) and CIDRs.
///
/// # Errors
/// [`SplitError::Refused`]: `parts` is no power of two or less than 2, the parts would be smaller than a block, the pool
/// is not disabled, the names would be too long.
pub fn plan_split(pool: &Object, parts: u32) -> Result<Vec<Object>, SplitError> {
    let name = pool.name();
    let refused = |reason: String| Err(SplitError::Refused { pool: name.to_owned(), parts, reason });
    let read = IpPool::from_object(pool).map_err(Error::from)?;
    if parts < 2 || !parts.is_power_of_two() {
        return refused("the number of parts must be 2, 4, 8, …".into());
    }
    if !read.disabled {
        return refused("set disabled: true first, and false on the parts afterwards".into());
    }
    let length = u32::from(read.cidr.prefix_len()) + parts.ilog2();
    let length = match u8::try_from(length) {
        Ok(length) if length <= read.block_size => length,
        _ => return refused(format!("a part would be smaller than one block (/{})", read.block_size)),
    };
    let subnets = match read.cidr.subnets(length) {
        Ok(subnets) => subnets,
        Err(error) => return refused(error.to_string()),
    };
    let objects: Vec<Object> = subnets.enumerate().map(|(n, cidr)| part(pool, n, cidr)).collect();
    for object in &objects {
        if let Err(reason) = manx_model::check_name(object.name()) {
            return refused(reason);
        }
    }
    Ok(objects)
}

fn part(pool: &Object, number: usize, cidr: IpNet) -> Object {
    let mut object = Object::new(Kind::IPPool, format!("split-{}-{number}", pool.name()), &pool.spec);
    object.spec["cidr"] = cidr.to_string().into();
    object.metadata.labels = pool.metadata.labels.clone();
    object
}

/// Splits the pool `name`, and returns the names of its parts.
///
/// # Errors
/// As [`plan_split`]; when a pool of a part's name has another CIDR; [`Error::Datastore`]. It can be repeated.
pub async fn split(store: &dyn Datastore, name: &str, parts: u32) -> Result<Vec<String>, SplitError> {
    let refused = |reason: String| SplitError::Refused { pool: name.to_owned(), parts, reason };
    let found = store.get(Kind::IPPool, name).await.map_err(Error::from)?;
    let pool = found.ok_or_else(|| refused("there is no such IPPool".into()))?;
    let planned = plan_split(&pool, parts)?;
    let names = planned.iter().map(|part| part.name().to_owned()).collect();
    for part in planned {
        match store.create(part.clone()).await {
            Ok(_) => {}
            Err(StoreError::Exists { .. }) => {
                let stored = store.get(Kind::IPPool, part.name()).await.map_err(Error::from)?;
                if stored.is_some_and(|stored| stored.spec["cidr"] != part.spec["cidr"]) {
                    let reason = format!("IPPool {} is there already, with another cidr", part.name());
                    return Err(refused(reason));
                }
            }
            Err(error) => return Err(Error::from(error).into()),
        }
    }
    store.delete(&pool).await.map_err(Error::from)?;
    Ok(names)
}
