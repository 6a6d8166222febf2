//! What is to be done once for the whole cluster, by the node that leads.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Doors, Feeds};
use crate::config::Config;
use crate::information;
use crate::leader::Candidate;
use crate::reports::Reporter;

/// Starts the tasks, on Kubernetes: elsewhere there is one machine, and nobody to tell.
pub(super) fn spawn(config: &Config, doors: &Doors, feeds: &Feeds, tasks: &mut JoinSet<()>) {
    if !config.datastore.is_kubernetes() {
        return;
    }
    let (leads, leading) = watch::channel(false);
    let store = || Arc::clone(&doors.store);
    let cluster = || feeds.cluster.subscribe();
    tasks.spawn(Candidate::new(config.node.clone(), store(), leads, doors.wall_clock, doors.seed).run());
    tasks.spawn(
        Reporter {
            node: config.node.clone(),
            store: store(),
            cluster: cluster(),
            of_bgp: feeds.complaints.subscribe(),
            leads: leading.clone(),
        }
        .run(),
    );
    tasks.spawn(information::keep(store(), cluster(), leading, guid(doors.seed)));
}

/// 32 hex digits, as Calico's.
fn guid(seed: u64) -> String {
    format!("{:016x}{:016x}", seed, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}
