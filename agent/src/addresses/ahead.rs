//! What the owner gives ahead of its being written ([`Allocator::assign_ahead`](manx_ipam::Allocator::assign_ahead)), and how it
//! is written beside what goes on. Nothing else is asked of the datastore meanwhile.

use std::sync::Arc;
use std::time::Duration;

use manx_ipam::{AssignRequest, Assigned, Redeemed};
use tokio::time::Instant;

use super::{Owner, away};
use crate::cluster::Cluster;
use crate::information::is_locked;

/// So long after a write the disk is told what was written, unless that is needed before.
const SETTLE: Duration = Duration::from_millis(100);

impl Owner {
    /// From what the node holds back, as long as what was given before could be written.
    pub(super) fn assign_ahead(
        &mut self,
        cluster: &Cluster,
        requests: &[AssignRequest],
    ) -> Option<Vec<Vec<Assigned>>> {
        if self.waits() || !cluster.in_sync || is_locked(cluster) {
            return None;
        }
        let reserved = away::reserved(cluster);
        let rules = away::rules(cluster, &self.allocator, &reserved);
        self.allocator.assign_ahead((self.wall_clock)(), rules, requests)
    }

    /// Begins to write what was given ahead, unless an earlier write is under way: then it follows.
    pub(super) fn begin_to_write(&mut self, cluster: &Cluster) {
        if self.writing.is_under_way() || is_locked(cluster) {
            return;
        }
        let reserved = away::reserved(cluster);
        let rules = away::rules(cluster, &self.allocator, &reserved);
        if let Some(redeeming) = self.allocator.begin_to_redeem((self.wall_clock)(), rules) {
            let store = Arc::clone(&self.store);
            self.writing.begin(async move { redeeming.write(&*store).await });
        }
    }

    /// Takes in what came of a write, and begins the next if something was given meanwhile.
    pub(super) async fn take_written(&mut self, written: Redeemed) {
        self.settle_soon();
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        match self.allocator.redeemed(written) {
            Ok(true) => self.begin_to_write(&cluster),
            // Somebody else has changed something: what it is, is read first.
            Ok(false) => self.redeem(&cluster).await,
            Err(_) => self.absence.begin(),
        }
        self.tell_owed();
    }

    /// Waits until all that was given ahead is written, or cannot be.
    pub(super) async fn finish_writing(&mut self) {
        while self.writing.is_under_way() {
            let written = self.writing.outcome().await;
            self.take_written(written).await;
        }
    }

    /// What was held back has been written as that of pods.
    pub(super) fn settle_soon(&mut self) {
        self.unsettled.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    /// Before an address that pods were given of what was held back is free again, the disk must not call it held back.
    pub(super) async fn settle(&mut self) {
        if self.unsettled.take().is_none() {
            return;
        }
        if let Err(error) = self.store.settle().await {
            tracing::warn!("an agent that starts without the datastore may go by old knowledge: {error}");
        }
    }
}
