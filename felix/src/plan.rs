//! What lies between the routes that are there and those that should be.
//!
//! The plain difference is the specification. Partial knowledge may add, never delete: a deletion, or a replacement that
//! amounts to one, needs the permission of the [`Sweep`].

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{Desired, Operation, Route, RouteClass, RouteKey, Snapshot, Target};

/// Which routes of ours may be deleted when they are not desired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Pods' host routes and blackholes: once every own endpoint and block is known.
    pub local: bool,
    /// What BGP brought: once every peer has sent End-of-RIB, or its restart timer has run out.
    pub remote: bool,
}

impl Sweep {
    /// Everything is known.
    pub const ALL: Self = Self { local: true, remote: true };

    fn permits(self, class: RouteClass) -> bool {
        match class {
            RouteClass::Local => self.local,
            RouteClass::Remote => self.remote,
        }
    }
}

/// The operations that turn what the snapshot has of ours into what is desired. Additions and replacements come first,
/// longer prefixes before shorter ones, so that a block's blackhole never comes before the pods inside it; then
/// the deletions, blackholes and shorter prefixes first. A route that is right yields nothing.
pub fn plan(desired: &Desired, snapshot: &Snapshot, sweep: Sweep) -> Vec<Operation> {
    let actual: BTreeMap<RouteKey, &Route> = snapshot.ours().map(|route| (route.key, route)).collect();
    let mut writes: Vec<&Route> = desired
        .routes
        .values()
        .filter(|wanted| match actual.get(&wanted.key) {
            Some(present) => *present != *wanted && may_replace(present, wanted, sweep),
            None => true,
        })
        .collect();
    let mut deletions: Vec<&Route> = actual
        .values()
        .copied()
        .filter(|present| !desired.routes.contains_key(&present.key) && sweep.permits(present.class()))
        .collect();
    writes.sort_by_key(|route| (Reverse(route.key.destination.prefix_len()), route.key));
    deletions.sort_by_key(|route| {
        (route.target != Target::Blackhole, route.key.destination.prefix_len(), route.key)
    });
    let write = |route: &Route| match actual.contains_key(&route.key) {
        true => Operation::ReplaceRoute(route.clone()),
        false => Operation::AddRoute(route.clone()),
    };
    let delete = |route: &Route| Operation::DeleteRoute(route.clone());
    writes.into_iter().map(write).chain(deletions.into_iter().map(delete)).collect()
}

/// A path from BGP takes the place of a local route only when it is known that the local one is not ours any more.
/// The other way round no permission is needed: local knowledge wins.
fn may_replace(present: &Route, wanted: &Route, sweep: Sweep) -> bool {
    present.class() != RouteClass::Local || wanted.class() == RouteClass::Local || sweep.local
}

#[cfg(test)]
mod tests;
