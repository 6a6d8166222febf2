//! What a peer has been told, and what it is still to be told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;

use super::desk::Desk;
use super::{Peer, Speaker, Up};
use crate::policy::{Candidate, Exported, Recipient, Rules};
use crate::wire::{Attributes, Context, Family, Message, Update, encode_announcements, encode_withdrawals};

/// Prefixes looked at for one batch: enough to fill messages, little enough for a peer's buffer.
const BATCH: usize = 4096;

/// The adj-RIB-out of one peer.
#[derive(Debug, Default)]
pub(super) struct AdjRibOut {
    /// What the peer knows; `None` for what must be said again whatever it is.
    told: BTreeMap<IpNet, Option<Exported>>,
    /// Prefixes of which the peer may not know the truth.
    dirty: BTreeSet<IpNet>,
    end_of_rib_sent: bool,
}

/// Changes to be told at once: prefixes with equal attributes share messages.
#[derive(Default)]
struct Batch {
    withdrawn: Vec<IpNet>,
    announced: Vec<(Exported, Vec<IpNet>)>,
    /// By the address of the attributes: equal ones are at one place, see [`Desk`].
    index: HashMap<(*const Attributes, IpAddr), usize>,
}

impl AdjRibOut {
    /// How many prefixes the peer has been told.
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }

    /// Of these prefixes the peer may not know the truth any more.
    pub(super) fn mark<'a>(&mut self, prefixes: impl IntoIterator<Item = &'a IpNet>) {
        self.dirty.extend(prefixes);
    }

    /// Of everything that it was told, either.
    pub(super) fn mark_told(&mut self) {
        self.dirty.extend(self.told.keys());
    }

    /// Takes up to [`BATCH`] dirty prefixes, and notes them as told.
    fn take(&mut self, mut wanted: impl FnMut(&IpNet) -> Option<Exported>) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            let Some(prefix) = self.dirty.pop_first() else { break };
            match wanted(&prefix) {
                Some(exported) => {
                    let told = self.told.entry(prefix).or_default();
                    if told.as_ref() != Some(&exported) {
                        *told = Some(exported.clone());
                        batch.announce(exported, prefix);
                    }
                }
                None if self.told.remove(&prefix).is_some() => batch.withdrawn.push(prefix),
                _ => (),
            }
        }
        batch
    }
}

impl Batch {
    fn announce(&mut self, exported: Exported, prefix: IpNet) {
        let next = self.announced.len();
        let key = (Arc::as_ptr(&exported.attributes), exported.next_hop);
        let index = *self.index.entry(key).or_insert_with(|| {
            self.announced.push((exported, Vec::new()));
            next
        });
        self.announced[index].1.push(prefix);
    }

    /// Appends the messages; withdraws come first, since they make room at the peer. Prefixes whose attributes leave no room for them
    /// are withdrawn and returned.
    fn encode(mut self, context: Context, out: &mut BytesMut) -> Vec<IpNet> {
        let mut announcements = BytesMut::new();
        let mut impossible = Vec::new();
        for (exported, prefixes) in self.announced {
            let Exported { attributes, next_hop } = exported;
            if encode_announcements(&attributes, next_hop, &prefixes, context, &mut announcements).is_err() {
                impossible.extend(prefixes);
            }
        }
        self.withdrawn.extend(&impossible);
        encode_withdrawals(&self.withdrawn, out);
        out.unsplit(announcements);
        impossible
    }
}

impl Speaker {
    /// Established peers that have something to be told.
    pub fn pending(&self) -> Vec<IpAddr> {
        let pending = self.peers.iter().filter(|(_, peer)| {
            let out = peer.up.as_ref().map(|up| &up.out);
            out.is_some_and(|out| !out.dirty.is_empty() || self.owes_end_of_rib(peer))
        });
        pending.map(|(address, _)| *address).collect()
    }

    /// The next batch of UPDATEs for a peer; `None` when it knows everything.
    pub fn transmit(&mut self, address: IpAddr) -> Option<Bytes> {
        // The peer is taken out while the rest of the speaker is asked what it is to be told.
        let mut peer = self.peers.remove(&address)?;
        let bytes = self.transmit_to(address, &mut peer);
        self.peers.insert(address, peer);
        bytes
    }

    fn transmit_to(&self, address: IpAddr, peer: &mut Peer) -> Option<Bytes> {
        let Peer { config, up, .. } = peer;
        let Up { negotiated, out } = up.as_mut()?;
        let to = Recipient {
            address,
            external: negotiated.context.external,
            client: config.client,
            our_asn: self.config.asn_towards(config),
            cluster_id: self.config.cluster(),
            us: self.next_hop(negotiated.local),
            next_hop: config.next_hop,
        };
        let rules = Rules {
            filters: &config.export_filters,
            policy: config.export,
            node: &self.config.export,
            interfaces: &self.config.interfaces,
        };
        let mut desk = Desk::new(to, rules);
        let mut bytes = BytesMut::new();
        // After a change of policy most of what is looked at may be as the peer knows it.
        while bytes.is_empty() && !out.dirty.is_empty() {
            let batch = out.take(|prefix| self.wanted(prefix, config.hears_learned(), &mut desk));
            for impossible in batch.encode(negotiated.context, &mut bytes) {
                out.told.remove(&impossible);
            }
        }
        let context = negotiated.context;
        if self.owes_end_of_rib(peer) {
            let end = Message::Update(Update::end_of_rib(Family::IPV4_UNICAST));
            end.encode(context, &mut bytes).expect("the marker is short");
            peer.up.iter_mut().for_each(|up| up.out.end_of_rib_sent = true);
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    /// What a peer is to know about a prefix.
    fn wanted(&self, prefix: &IpNet, hears_learned: bool, desk: &mut Desk<'_>) -> Option<Exported> {
        if Family::of(prefix) != Family::IPV4_UNICAST {
            return None;
        }
        if self.originated.as_ref().is_some_and(|originated| originated.contains(prefix)) {
            return desk.own(prefix);
        }
        if !hears_learned || self.convergence.defers_selection() {
            return None;
        }
        let (path, _) = self.table.best(prefix)?;
        let client = self.peers.get(&path.from.address).is_some_and(|peer| peer.config.client);
        desk.export(prefix, Candidate::Learned(path, client))
    }

    /// The peer has been told everything but that this is all (RFC 4724 §4.1). Before the owner has said what we
    /// originate, and before routes of others are chosen, it is not all.
    fn owes_end_of_rib(&self, peer: &Peer) -> bool {
        let Some(up) = &peer.up else { return false };
        let chosen = !peer.config.hears_learned() || !self.convergence.defers_selection();
        let ready = up.out.dirty.is_empty() && !up.out.end_of_rib_sent && chosen && self.originated.is_some();
        ready && up.negotiated.graceful.is_some()
    }

    /// Marks a prefix for all peers that might hear of it.
    pub(super) fn mark_dirty(&mut self, prefix: IpNet) {
        let own = self.originated.as_ref().is_some_and(|originated| originated.contains(&prefix));
        for peer in self.peers.values_mut() {
            let concerned = own || peer.config.hears_learned();
            let Some(up) = &mut peer.up else { continue };
            if concerned || up.out.told.contains_key(&prefix) {
                up.out.dirty.insert(prefix);
            }
        }
    }

    /// Marks everything for a peer, as if it knew nothing, but withdraws what it should not know.
    pub(super) fn tell_everything(&mut self, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let Some(up) = &mut peer.up else { return };
        let AdjRibOut { told, dirty, .. } = &mut up.out;
        told.values_mut().for_each(|told| *told = None);
        dirty.extend(told.keys());
        dirty.extend(self.originated.iter().flatten());
        if peer.config.hears_learned() {
            dirty.extend(self.table.prefixes());
        }
    }

    /// Our address towards the peer; over IPv6 the identifier, which is an address of ours, stands for it.
    fn next_hop(&self, local: IpAddr) -> Ipv4Addr {
        match local.to_canonical() {
            IpAddr::V4(local) => local,
            IpAddr::V6(_) => self.config.router_id,
        }
    }
}
