//! What the owner is told of this node's affinities, and what it does when one is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use manx_model::{AffinitySpec, AffinityState, Object, affinity_name};
use tokio::time::Instant;

use super::Owner;

/// For so long an affinity of ours may be missing from what the watch tells, before it is looked for.
pub(super) const MISSED: Duration = Duration::from_secs(10);

impl Owner {
    /// An affinity of ours that somebody else took away or changed: what is ours is read again. What we claimed a moment ago
    /// the watch has not told yet; but what it goes on not to tell may have been taken away before it began.
    pub(super) async fn look_at_affinities(&mut self) {
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        let confirmed = |object: &Object| {
            object
                .spec::<AffinitySpec>()
                .is_ok_and(|spec| spec.state == AffinityState::Confirmed && spec.deleted != "true")
        };
        let seen: BTreeSet<String> = cluster
            .affinities
            .iter()
            .filter(|(_, object)| confirmed(object))
            .map(|(name, _)| name.clone())
            .collect();
        let lost: BTreeSet<String> = self.affinities.difference(&seen).cloned().collect();
        self.affinities = seen;
        if cluster.in_sync && self.unseen().any(|name| lost.contains(&name)) {
            tracing::warn!(
                ?lost,
                "somebody else took a block's affinity away; reading again what this node owns"
            );
            self.read_again().await;
        }
    }

    /// Notes since when the watch has not told an affinity that we know of.
    pub(super) fn look_for_missing(&mut self) {
        let is_missing = self.cluster.borrow().in_sync && self.unseen().next().is_some();
        let due = self.missed.unwrap_or_else(|| Instant::now() + MISSED);
        self.missed = is_missing.then_some(due);
    }

    /// The names of our affinities that the watch does not tell.
    fn unseen(&self) -> impl Iterator<Item = String> {
        let node = self.allocator.node();
        let ours = self.allocator.confirmed_blocks().into_iter().map(|cidr| affinity_name(node, cidr));
        ours.filter(|name| !self.affinities.contains(name))
    }

    /// Reads again what this node owns.
    pub(super) async fn read_again(&mut self) {
        self.finish_writing().await;
        let mut handles: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (address, handle, _) in self.allocator.allocations() {
            handles.entry(handle.to_owned()).or_default().push(address);
        }
        if let Err(error) = self.allocator.load(&*self.store, (self.wall_clock)(), &handles).await {
            tracing::warn!("what this node owns is not read yet: {error}");
        }
    }
}
