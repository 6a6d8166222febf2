//! What leaves a node with Manx, and what stays for the sake of pods that still run. Pure.
//!
//! While a pod has a link of ours, everything that carries its packets stays: its link and route, the blocks' and the
//! other nodes' routes, and the tunnel. They go when the last pod has gone. Nothing of another program is touched.

use manx_felix::{Operation, Route, Snapshot, TUNNEL_DEVICE, Target};

/// What is to be done in the kernel, and what is to stay there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To carry out.
    pub operations: Vec<Operation>,
    /// The links of pods that still run.
    pub pods: Vec<String>,
    /// How many routes of ours stay for them.
    pub kept_routes: usize,
}

/// Decides from what the kernel has; pods' links begin with `prefix`.
pub fn decide(kernel: &Snapshot, prefix: &str) -> Plan {
    let pods = pods(kernel, prefix);
    let ours = || kernel.ours().cloned();
    if !pods.is_empty() {
        return Plan { operations: Vec::new(), pods, kept_routes: ours().count() };
    }
    let mut operations: Vec<Operation> = ours().map(Operation::DeleteRoute).collect();
    if tunnel_is_ours(kernel) {
        operations.push(Operation::TunnelDown);
    }
    Plan { operations, ..Plan::default() }
}

/// Ours is a link that carries a handle as its alias; it vanishes with the pod's namespace.
fn pods(kernel: &Snapshot, prefix: &str) -> Vec<String> {
    let is_pod = |link: &&manx_felix::Link| link.name.starts_with(prefix) && link.alias.is_some();
    kernel.links.values().filter(is_pod).map(|link| link.name.clone()).collect()
}

/// The device is the kernel's, and its address tells nothing: it is used by those who route through it. One that is down is
/// nobody's.
fn tunnel_is_ours(kernel: &Snapshot) -> bool {
    let Some(tunnel) = kernel.link(TUNNEL_DEVICE) else { return false };
    let through = |route: &Route| match &route.target {
        Target::Hops(hops) => hops.iter().any(|hop| hop.device == tunnel.index),
        Target::Blackhole | Target::Other => false,
    };
    tunnel.up && !kernel.foreign().any(through)
}

#[cfg(test)]
mod tests;
