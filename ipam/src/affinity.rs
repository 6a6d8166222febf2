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

use crate::block::{self, Block, owner};
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
        let object = match self.store.create(block::fresh(cidr, self.node, self.now)).await {
            Ok(object) => object,
            Err(StoreError::Exists { .. }) => match self.read_block(cidr).await {
                Ok(Some(found)) if self.owns(&found) => bump(self.store, found).await?.object,
                Ok(None) => return Err(gone(cidr)),
                Ok(Some(_)) | Err(Error::Datastore(StoreError::Invalid(_))) => {
                    self.delete_affinity(affinity).await?;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error.into()),
        };
        self.set_state(affinity, AffinityState::Confirmed).await?;
        match Block::read(object)? {
            Some(block) => Ok(Some(block)),
            None => Err(gone(cidr)),
        }
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
            self.delete_affinity(found).await?;
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
            _ if spec.deleted == "true" => self.give_up(affinity).await,
            (AffinityState::Confirmed, Some(block)) => {
                self.stamp_labels(affinity).await?;
                Ok(Mended::Ours(Box::new(block)))
            }
            (AffinityState::Pending, Some(_)) => self.take_up(cidr).await,
            (AffinityState::Confirmed, None) if self.exists(cidr).await? => self.give_up(affinity).await,
            (AffinityState::Confirmed, None) => self.take_up(cidr).await,
            (AffinityState::PendingDeletion, Some(block)) => {
                self.release_block(block).await?;
                self.give_up(affinity).await
            }
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
        self.delete_affinity(affinity).await?;
        Ok(Mended::Nothing)
    }

    async fn exists(self, cidr: IpNet) -> Result<bool, Error> {
        Ok(self.read_block(cidr).await?.is_some())
    }

    /// The second step of giving up: an empty block goes, a used one loses its owner.
    async fn release_block(self, block: Block) -> Result<(), Error> {
        if block::is_empty(&block.spec) {
            return delete_block(self.store, block.object).await;
        }
        let mut spec = block.spec.clone();
        spec.affinity = None;
        spec.affinity_claim_time = None;
        bump(self.store, Block { spec, ..block }).await?;
        Ok(())
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

    async fn delete_affinity(self, affinity: Object) -> Result<(), Error> {
        let mut spec: AffinitySpec = affinity.spec()?;
        let marked = spec.deleted == "true";
        spec.deleted = "true".into();
        delete_in_two_steps(self.store, affinity.with_spec(&spec), marked).await
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
    Ok(Block { object, spec: block.spec })
}

async fn delete_block(store: &dyn Datastore, object: Object) -> Result<(), Error> {
    let mut spec: manx_model::BlockSpec = object.spec()?;
    spec.deleted = true;
    spec.sequence_number += 1;
    delete_in_two_steps(store, object.with_spec(&spec), false).await
}

/// Writes `marked` (the object with its deleted flag set), unless it is stored like that already, and deletes it. What
/// somebody else deleted is deleted.
pub(crate) async fn delete_in_two_steps(
    store: &dyn Datastore,
    marked: Object,
    already: bool,
) -> Result<(), Error> {
    let deleted = match already {
        true => store.delete(&marked).await,
        false => match store.update(marked).await {
            Ok(stored) => store.delete(&stored).await,
            Err(error) => Err(error),
        },
    };
    match deleted {
        Ok(()) | Err(StoreError::Gone { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn gone(cidr: IpNet) -> Error {
    StoreError::Gone { kind: Kind::IPAMBlock, name: cidr_name(cidr) }.into()
}
