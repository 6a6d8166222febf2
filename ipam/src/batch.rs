//! The requests of one call: which are answered, and what has been written for the others.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_model::AllocationAttribute;

use crate::{AssignRequest, Assigned, Error, handle};

/// The requests of one call, and how far they have come.
pub(crate) struct Batch<'a> {
    pub(crate) requests: &'a [AssignRequest],
    pub(crate) answers: Vec<Option<Result<Assigned, Error>>>,
    /// The handles that were written for a block, and certainly hold nothing there or anywhere else.
    pub(crate) prepared: BTreeMap<usize, IpNet>,
    /// Writes whose fate was unknown.
    pub(crate) unknown: usize,
    /// Whether it is known that no request holds an address in a block of another node.
    found_elsewhere: bool,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(requests: &'a [AssignRequest]) -> Self {
        let answers = requests.iter().map(|request| handle::check(&request.handle).err().map(Err)).collect();
        Self { requests, answers, prepared: BTreeMap::new(), unknown: 0, found_elsewhere: false }
    }

    /// The requests without an answer. Of two with one handle the first stands for both.
    pub(crate) fn open(&self) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        (0..self.requests.len())
            .filter(|index| self.answers[*index].is_none() && seen.insert(&self.requests[*index].handle))
            .collect()
    }

    pub(crate) fn attribute(&self, index: usize) -> AllocationAttribute {
        let request = &self.requests[index];
        AllocationAttribute {
            handle_id: Some(request.handle.clone()),
            secondary: request.attributes.clone(),
            ..Default::default()
        }
    }

    /// Before a block is claimed: whether a request has its address already, in a block that is not ours.
    pub(crate) async fn find_elsewhere(&mut self, store: &dyn Datastore) -> bool {
        if std::mem::replace(&mut self.found_elsewhere, true) {
            return false;
        }
        let open: Vec<usize> =
            self.open().into_iter().filter(|index| !self.prepared.contains_key(index)).collect();
        let found =
            join_all(open.iter().map(|index| handle::find(store, &self.requests[*index].handle))).await;
        let before = self.open().len();
        for (index, found) in open.into_iter().zip(found) {
            self.answers[index] =
                found.map(|held| held.map(|(address, block)| Assigned { address, block })).transpose();
        }
        self.open().len() < before
    }

    /// Writes the handles of `open` for `cidr`, all at once; returns those that may now be given an address.
    pub(crate) async fn prepare_handles(
        &mut self,
        store: &dyn Datastore,
        open: &[usize],
        cidr: IpNet,
    ) -> Vec<usize> {
        let todo = open.iter().copied().filter(|index| self.prepared.get(index) != Some(&cidr));
        let todo: Vec<usize> = todo.collect();
        // The block for which they were written is no longer ours.
        let old = todo.iter().filter_map(|index| Some((index, self.prepared.remove(index)?)));
        let old: Vec<(&usize, IpNet)> = old.collect();
        join_all(
            old.iter().map(|(index, cidr)| handle::forget(store, &self.requests[**index].handle, *cidr)),
        )
        .await;
        let prepared =
            join_all(todo.iter().map(|index| handle::prepare(store, &self.requests[*index].handle, cidr)))
                .await;
        for (index, prepared) in todo.into_iter().zip(prepared) {
            match prepared {
                Ok(None) => {
                    self.prepared.insert(index, cidr);
                }
                Ok(Some((address, block))) => self.answers[index] = Some(Ok(Assigned { address, block })),
                Err(error) => self.answers[index] = Some(Err(error)),
            }
        }
        open.iter().copied().filter(|index| self.answers[*index].is_none()).collect()
    }

    pub(crate) fn fail_open(&mut self, error: &Error) {
        self.answers.iter_mut().filter(|answer| answer.is_none()).for_each(|answer| {
            *answer = Some(Err(error.clone()));
        });
    }

    /// Takes back the handles of requests that got no address. What fails here is left to the sweep.
    pub(crate) async fn undo_handles(&mut self, store: &dyn Datastore) {
        let failed = self.prepared.iter().filter(|(index, _)| matches!(self.answers[**index], Some(Err(_))));
        join_all(failed.map(|(index, cidr)| handle::forget(store, &self.requests[*index].handle, *cidr)))
            .await;
    }

    pub(crate) fn answers(self) -> Vec<Result<Assigned, Error>> {
        let unanswered = || Err(Error::contention("the request"));
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }
}
