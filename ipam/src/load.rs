//! Learning what this node owns, at start and whenever a claim did not come to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError, Only};
use manx_model::{AffinitySpec, AffinityState, Invalid, Kind};

use crate::affinity::{Claimant, Mended};
use crate::block::Block;
use crate::{Allocator, Error, LoadReport};

impl Allocator {
    /// Reads this node's affinities and blocks, and finishes or rolls back what an earlier run left half done. Two lists,
    /// and calls only for what needs mending. It can be repeated at any time.
    ///
    /// # Errors
    /// [`Error::Datastore`] when a list or a repair fails; nothing is forgotten then, and the next call tries again.
    pub async fn load(&mut self, store: &dyn Datastore, now: SystemTime) -> Result<LoadReport, Error> {
        self.loaded = false;
        let mut report = LoadReport::default();
        let affinities = self.own_affinities(store, &mut report.refused).await?;
        let mut blocks = self.own_blocks(store, &mut report.refused).await?;
        let concerned: BTreeSet<IpNet> = affinities.keys().chain(blocks.keys()).copied().collect();
        self.unreadable.clear();
        self.blocks.retain(|cidr, _| concerned.contains(cidr));
        for cidr in concerned {
            let (affinity, block) = (affinities.get(&cidr), blocks.remove(&cidr));
            let settled = affinity == Some(&Affinity { confirmed: true, labelled: true });
            let mended = match block {
                Some(block) if settled => Mended::Ours(Box::new(block)),
                _ => self.mend(store, now, cidr).await?,
            };
            let confirmed = affinity.is_some_and(|affinity| affinity.confirmed);
            self.take_in(cidr, confirmed, mended, &mut report);
        }
        self.loaded = true;
        Ok(report)
    }

    fn take_in(&mut self, cidr: IpNet, was_confirmed: bool, mended: Mended, report: &mut LoadReport) {
        self.blocks.remove(&cidr);
        match mended {
            Mended::Ours(block) => {
                self.blocks.insert(cidr, *block);
                report.confirmed.push(cidr);
                if !was_confirmed {
                    report.finished.push(cidr);
                }
            }
            Mended::Nothing => report.given_up.push(cidr),
            Mended::Unreadable(invalid) => {
                if was_confirmed {
                    self.unreadable.insert(cidr);
                    report.confirmed.push(cidr);
                }
                if !report.refused.contains(&invalid) {
                    report.refused.push(invalid);
                }
            }
        }
    }

    /// [`Claimant::mend`]; an affinity of ours that cannot be read is left as it is, too.
    pub(crate) async fn mend(
        &self,
        store: &dyn Datastore,
        now: SystemTime,
        cidr: IpNet,
    ) -> Result<Mended, Error> {
        match (Claimant { store, node: &self.node, now }).mend(cidr).await {
            Err(Error::Datastore(StoreError::Invalid(invalid))) => Ok(Mended::Unreadable(invalid)),
            mended => mended,
        }
    }

    /// Loads, if that has not been done or was undone by a claim that did not come to its end.
    pub(crate) async fn ensure_loaded(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
    ) -> Result<(), Error> {
        if !self.loaded {
            self.load(store, now).await?;
        }
        Ok(())
    }

    async fn own_affinities(
        &self,
        store: &dyn Datastore,
        refused: &mut Vec<Invalid>,
    ) -> Result<BTreeMap<IpNet, Affinity>, Error> {
        let mut own = BTreeMap::new();
        for listed in store.list(Kind::BlockAffinity, &Only::All).await? {
            let read = listed.and_then(|object| Ok((object.spec::<AffinitySpec>()?, object)));
            match read {
                Ok((spec, object)) if spec.node == self.node && spec.kind.as_deref() != Some("virtual") => {
                    let confirmed = spec.state == AffinityState::Confirmed && spec.deleted != "true";
                    let labelled = object.metadata.labels.contains_key("projectcalico.org/hostname-hash");
                    own.insert(spec.cidr, Affinity { confirmed, labelled });
                }
                Ok(_) => {}
                Err(invalid) => refused.push(invalid),
            }
        }
        Ok(own)
    }

    async fn own_blocks(
        &self,
        store: &dyn Datastore,
        refused: &mut Vec<Invalid>,
    ) -> Result<BTreeMap<IpNet, Block>, Error> {
        let claimant = Claimant { store, node: &self.node, now: SystemTime::UNIX_EPOCH };
        let mut own = BTreeMap::new();
        for listed in store.list(Kind::IPAMBlock, &Only::All).await? {
            match listed.and_then(Block::read) {
                Ok(Some(block)) if claimant.owns(&block) => {
                    own.insert(block.spec.cidr, block);
                }
                Ok(_) => {}
                Err(invalid) => refused.push(invalid),
            }
        }
        Ok(own)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Affinity {
    confirmed: bool,
    labelled: bool,
}
