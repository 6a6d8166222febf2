//! The decision process (RFC 4271 §9.1.2.2, RFC 4456 §9): a ladder, on each rung of which the worse paths fall off.
//!
//! Paths are eliminated, not compared in pairs: MULTI_EXIT_DISC counts only between paths of the same neighbour AS, so
//! "better" is no order, and pairs would make the result depend on who came first.
//!
//! The cost of the way to the next hop (rung e) is not here: the speaker does not see the kernel's routes.

use std::cmp::Reverse;

use super::Path;

/// The rung that decided: on it the last competitor fell off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// There was no competitor.
    OnlyPath,
    /// The higher LOCAL_PREF (§9.1.2).
    LocalPref,
    /// The shorter AS_PATH (a).
    AsPathLength,
    /// The lower ORIGIN (b).
    Origin,
    /// The lower MULTI_EXIT_DISC, between paths of the same neighbour AS (c).
    Med,
    /// Learned from another AS rather than inside ours (d).
    External,
    /// Said by a reflector that lives, where one that is gone named another origin.
    Living,
    /// The lower BGP identifier, or ORIGINATOR_ID (f).
    RouterId,
    /// The shorter CLUSTER_LIST (RFC 4456 §9).
    ClusterListLength,
    /// The lower address of the peer (g).
    PeerAddress,
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OnlyPath => "only path",
            Self::LocalPref => "higher LOCAL_PREF",
            Self::AsPathLength => "shorter AS_PATH",
            Self::Origin => "lower ORIGIN",
            Self::Med => "lower MED",
            Self::External => "eBGP over iBGP",
            Self::Living => "told by a reflector that lives",
            Self::RouterId => "lower identifier",
            Self::ClusterListLength => "shorter CLUSTER_LIST",
            Self::PeerAddress => "lower peer address",
        })
    }
}

/// The index of the best path, and what made it the best. `None` when there is no path that can be used.
pub fn decide(paths: &[Path]) -> Option<(usize, Rung)> {
    let mut left: Vec<usize> = (0..paths.len()).filter(|index| paths[*index].rejected.is_none()).collect();
    let mut decided = Rung::OnlyPath;
    for rung in RUNGS {
        if left.len() <= 1 {
            break;
        }
        let before = left.len();
        step(rung, paths, &mut left);
        if left.len() < before {
            decided = rung;
        }
    }
    left.first().map(|best| (*best, decided))
}

const RUNGS: [Rung; 9] = [
    Rung::LocalPref,
    Rung::AsPathLength,
    Rung::Origin,
    Rung::Med,
    Rung::External,
    Rung::Living,
    Rung::RouterId,
    Rung::ClusterListLength,
    Rung::PeerAddress,
];

fn step(rung: Rung, paths: &[Path], left: &mut Vec<usize>) {
    match rung {
        Rung::OnlyPath => (),
        Rung::LocalPref => keep_least(paths, left, |path| Reverse(path.local_pref())),
        Rung::AsPathLength => keep_least(paths, left, |path| path.attributes.as_path.length()),
        Rung::Origin => keep_least(paths, left, |path| path.attributes.origin),
        Rung::Med => lowest_med(paths, left),
        Rung::External => keep_least(paths, left, |path| !path.from.external),
        Rung::Living => drop_hearsay(paths, left),
        Rung::RouterId => keep_least(paths, left, Path::originator),
        Rung::ClusterListLength => keep_least(paths, left, |path| path.attributes.cluster_list.len()),
        Rung::PeerAddress => keep_least(paths, left, |path| path.from.address),
    }
}

fn keep_least<K: Ord>(paths: &[Path], left: &mut Vec<usize>, key: impl Fn(&Path) -> K) {
    if let Some(least) = left.iter().map(|index| key(&paths[*index])).min() {
        left.retain(|index| key(&paths[*index]) == least);
    }
}

/// A path without the attribute has the lowest value (§9.1.2.2 c).
fn lowest_med(paths: &[Path], left: &mut Vec<usize>) {
    let key = |index: &usize| {
        let attributes = &paths[*index].attributes;
        (attributes.as_path.neighbour(), attributes.med.unwrap_or(0))
    };
    let all: Vec<_> = left.iter().map(key).collect();
    left.retain(|index| {
        let (neighbour, med) = key(index);
        !all.iter().any(|(other, lower)| *other == neighbour && *lower < med)
    });
}

/// What a reflector said of another node gives way, once the reflector is gone and its paths are stale, where a living peer
/// names another origin: the prefix has moved meanwhile, and nobody can take the old word back. Where the two name the
/// same origin nothing changes; else two reflectors might each take for fresh what the other has from it. What the origin
/// itself said stays as good as it was (RFC 4724 §4.2): only it has restarted.
fn drop_hearsay(paths: &[Path], left: &mut Vec<usize>) {
    let fresh = left.iter().map(|index| &paths[*index]).filter(|path| !path.stale);
    let origins: Vec<_> = fresh.map(Path::originator).collect();
    left.retain(|index| {
        let path = &paths[*index];
        !path.is_hearsay() || origins.is_empty() || origins.contains(&path.originator())
    });
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
