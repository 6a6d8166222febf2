//! The best paths that BGP has found, as the node loop knows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes and their next hops.
#[derive(Debug, Default)]
pub struct Remote {
    next_hops: BTreeMap<IpNet, IpAddr>,
}

impl Remote {
    /// Takes a batch of changes; `None` means that there is no path any more.
    pub fn take(&mut self, changes: BTreeMap<IpNet, Option<IpAddr>>) {
        for (prefix, next_hop) in changes {
            match next_hop {
                Some(next_hop) => drop(self.next_hops.insert(prefix, next_hop)),
                None => drop(self.next_hops.remove(&prefix)),
            }
        }
    }

    /// Every prefix and its next hop, beside those that are known from elsewhere and of which no path has come yet. An
    /// agent that starts waits for its peers, up to two minutes, before it believes that it knows every path. If the mode
    /// changes meanwhile, the tunnels that it found must not wait with it: others stop taking packets from them.
    pub fn beside(&self, known: impl Iterator<Item = (IpNet, IpAddr)>) -> BTreeMap<IpNet, IpAddr> {
        let mut next_hops: BTreeMap<IpNet, IpAddr> = known.collect();
        next_hops.extend(&self.next_hops);
        next_hops
    }

    /// Every prefix and its next hop.
    pub fn next_hops(&self) -> &BTreeMap<IpNet, IpAddr> {
        &self.next_hops
    }
}
