//! What the owner does while the datastore is away, and when it is back.
//!
//! It is away when a call was not answered, and suspected to be when a watch was cut off. Meanwhile releases are owed and
//! not asked for, since one that is asked for in vain may come about at any time later; requests are served from what
//! nobody else is given ([`Allocator::assign_away`]). A ping asks beside all that whether it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use manx_ipam::{Allocator, AssignRequest, Assigned, Rules};
use tokio::time::timeout;

use super::{Granted, Owner, Refused, Release};
use crate::cluster::Cluster;
use crate::information::is_locked;

/// For so long a request waits to hear whether the datastore is back before it is turned away.
const IMPATIENT: Duration = Duration::from_secs(1);

/// What is known of an absence of the datastore.
#[derive(Debug, Default)]
pub(super) struct Absence {
    /// A call was not answered, and none since.
    away: bool,
    /// A watch was cut off, and it is not known yet what that means.
    suspected: bool,
    /// What the watches said last.
    lost: bool,
    /// What went wrong when what had been given was written.
    wrong: Vec<String>,
    /// Requests that keep what they were given although something beside it was not answered: asked again, so that it is.
    half: BTreeMap<String, AssignRequest>,
}

impl Absence {
    /// What the last agent gave out is not written yet: until it is, nothing is taken from the datastore.
    pub(super) fn new(allocator: &Allocator) -> Self {
        Self { away: allocator.promised().next().is_some(), ..Self::default() }
    }

    /// A call was not answered.
    pub(super) fn begin(&mut self) {
        self.away = true;
    }

    /// Whether there is reason to believe that nobody answers.
    pub(super) fn is_suspected(&self) -> bool {
        self.away || self.suspected
    }
}

impl Owner {
    /// Whether something waits for the datastore.
    pub(crate) fn waits(&self) -> bool {
        self.absence.is_suspected()
            || !self.owed.is_empty()
            || !self.absence.half.is_empty()
            || self.has_unwritten()
    }

    /// Whether something was given, and is not even being written.
    fn has_unwritten(&self) -> bool {
        !self.writing.is_under_way() && self.allocator.promised().next().is_some()
    }

    /// A watch that is cut off is the first sign.
    pub(super) fn notice_loss(&mut self) {
        let lost = self.cluster.borrow().lost.is_some();
        self.absence.suspected |= lost && !self.absence.lost;
        self.absence.lost = lost;
    }

    /// Remembers to give back what `handle` holds.
    pub(super) fn owe(&mut self, handle: &str) -> Release {
        self.absence.half.remove(handle);
        self.allocator.leave((self.wall_clock)(), handle);
        self.owed.insert(handle.to_owned());
        Release::Owed
    }

    /// What the last agent left to be given back.
    pub(crate) fn owe_all(&mut self, handles: impl IntoIterator<Item = String>) {
        self.owed.extend(handles);
    }

    /// Writes what was given out, then gives back what is owed; `true` when nothing is left to do.
    pub(super) async fn come_back(&mut self) -> bool {
        self.finish_writing().await;
        self.absence.suspected = false;
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        if is_locked(&cluster) {
            return false;
        }
        self.redeem(&cluster).await;
        self.make_whole(&cluster).await;
        self.tell_owed();
        !self.absence.away && self.pay().await && self.absence.wrong.is_empty()
    }

    /// The owed handles that hold what others were promised: not given back before that is written.
    pub(super) fn needed(&self) -> BTreeSet<String> {
        let promised: BTreeSet<IpAddr> =
            self.allocator.promised().flat_map(|(_, addresses)| addresses).copied().collect();
        let held = self.allocator.allocations().filter(|(address, _, _)| promised.contains(address));
        held.map(|(_, handle, _)| handle.to_owned()).filter(|handle| self.owed.contains(handle)).collect()
    }

    /// Asks again for what is given already: of that, nothing but what is missing is written.
    async fn make_whole(&mut self, cluster: &Cluster) {
        if self.absence.away || self.absence.half.is_empty() {
            return;
        }
        let half: Vec<AssignRequest> = std::mem::take(&mut self.absence.half).into_values().collect();
        let answers = self.ask(cluster, &half).await;
        for (request, answer) in half.into_iter().zip(answers) {
            if answer.is_err() {
                self.absence.away |= answer.is_err_and(|error| error.is_unavailable());
                self.absence.half.insert(request.handle.clone(), request);
            }
        }
    }

    /// Writes what was given.
    pub(super) async fn redeem(&mut self, cluster: &Cluster) {
        let (before, was_away) = (self.allocator.promised().count(), self.absence.is_suspected());
        let (now, reserved) = ((self.wall_clock)(), reserved(cluster));
        let rules = rules(cluster, &self.allocator, &reserved);
        let redeemed = self.allocator.redeem(&*self.store, now, rules, &self.owed).await;
        let wrong: Vec<String> = match redeemed {
            Err(error) if error.is_unavailable() => {
                self.absence.begin();
                return;
            }
            Err(error) => {
                vec![format!("what pods were given is not written yet: {error}")]
            }
            Ok(broken) => broken.iter().map(ToString::to_string).collect(),
        };
        self.absence.away = false;
        let written = before - self.allocator.promised().count();
        if written > 0 {
            self.settle_soon();
            if was_away {
                tracing::info!("{written} pods that came while the datastore was away are in IPAM");
            }
        }
        for text in wrong.iter().filter(|text| !self.absence.wrong.contains(text)) {
            tracing::error!("{text}");
        }
        self.absence.wrong = wrong;
    }

    /// From the datastore; where it does not answer, from what nobody else is given.
    pub(super) async fn assign_all(
        &mut self,
        cluster: &Cluster,
        requests: &[AssignRequest],
    ) -> Vec<Result<Granted, Refused>> {
        let pick = |which: &[usize]| which.iter().map(|index| requests[*index].clone()).collect::<Vec<_>>();
        let known = |index: &usize| self.absence.away || self.is_promised(&requests[*index].handle);
        let (mut alone, ask): (Vec<usize>, Vec<usize>) = (0..requests.len()).partition(known);
        let (mut answers, mut unanswered) = (BTreeMap::new(), Vec::new());
        let given = self.ask(cluster, &pick(&ask)).await;
        for (index, answer) in ask.into_iter().zip(given) {
            match answer {
                Err(error) if error.is_unavailable() => {
                    self.absence.begin();
                    unanswered.push(index);
                }
                answer => drop(answers.insert(index, answer)),
            }
        }
        alone.extend(&unanswered);
        let reserved = reserved(cluster);
        let rules = rules(cluster, &self.allocator, &reserved);
        let given = self.allocator.assign_away((self.wall_clock)(), rules, &pick(&alone));
        answers.extend(alone.iter().copied().zip(given));
        alone.retain(|index| matches!(answers[index], Err(manx_ipam::Error::Away { .. })));
        if !alone.is_empty() && self.is_back_after_all().await {
            let given = self.ask(cluster, &pick(&alone)).await;
            if given.iter().any(|answer| answer.as_ref().is_err_and(manx_ipam::Error::is_unavailable)) {
                self.absence.begin();
            }
            answers.extend(alone.into_iter().zip(given));
        }
        for index in unanswered {
            let request = &requests[index];
            match answers.get(&index) {
                Some(Ok(_)) if !self.is_promised(&request.handle) => {
                    self.absence.half.insert(request.handle.clone(), request.clone());
                }
                Some(Ok(_)) => {}
                // It may hold something all the same.
                _ if self.absence.away => drop(self.owe(&request.handle)),
                _ => {}
            }
        }
        let granted = |(index, answer): (usize, Result<_, manx_ipam::Error>)| {
            Ok(Granted { assigned: answer?, away: self.is_promised(&requests[index].handle) })
        };
        answers.into_iter().map(granted).collect()
    }

    /// Before somebody is turned away it is asked once more, with little patience: others wait.
    async fn is_back_after_all(&mut self) -> bool {
        let answer = timeout(IMPATIENT, self.store.ping()).await;
        if matches!(answer, Ok(Ok(()))) {
            self.come_back().await;
        }
        !self.absence.away
    }

    async fn ask(
        &mut self,
        cluster: &Cluster,
        requests: &[AssignRequest],
    ) -> Vec<Result<Vec<Assigned>, manx_ipam::Error>> {
        if requests.is_empty() {
            return Vec::new();
        }
        let mut reserved = reserved(cluster);
        // What pods have is given to nobody, even if the datastore should say that it is free.
        let promised = self.allocator.promised().flat_map(|(_, addresses)| addresses);
        reserved.extend(promised.map(|address| IpNet::from(*address)));
        let rules = rules(cluster, &self.allocator, &reserved);
        self.allocator.assign(&*self.store, (self.wall_clock)(), rules, requests).await
    }

    fn is_promised(&self, handle: &str) -> bool {
        self.allocator.promised().any(|(promised, _)| promised == handle)
    }

    /// Keeps the reserve as it should be, while nobody waits for anything else.
    pub(super) async fn keep_reserve(&mut self) {
        let cluster = Arc::clone(&self.cluster.borrow());
        let busy = self.waits() || self.writing.is_under_way() || !self.commands.is_empty();
        if busy || !cluster.in_sync || is_locked(&cluster) {
            return;
        }
        let reserved = reserved(&cluster);
        let rules = rules(&cluster, &self.allocator, &reserved);
        let (now, most) = ((self.wall_clock)(), self.reserve);
        match self.allocator.keep_reserve(&*self.store, now, rules, most).await {
            Err(error) if error.is_unavailable() => self.absence.begin(),
            Err(error) => tracing::debug!("the reserve is not as it should be yet: {error}"),
            Ok(()) => {}
        }
    }

    pub(super) fn tell_owed(&self) {
        let count = self.owed.len();
        let owed = (count > 0)
            .then(|| format!("what {count} gone pods held is given back when the datastore answers"));
        let count = self.allocator.promised().count();
        let promised = self
            .has_unwritten()
            .then(|| format!("{count} pods were attached, and IPAM does not know of them yet"));
        let wrong = self.absence.wrong.iter().cloned();
        self.problems.set("addresses", owed.into_iter().chain(promised).chain(wrong));
    }
}

pub(super) fn reserved(cluster: &Cluster) -> Vec<IpNet> {
    let by_objects = cluster.reservations.values().flat_map(|reservation| reservation.cidrs.clone());
    // What nodes give to their pods without IPAM.
    let by_nodes = cluster.nodes.values().flat_map(|node| node.pod_cidrs_in_use.clone());
    by_objects.chain(by_nodes).collect()
}

pub(super) fn rules<'a>(cluster: &'a Cluster, allocator: &Allocator, reserved: &'a [IpNet]) -> Rules<'a> {
    static UNLABELLED: BTreeMap<String, String> = BTreeMap::new();
    let node = cluster.nodes.get(allocator.node().as_str());
    Rules {
        pools: &cluster.pools,
        reserved,
        config: &cluster.ipam,
        node_labels: node.map_or(&UNLABELLED, |node| &node.labels),
    }
}
