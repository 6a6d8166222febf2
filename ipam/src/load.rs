//! Learning what this node owns, at start and whenever a claim did not come to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use futures::future::join_all;
use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError, Only};
use manx_model::{AffinitySpec, AffinityState, Invalid, Kind};

use crate::affinity::{Claimant, Mended, read_block};
use crate::block::{Block, owner};
use crate::handle;
use crate::{Allocator, Error, LoadReport};

impl Allocator {
    /// Reads this node's affinities and blocks, and finishes or rolls back what an earlier run left half done: one list (of
    /// this node's affinities), one read of each of its blocks, and calls for what needs mending. Borrowed addresses are
    /// found by `handles`, which the caller knows of (from the kernel) with their addresses, as far as it knows these: two
    /// reads for each of which something is not found in this node's own blocks. It can be repeated at any time.
    ///
    /// A handle that cannot be read since the datastore is away is passed over.
    ///
    /// # Errors
    /// [`Error::Datastore`] when a read or a repair fails; the next call tries again.
    pub async fn load(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        handles: &BTreeMap<String, Vec<IpAddr>>,
    ) -> Result<LoadReport, Error> {
        self.loaded = false;
        let mut report = LoadReport::default();
        let affinities = self.own_affinities(store, &mut report.refused).await?;
        self.unreadable.clear();
        self.blocks.retain(|cidr, _| affinities.contains_key(cidr));
        let settled = |cidr: &&IpNet| affinities[*cidr] == Affinity { confirmed: true, labelled: true };
        let reads = affinities.keys().filter(settled).map(|cidr| read_block(store, *cidr));
        let mut read: BTreeMap<IpNet, Result<Option<Block>, Error>> =
            affinities.keys().filter(settled).copied().zip(join_all(reads).await).collect();
        for (cidr, affinity) in &affinities {
            let mended = match read.remove(cidr) {
                Some(Ok(Some(block))) if self.owns(&block) => Mended::Ours(Box::new(block)),
                Some(Err(Error::Datastore(StoreError::Invalid(invalid)))) => Mended::Unreadable(invalid),
                Some(Err(error)) => return Err(error),
                _ => self.mend(store, now, *cidr).await?,
            };
            self.take_in_mended(*cidr, affinity.confirmed, mended, &mut report);
        }
        self.load_foreign(store, now, handles, &mut report).await?;
        self.loaded = true;
        Ok(report)
    }

    /// The blocks of others in which this node holds something. One that names us as its owner has lost its affinity, which
    /// is mended.
    async fn load_foreign(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        handles: &BTreeMap<String, Vec<IpAddr>>,
        report: &mut LoadReport,
    ) -> Result<(), Error> {
        let mut cidrs: BTreeSet<IpNet> = self.foreign.keys().copied().collect();
        let sought: Vec<&String> = handles
            .iter()
            .filter(|(handle, known)| !self.holds_all(handle, known))
            .map(|(handle, _)| handle)
            .collect();
        for stored in join_all(sought.iter().map(|handle| handle::read(store, handle))).await {
            match stored {
                Ok(stored) => cidrs.extend(stored.iter().flat_map(|stored| handle::blocks(&stored.spec))),
                Err(Error::Datastore(StoreError::Invalid(invalid))) => report.refused.push(invalid),
                // An agent that starts during an outage goes by what is remembered, and a container that came during it
                // is nowhere: the kernel's word counts until the datastore is back ([`Allocator::promise`]).
                Err(error) if error.is_unavailable() => {}
                Err(error) => return Err(error),
            }
        }
        cidrs.retain(|cidr| !self.blocks.contains_key(cidr) && !self.unreadable.contains(cidr));
        for cidr in cidrs {
            match read_block(store, cidr).await {
                Ok(Some(block)) if self.owns(&block) => {
                    let mended = self.mend(store, now, cidr).await?;
                    self.take_in_mended(cidr, false, mended, report);
                }
                Ok(Some(block)) => self.remember(block),
                Ok(None) => self.forget_block(cidr),
                Err(Error::Datastore(StoreError::Invalid(invalid))) => report.refused.push(invalid),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether `handle` holds these addresses in our own blocks; without any, whether it holds something there.
    fn holds_all(&self, handle: &str, known: &[IpAddr]) -> bool {
        let held = self.held_by(handle);
        !held.is_empty() && known.iter().all(|known| held.iter().any(|held| held.address == *known))
    }

    fn owns(&self, block: &Block) -> bool {
        block.spec.affinity.as_deref() == Some(&owner(&self.node))
    }

    fn take_in_mended(&mut self, cidr: IpNet, was_confirmed: bool, mended: Mended, report: &mut LoadReport) {
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
            self.load(store, now, &BTreeMap::new()).await?;
        }
        Ok(())
    }

    async fn own_affinities(
        &self,
        store: &dyn Datastore,
        refused: &mut Vec<Invalid>,
    ) -> Result<BTreeMap<IpNet, Affinity>, Error> {
        let mut own = BTreeMap::new();
        for listed in store.list(Kind::BlockAffinity, &Only::Node(self.node.clone())).await? {
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Affinity {
    confirmed: bool,
    labelled: bool,
}
