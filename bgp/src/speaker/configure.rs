//! A new configuration on a speaker that runs. Policies change without a reset: what was told is looked at again through
//! the new filters, and what is to be told is compared with what the peer knows.

use std::net::IpAddr;
use std::time::Instant;

use super::{Peer, PeerConfig, Speaker, SpeakerConfig};

impl Speaker {
    /// Takes a whole new configuration. Peers whose part is the same are not disturbed.
    pub fn configure(&mut self, now: Instant, config: SpeakerConfig) {
        let gone: Vec<_> =
            self.peers.keys().filter(|peer| !config.peers.contains_key(peer)).copied().collect();
        for peer in gone {
            self.forget(peer, false);
            self.peers.remove(&peer);
            self.peers_changed = true;
        }
        let old = std::mem::replace(&mut self.config, config);
        let (mut admit, mut tell) = (Vec::new(), Vec::new());
        let change = Change::between(&old, &self.config);
        for (address, wanted) in &self.config.peers {
            let peer = self.peers.entry(*address).or_insert_with(|| Peer::new(now, wanted.clone()));
            self.peers_changed |= peer.config != *wanted;
            let before = std::mem::replace(&mut peer.config, wanted.clone());
            if change.admits(wanted) || before.admission() != wanted.admission() {
                admit.push(*address);
            }
            if change.tells(wanted) || before.telling() != wanted.telling() {
                tell.push(*address);
            }
        }
        admit.into_iter().for_each(|peer| self.admit_again(peer));
        tell.into_iter().for_each(|peer| self.compare_everything(peer));
        self.settle(now);
    }

    /// Marks everything for a peer, so that it is told what is no longer as it knows it.
    fn compare_everything(&mut self, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let learned = peer.config.hears_learned();
        let Some(up) = &mut peer.up else { return };
        up.out.mark_told();
        up.out.mark(self.originated.iter().flatten());
        if learned {
            up.out.mark(self.table.prefixes());
        }
    }
}

/// What changed that is nobody's own.
struct Change {
    /// Who we are.
    identity: bool,
    /// What all are told.
    export: bool,
    /// What leads where.
    interfaces: bool,
}

impl Change {
    fn between(old: &SpeakerConfig, new: &SpeakerConfig) -> Self {
        let identity = |config: &SpeakerConfig| (config.asn, config.router_id, config.cluster());
        // Who is a client decides about what the others hear of it.
        let clients = |config: &SpeakerConfig| -> Vec<IpAddr> {
            config.peers.iter().filter(|(_, peer)| peer.client).map(|(address, _)| *address).collect()
        };
        Self {
            identity: identity(old) != identity(new),
            export: old.export != new.export || clients(old) != clients(new),
            interfaces: old.interfaces != new.interfaces,
        }
    }

    fn admits(&self, peer: &PeerConfig) -> bool {
        self.identity || (self.interfaces && !peer.import_filters.is_empty())
    }

    fn tells(&self, peer: &PeerConfig) -> bool {
        self.identity || self.export || (self.interfaces && !peer.export_filters.is_empty())
    }
}

impl PeerConfig {
    /// What the admission of the peer's routes depends on.
    fn admission(&self) -> impl PartialEq {
        (self.local_asn, self.own_as_allowed, &self.import_filters)
    }

    /// What is told to it depends on this.
    fn telling(&self) -> impl PartialEq {
        (self.local_asn, self.client, self.next_hop, self.export, &self.export_filters)
    }
}
