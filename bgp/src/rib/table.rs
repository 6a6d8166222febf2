//! The table of all paths.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Path, Rung, decide};

/// All paths to all prefixes; at most one of each peer to a prefix.
#[derive(Debug, Default)]
pub struct Table {
    entries: BTreeMap<IpNet, Entry>,
}

/// How many paths a peer told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Those that may be used.
    pub used: usize,
    /// Those of them that are stale.
    pub stale: usize,
    /// Those that may not.
    pub rejected: usize,
}

/// Never without a path.
#[derive(Debug, Default)]
struct Entry {
    paths: Vec<Path>,
    /// None when no path can be used.
    best: Option<(usize, Rung)>,
}

impl Table {
    /// The best path to a prefix, and why it is.
    pub fn best(&self, prefix: &IpNet) -> Option<(&Path, Rung)> {
        let entry = self.entries.get(prefix)?;
        let (index, reason) = entry.best?;
        entry.paths.get(index).map(|path| (path, reason))
    }

    /// All paths to a prefix.
    pub fn paths(&self, prefix: &IpNet) -> &[Path] {
        self.entries.get(prefix).map_or(&[], |entry| &entry.paths)
    }

    /// All prefixes with a path.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.entries.keys()
    }

    /// The paths of a peer, counted.
    pub fn count(&self, peer: IpAddr) -> Count {
        let mut count = Count::default();
        let paths = self.entries.values().flat_map(|entry| &entry.paths);
        for path in paths.filter(|path| path.from.address == peer) {
            match path.rejected {
                Some(_) => count.rejected += 1,
                None => {
                    count.used += 1;
                    count.stale += usize::from(path.stale);
                }
            }
        }
        count
    }

    /// Takes a path in place of the one that its peer told before.
    pub fn insert(&mut self, prefix: IpNet, path: Path) {
        let entry = self.entries.entry(prefix).or_default();
        match entry.paths.iter_mut().find(|each| each.from.address == path.from.address) {
            Some(old) => *old = path,
            None => entry.paths.push(path),
        }
        entry.decide();
    }

    /// Forgets a peer's path to a prefix; whether there was one.
    pub fn remove(&mut self, prefix: &IpNet, peer: IpAddr) -> bool {
        let Some(entry) = self.entries.get_mut(prefix) else { return false };
        let before = entry.paths.len();
        entry.paths.retain(|path| path.from.address != peer);
        let removed = entry.paths.len() < before;
        if entry.paths.is_empty() {
            self.entries.remove(prefix);
        } else if removed {
            entry.decide();
        }
        removed
    }

    /// The prefixes to which a peer told a path; with `stale_only`, one that it has not repeated.
    pub fn told_by(&self, peer: IpAddr, stale_only: bool) -> BTreeSet<IpNet> {
        let told = |path: &Path| path.from.address == peer && (path.stale || !stale_only);
        let entries = self.entries.iter().filter(|(_, entry)| entry.paths.iter().any(told));
        entries.map(|(prefix, _)| *prefix).collect()
    }

    /// The prefixes whose best path may be another one once the paths of a peer are stale: those that it reflected, and
    /// others told, too.
    pub fn reflected_by(&self, peer: IpAddr) -> Vec<IpNet> {
        let reflected = |path: &Path| path.from.address == peer && path.attributes.originator_id.is_some();
        let entries = self.entries.iter().filter(|(_, entry)| entry.paths.len() > 1);
        entries.filter(|(_, entry)| entry.paths.iter().any(reflected)).map(|(prefix, _)| *prefix).collect()
    }

    /// Marks all paths of a peer as stale. What is best changes at most for [`Table::reflected_by`] it.
    pub fn mark_stale(&mut self, peer: IpAddr) {
        for entry in self.entries.values_mut() {
            let Some(path) = entry.paths.iter_mut().find(|path| path.from.address == peer) else { continue };
            path.stale = true;
            if path.is_hearsay() {
                entry.decide();
            }
        }
    }
}

impl Entry {
    fn decide(&mut self) {
        self.best = decide(&self.paths);
    }
}
