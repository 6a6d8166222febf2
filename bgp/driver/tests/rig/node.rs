//! Our side, with the kernel that it would program.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use manx_bgp::session::State;
use manx_bgp::speaker::{BestPath, Change, PeerConfig, PeerStatus, SpeakerConfig};
use manx_bgp_driver::{Bgp, Tcp};
use tokio::time::{sleep, timeout};

use super::{Bird, OUR_ASN, OURS, asn};

pub(crate) struct Node {
    pub(crate) bgp: Bgp,
    pub(crate) config: SpeakerConfig,
    pub(crate) routes: BTreeMap<IpNet, BestPath>,
    pub(crate) withdrawals: usize,
    pub(crate) converged: bool,
}

impl Node {
    /// A peer of these BIRDs that originates [`OURS`].
    pub(crate) fn start(us: SocketAddr, birds: &[&Bird], change: impl FnOnce(&mut SpeakerConfig)) -> Self {
        let IpAddr::V4(router_id) = us.ip() else { panic!("{us}") };
        let mut config = SpeakerConfig::new(asn(OUR_ASN), router_id);
        for bird in birds {
            let peer = PeerConfig {
                port: bird.address.port(),
                local_address: Some(us.ip()),
                ..PeerConfig::new(format!("bird_{}", bird.address), asn(bird.asn))
            };
            config.peers.insert(bird.address.ip(), peer);
        }
        change(&mut config);
        let mut bgp = Bgp::new(Arc::new(Tcp), config.clone(), Some(us), 1);
        bgp.originate(BTreeSet::from([OURS.parse().unwrap()]));
        Self { bgp, config, routes: BTreeMap::new(), withdrawals: 0, converged: false }
    }

    /// Takes another configuration while everything runs.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut SpeakerConfig)) {
        change(&mut self.config);
        self.bgp.configure(self.config.clone());
    }

    pub(crate) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::select! {
                    changes = self.bgp.next() => self.apply(changes),
                    () = sleep(Duration::from_millis(50)) => (),
                }
            }
        };
        let done = timeout(Duration::from_secs(40), wait).await;
        assert!(done.is_ok(), "never happened: {what}\n{:#?}", self.bgp.status());
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Best { prefix, path: Some(path) } => drop(self.routes.insert(prefix, path)),
                Change::Best { prefix, path: None } => {
                    self.routes.remove(&prefix);
                    self.withdrawals += 1;
                }
                Change::Converged => self.converged = true,
                Change::Peers => (),
            }
        }
    }

    pub(crate) fn peer(&self, bird: &Bird) -> PeerStatus {
        let mut peers = self.bgp.status().speaker.peers.into_iter();
        peers.find(|peer| peer.address == bird.address.ip()).unwrap()
    }

    pub(crate) fn established(&self, bird: &Bird) -> bool {
        self.peer(bird).state == State::Established
    }

    pub(crate) fn has(&self, prefix: &str) -> bool {
        self.routes.contains_key(&prefix.parse().unwrap())
    }

    pub(crate) fn path(&self, prefix: &str) -> &BestPath {
        &self.routes[&prefix.parse().unwrap()]
    }
}
