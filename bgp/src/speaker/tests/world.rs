//! A speaker whose peers are played by hand; what it transmits is decoded and kept as the peer would.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipnet::IpNet;
use manx_model::Asn;

use crate::policy::ExportPolicy;
use crate::session::{Negotiated, Output, Reason};
use crate::speaker::{Change, PeerConfig, Speaker, SpeakerConfig};
use crate::wire::{
    Announcement, AsPath, Attributes, Context, Family, GracefulFamily, GracefulRestart, Message, Open,
    Segment, SegmentKind, Update, next_frame,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// What a peer knows of us, and how often it was told that this is all.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) routes: BTreeMap<IpNet, (Attributes, IpAddr)>,
    pub(super) ends: usize,
    pub(super) messages: usize,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) speaker: Speaker,
    pub(super) heard: BTreeMap<u8, Heard>,
}

pub(super) fn address(peer: u8) -> IpAddr {
    [10, 0, 0, peer].into()
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

/// Peers below 10 are inside our AS, the others in 65000 + number. Odd ones hear everything.
pub(super) fn config(peers: &[u8]) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(Asn::DEFAULT, [10, 0, 0, 100].into());
    for peer in peers {
        let asn = if *peer < 10 { Asn::DEFAULT } else { asn(65000 + u32::from(*peer)) };
        let mut wanted = PeerConfig::new(format!("peer-{peer}"), asn);
        wanted.export = if peer % 2 == 1 { ExportPolicy::All } else { ExportPolicy::Own };
        config.peers.insert(address(*peer), wanted);
    }
    config
}

/// What a peer says about graceful restart: whether it restarted, and whether it forwarded meanwhile.
pub(super) fn graceful(restarting: bool, forwarding: bool) -> Option<GracefulRestart> {
    let families = vec![GracefulFamily { family: Family::IPV4_UNICAST, forwarding }];
    Some(GracefulRestart { restarting, notification: false, time: 120 * SECOND, families })
}

impl World {
    /// Peers 2 and 3 inside, 11 and 12 outside; nothing established, nothing originated.
    pub(super) fn new(change: impl FnOnce(&mut SpeakerConfig)) -> Self {
        let mut config = config(&[2, 3, 11, 12]);
        change(&mut config);
        let now = Instant::now();
        Self { now, speaker: Speaker::new(now, config), heard: BTreeMap::new() }
    }

    pub(super) fn says(&mut self, peer: u8, output: Output) {
        self.speaker.handle(self.now, address(peer), output);
    }

    pub(super) fn up_with(&mut self, peer: u8, graceful: Option<GracefulRestart>) {
        let open =
            Open { my_as: 0, hold_time: 90, identifier: [10, 0, 0, peer].into(), capabilities: Vec::new() };
        let negotiated = Negotiated {
            context: Context { four_octet: true, external: peer >= 10 },
            hold_time: 90 * SECOND,
            route_refresh: true,
            graceful,
            local: [10, 0, 0, 1].into(),
            router_id: open.identifier,
            open,
        };
        self.heard.insert(peer, Heard::default());
        self.says(peer, Output::Established(Box::new(negotiated)));
    }

    pub(super) fn up(&mut self, peer: u8) {
        self.up_with(peer, graceful(false, false));
    }

    pub(super) fn down(&mut self, peer: u8, graceful: bool) {
        self.says(peer, Output::Down { reason: Reason::Lost("gone".into()), graceful });
    }

    pub(super) fn end_of_rib(&mut self, peer: u8) {
        self.says(peer, Output::EndOfRib(Family::IPV4_UNICAST));
    }

    pub(super) fn announces(&mut self, peer: u8, prefix: &str, change: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        if peer >= 10 {
            let asns = vec![asn(65000 + u32::from(peer))];
            attributes.as_path = AsPath(vec![Segment { kind: SegmentKind::Sequence, asns }]);
        }
        change(&mut attributes);
        let announced = vec![Announcement { next_hop: address(peer), prefixes: vec![net(prefix)] }];
        self.says(peer, Output::Update(Box::new(Update { attributes, announced, ..Update::default() })));
    }

    pub(super) fn withdraws(&mut self, peer: u8, prefix: &str) {
        let update = Update { withdrawn: vec![net(prefix)], ..Update::default() };
        self.says(peer, Output::Update(Box::new(update)));
    }

    pub(super) fn originates(&mut self, prefixes: &[&str]) {
        self.speaker.originate(self.now, prefixes.iter().map(|prefix| net(prefix)).collect());
    }

    /// Changes of best paths, `prefix peer` or `prefix -`; [`Change::Converged`] as such.
    pub(super) fn changes(&mut self) -> Vec<String> {
        let word = |change: Change| match change {
            Change::Best { prefix, path: Some(path) } => Some(format!("{prefix} {}", path.peer)),
            Change::Best { prefix, path: None } => Some(format!("{prefix} -")),
            Change::Converged => Some("converged".to_owned()),
            Change::Peers => None,
        };
        self.speaker.take_changes().into_iter().filter_map(word).collect()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.speaker.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.speaker.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Lets the speaker tell a peer one batch; whether there was one.
    pub(super) fn transmit(&mut self, peer: u8) -> bool {
        let Some(bytes) = self.speaker.transmit(address(peer)) else { return false };
        let heard = self.heard.entry(peer).or_default();
        let mut buffer = BytesMut::from(&bytes[..]);
        let context = Context { four_octet: true, external: false };
        while let Some(frame) = next_frame(&mut buffer).unwrap() {
            let Ok(Message::Update(update)) = Message::decode(&frame, context) else { panic!() };
            assert_eq!(update.errors, []);
            heard.messages += 1;
            heard.ends += usize::from(update.end_of_rib.is_some());
            for prefix in update.withdrawn {
                assert!(heard.routes.remove(&prefix).is_some(), "{prefix} is withdrawn, but was never told");
            }
            for each in update.announced {
                for prefix in each.prefixes {
                    heard.routes.insert(prefix, (update.attributes.clone(), each.next_hop));
                }
            }
        }
        true
    }

    pub(super) fn transmit_all(&mut self) {
        for peer in [2, 3, 11, 12] {
            while self.transmit(peer) {}
        }
        assert!(self.speaker.pending().is_empty());
    }

    /// What a peer knows now.
    pub(super) fn hears(&mut self, peer: u8) -> Vec<String> {
        self.transmit_all();
        self.heard[&peer].routes.keys().map(ToString::to_string).collect()
    }
}
