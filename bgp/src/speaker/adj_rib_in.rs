//! What peers have told: in through the checks and filters, and through them again when the configuration changes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{PeerConfig, Speaker};
use crate::policy::{Gate, Operation, admit};
use crate::rib::{Neighbour, Path};
use crate::session::Reason;
use crate::wire::{Attributes, Update};

/// Attributes as filters changed them, made once for all prefixes of a message.
#[derive(Default)]
struct Changed(HashMap<(*const Attributes, *const Operation), Arc<Attributes>>);

impl Changed {
    fn by(&mut self, operations: &[Operation], received: &Arc<Attributes>) -> Arc<Attributes> {
        if operations.is_empty() {
            return received.clone();
        }
        let made = self.0.entry((Arc::as_ptr(received), operations.as_ptr())).or_insert_with(|| {
            let mut attributes = Attributes::clone(received);
            operations.iter().for_each(|operation| operation.apply(&mut attributes));
            Arc::new(attributes)
        });
        made.clone()
    }
}

impl Speaker {
    pub(super) fn update(&mut self, address: IpAddr, update: Update) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let Some(up) = &peer.up else { return };
        let from = Neighbour {
            address,
            asn: peer.config.asn,
            router_id: up.negotiated.router_id,
            external: up.negotiated.context.external,
            local: up.negotiated.local,
        };
        if let Some(error) = update.errors.into_iter().next() {
            peer.last_error = Some(Reason::Misbehaved(error));
            self.peers_changed = true;
        }
        for prefix in update.withdrawn {
            self.withdraw(prefix, address);
        }
        let received = Arc::new(update.attributes);
        let mut changed = Changed::default();
        for each in update.announced {
            for prefix in each.prefixes {
                let (received, attributes) = (received.clone(), received.clone());
                let next_hop = each.next_hop;
                let path = Path { received, attributes, next_hop, from, stale: false, rejected: None };
                let path = self.admitted(&prefix, path, &mut changed);
                self.touch(prefix);
                self.table.insert(prefix, path);
            }
        }
    }

    /// Looks at everything again that a peer has told; what is seen as before is not touched.
    pub(super) fn admit_again(&mut self, address: IpAddr) {
        let mut changed = Changed::default();
        for prefix in self.table.told_by(address, false) {
            let told = self.table.paths(&prefix).iter().find(|path| path.from.address == address);
            let Some(old) = told.cloned() else { continue };
            let new = self.admitted(&prefix, old.clone(), &mut changed);
            if new != old {
                self.touch(prefix);
                self.table.insert(prefix, new);
            }
        }
    }

    /// The path as the checks and filters leave it.
    fn admitted(&self, prefix: &IpNet, path: Path, changed: &mut Changed) -> Path {
        let Some(peer) = self.peers.get(&path.from.address) else { return path };
        match admit(self.gate(&peer.config, &path.from), prefix, &path.received, path.next_hop) {
            Ok(operations) => {
                Path { attributes: changed.by(operations, &path.received), rejected: None, ..path }
            }
            Err(reason) => Path { attributes: path.received.clone(), rejected: Some(reason), ..path },
        }
    }

    fn gate<'a>(&'a self, peer: &'a PeerConfig, from: &Neighbour) -> Gate<'a> {
        Gate {
            asn: self.config.asn_towards(peer),
            own_as_allowed: peer.own_as_allowed,
            router_id: self.config.router_id,
            cluster_id: self.config.cluster(),
            local: from.local,
            external: from.external,
            filters: &peer.import_filters,
            interfaces: &self.config.interfaces,
        }
    }

    pub(super) fn withdraw(&mut self, prefix: IpNet, peer: IpAddr) {
        if self.table.paths(&prefix).iter().any(|path| path.from.address == peer) {
            self.touch(prefix);
            self.table.remove(&prefix, peer);
        }
    }

    /// Withdraws what a peer told; with `stale_only`, what it has not repeated.
    pub(super) fn forget(&mut self, peer: IpAddr, stale_only: bool) {
        for prefix in self.table.told_by(peer, stale_only) {
            self.withdraw(prefix, peer);
        }
    }
}
