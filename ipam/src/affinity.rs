//! Claiming and giving up blocks: pending, then the block, then confirmed; pendingDeletion, the block, gone.
//!
//! Two nodes may reach for one block. The block's own `affinity` decides, since only one can create it; a BlockAffinity
//! is a node's word about what it wants, and only a confirmed one may influence routing. Whatever point a claim or a
//! release was stopped at, [`Claimant::mend`] goes on from what is stored.

use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError};
use manx_model::{
    AffinitySpec, AffinityState, Invalid, Kind, NodeName, Object, affinity_labels, affinity_name, cidr_name,
};
use std::time::SystemTime;

use crate::block::{self, Block, owner, without_spec};
use crate::error::is_race;
use crate::{Error, TRIES};

/// What [`Claimant::mend`] found, and left behind.
#[derive(Debug)]
pub(crate) enum Mended {
    /// The block is ours, confirmed.
    Ours(Box<Block>),
    /// The claim was given up, or there was none.
    Nothing,
    /// The block cannot be read: the affinity stays as it is.
    Unreadable(Invalid),
}

/// One node's dealings with one block.
#[derive(Clone, Copy)]
pub(crate) struct Claimant<'a> {
    pub(crate) store: &'a dyn Datastore,
    pub(crate) node: &'a NodeName,
    pub(crate) now: SystemTime,
}

impl Claimant<'_> {
    /// Claims `cidr`, wherever an earlier claim of ours was stopped. `None` when the block is another's or cannot be
    /// read; our affinity for it is gone then.
    pub(crate) async fn claim(self, cidr: IpNet) -> Result<Option<Block>, Error> {
        for _ in 0..TRIES {
            match self.try_claim(cidr).await {
                Err(error) if error.is_conflict() => {}
                ended => return ended,
            }
        }
        Err(Error::contention(format!("the claim of block {cidr} by node {}", self.node)))
    }

    async fn try_claim(self, cidr: IpNet) -> Result<Option<Block>, Error> {
        let affinity = self.pending(cidr).await?;
        let block = match self.store.create(block::fresh(cidr, self.node, self.now)).await {
            Ok(object) => Block::read(object)?,
            Err(StoreError::Exists { .. }) => match self.read_block(cidr).await {
                Ok(Some(found)) if self.owns(&found) => Some(bump(self.store, found).await?),
                Ok(None) => return Err(gone(cidr)),
                Ok(Some(_)) | Err(Error::Datastore(StoreError::Invalid(_))) => {
                    delete(self.store, &affinity).await?;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error.into()),
        };
        self.set_state(affinity, AffinityState::Confirmed).await?;
        block.map(Some).ok_or_else(|| gone(cidr))
    }

    /// Makes our affinity for `cidr` pending, whether there is one or not.
    async fn pending(self, cidr: IpNet) -> Result<Object, Error> {
        match self.store.create(self.affinity(cidr)).await {
            Err(StoreError::Exists { .. }) => {}
            created => return Ok(created?),
        }
        let found = self.store.get(Kind::BlockAffinity, &affinity_name(self.node, cidr)).await?;
        let Some(found) = found else { return Err(gone(cidr)) };
        let spec: AffinitySpec = found.spec()?;
        if spec.deleted == "true" {
            delete(self.store, &found).await?;
            return Err(gone(cidr));
        }
        match spec.state {
            AffinityState::Pending => Ok(found),
            _ => self.set_state(found, AffinityState::Pending).await,
        }
    }

    /// Looks at what is stored about `cidr`, and finishes or rolls back what was left half done.
    pub(crate) async fn mend(self, cidr: IpNet) -> Result<Mended, Error> {
        for _ in 0..TRIES {
            match self.try_mend(cidr).await {
                Err(error) if error.is_conflict() => {}
                ended => return ended,
            }
        }
        Err(Error::contention(format!("the affinity of node {} for block {cidr}", self.node)))
    }

    async fn try_mend(self, cidr: IpNet) -> Result<Mended, Error> {
        let affinity = self.store.get(Kind::BlockAffinity, &affinity_name(self.node, cidr)).await?;
        let found = match self.read_block(cidr).await {
            Err(Error::Datastore(StoreError::Invalid(invalid))) => return Ok(Mended::Unreadable(invalid)),
            found => found?,
        };
        let ours = found.filter(|block| self.owns(block));
        let Some(affinity) = affinity else {
            // A block that names us and has lost its affinity is still ours: pods may live in it.
            return if ours.is_some() { self.take_up(cidr).await } else { Ok(Mended::Nothing) };
        };
        let spec: AffinitySpec = affinity.spec()?;
        match (spec.state, ours) {
            (_, ours) if spec.deleted == "true" => match (self.give_up(affinity).await, ours) {
                (Ok(_), Some(_)) => self.take_up(cidr).await,
                (given_up, _) => given_up,
            },
            (AffinityState::Confirmed, Some(block)) => {
                self.stamp_labels(affinity).await?;
                Ok(Mended::Ours(Box::new(block)))
            }
            (AffinityState::Pending, Some(_)) => self.take_up(cidr).await,
            (AffinityState::Confirmed, None) if self.exists(cidr).await? => self.give_up(affinity).await,
            (AffinityState::Confirmed, None) => self.take_up(cidr).await,
            (AffinityState::PendingDeletion, Some(block)) if block::is_empty(&block.spec) => {
                delete(self.store, &block.object).await?;
                self.give_up(affinity).await
            }
            // Whoever wanted the block for its being empty was too late.
            (AffinityState::PendingDeletion, Some(_)) => self.take_up(cidr).await,
            (AffinityState::Pending | AffinityState::PendingDeletion, None) => self.give_up(affinity).await,
        }
    }

    async fn take_up(self, cidr: IpNet) -> Result<Mended, Error> {
        Ok(match self.claim(cidr).await? {
            Some(block) => Mended::Ours(Box::new(block)),
            None => Mended::Nothing,
        })
    }

    async fn give_up(self, affinity: Object) -> Result<Mended, Error> {
        delete(self.store, &affinity).await?;
        Ok(Mended::Nothing)
    }

    async fn exists(self, cidr: IpNet) -> Result<bool, Error> {
        Ok(self.read_block(cidr).await?.is_some())
    }

    /// Gives up our empty block, which is then nobody's and gone; `false` when it is not ours, in use, or not at the
    /// sequence number that `only` says. Stopped anywhere, [`Self::mend`] goes on.
    pub(crate) async fn release(self, cidr: IpNet, only: Option<u64>) -> Result<bool, Error> {
        let affinity = self.store.get(Kind::BlockAffinity, &affinity_name(self.node, cidr)).await?;
        let block = match self.read_block(cidr).await? {
            Some(block) if self.owns(&block) && block::is_empty(&block.spec) => block,
            _ => return Ok(false),
        };
        let Some(affinity) = affinity else { return Ok(false) };
        let spec: AffinitySpec = affinity.spec()?;
        if spec.deleted == "true" || only.is_some_and(|only| only != block.spec.sequence_number) {
            return Ok(false);
        }
        let affinity = match self.set_state(affinity, AffinityState::PendingDeletion).await {
            Ok(affinity) => affinity,
            Err(error) if error.is_conflict() => return Ok(false),
            Err(error) => return Err(error),
        };
        match delete(self.store, &block.object).await {
            Ok(()) => {}
            Err(error) if error.is_conflict() => {
                // Somebody was given an address meanwhile. Who wrote the affinity since knows better.
                return match self.set_state(affinity, AffinityState::Confirmed).await {
                    Err(error) if !error.is_conflict() => Err(error),
                    _ => Ok(false),
                };
            }
            Err(error) => return Err(error),
        }
        match delete(self.store, &affinity).await {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(true),
        }
    }

    pub(crate) fn owns(self, block: &Block) -> bool {
        block.spec.affinity.as_deref() == Some(&owner(self.node))
    }

    async fn read_block(self, cidr: IpNet) -> Result<Option<Block>, Error> {
        read_block(self.store, cidr).await
    }

    fn affinity(self, cidr: IpNet) -> Object {
        let spec = AffinitySpec {
            state: AffinityState::Pending,
            node: self.node.clone(),
            kind: Some("host".into()),
            cidr,
            deleted: "false".into(),
            rest: Default::default(),
        };
        let mut object = Object::new(Kind::BlockAffinity, affinity_name(self.node, cidr), &spec);
        object.metadata.labels = affinity_labels(self.node, cidr);
        object
    }

    async fn set_state(self, affinity: Object, state: AffinityState) -> Result<Object, Error> {
        let mut spec: AffinitySpec = affinity.spec()?;
        spec.state = state;
        let mut affinity = affinity.with_spec(&spec);
        affinity.metadata.labels.extend(affinity_labels(self.node, spec.cidr));
        Ok(self.store.update(affinity).await?)
    }

    /// Affinities of before Calico 3.31 have no labels, and a newer Calico node does not see those.
    async fn stamp_labels(self, mut affinity: Object) -> Result<(), Error> {
        let spec: AffinitySpec = affinity.spec()?;
        let before = affinity.metadata.labels.clone();
        affinity.metadata.labels.extend(affinity_labels(self.node, spec.cidr));
        if affinity.metadata.labels != before {
            self.store.update(affinity).await?;
        }
        Ok(())
    }
}

/// The block `cidr`, if there is one. A deletion that somebody has begun is finished first.
pub(crate) async fn read_block(store: &dyn Datastore, cidr: IpNet) -> Result<Option<Block>, Error> {
    let Some(object) = store.get(Kind::IPAMBlock, &cidr_name(cidr)).await? else { return Ok(None) };
    match Block::read(object.clone())? {
        Some(block) => Ok(Some(block)),
        None => match store.delete(&object).await {
            Err(error) if !is_race(&error) => Err(error.into()),
            _ => Ok(None),
        },
    }
}

/// Writes the block with its next sequence number.
pub(crate) async fn bump(store: &dyn Datastore, mut block: Block) -> Result<Block, Error> {
    block.spec.sequence_number += 1;
    let object = store.update(block.object.with_spec(&block.spec)).await?;
    Ok(Block { object: without_spec(object), spec: block.spec })
}

/// Deletes exactly this version. What somebody else deleted is deleted.
pub(crate) async fn delete(store: &dyn Datastore, object: &Object) -> Result<(), Error> {
    match store.delete(object).await {
        Ok(()) | Err(StoreError::Gone { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn gone(cidr: IpNet) -> Error {
    StoreError::Gone { kind: Kind::IPAMBlock, name: cidr_name(cidr) }.into()
}
