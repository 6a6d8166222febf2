//! What is to be done once for the whole cluster, by the node that leads.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Doors, Feeds};
use crate::collecting::Collecting;
use crate::config::Config;
use crate::information;
use crate::leader::Candidate;
use crate::policies;
use crate::reports::Reporter;

/// Starts the tasks.
pub(super) fn spawn(config: &Config, doors: &Doors, feeds: &Feeds, tasks: &mut JoinSet<()>) {
    let kubernetes = config.datastore.is_kubernetes();
    let (leads, leading) = watch::channel(false);
    let store = || Arc::clone(&doors.store);
    let cluster = || feeds.cluster.subscribe();
    let (node, policies) = (config.node.clone(), feeds.policies.clone());
    tasks.spawn(Candidate::new(node, store(), leads, policies, doors.wall_clock, doors.seed).run());
    let collecting = Collecting {
        knows_pods: kubernetes,
        store: store(),
        cluster: cluster(),
        leads: leading.clone(),
        counted: feeds.ipam.clone(),
        wall_clock: doors.wall_clock,
        problems: feeds.problems.clone(),
    };
    tasks.spawn(collecting.run());
    if !kubernetes {
        // Without Kubernetes there is one machine, nobody to tell, and no plugin of Calico's.
        return;
    }
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
    tasks.spawn(information::keep(store(), cluster(), leading.clone(), guid(doors.seed)));
    tasks.spawn(policies::name(feeds.policies.subscribe(), feeds.problems.clone()));
    let keeper = policies::Keeper { store: store(), leads: leading, found: feeds.policies.clone() };
    tasks.spawn(keeper.run());
}

/// 32 hex digits, as Calico's.
fn guid(seed: u64) -> String {
    format!("{:016x}{:016x}", seed, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}
