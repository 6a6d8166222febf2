//! The task that listens, and hands each connection to the peer whose address it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use manx_bgp::session::Secret;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::transport::{Connection, Listener, Transport};

/// The pause before listening is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The pause after an accept that failed, as for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);
/// Strangers are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The peers, by address.
pub(crate) type Doors = BTreeMap<IpAddr, Door>;

/// What the listener knows of a peer.
#[derive(Clone)]
pub(crate) struct Door {
    /// Where its connections go.
    pub(crate) connections: mpsc::Sender<Connection>,
    /// What they must be signed with.
    pub(crate) key: Option<Secret>,
}

/// The keys that the socket knows. A change to one does not touch the others, nor connections that exist.
#[derive(Default)]
struct Keys(BTreeMap<IpAddr, Secret>);

impl Keys {
    /// Makes the socket know the keys of these peers and no others. The faults, in words.
    fn set(&mut self, listener: &mut dyn Listener, doors: &Doors) -> Vec<String> {
        let wanted = |peer: &IpAddr| doors.get(peer).and_then(|door| door.key.as_ref());
        let peers: BTreeSet<_> = self.0.keys().chain(doors.keys()).copied().collect();
        let mut faults = Vec::new();
        for peer in peers {
            let key = wanted(&peer);
            if self.0.get(&peer) == key {
                continue;
            }
            match (listener.set_key(peer, key), key) {
                (Ok(()), Some(key)) => drop(self.0.insert(peer, key.clone())),
                (Ok(()), None) => drop(self.0.remove(&peer)),
                (Err(error), _) => faults.push(format!("cannot set the password of {peer}: {error}")),
            }
        }
        faults
    }
}

/// The listener as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Where it listens; `None` when it is not to.
    pub address: Option<SocketAddr>,
    /// Why it does not, in words; it is tried again every 5 s.
    pub error: Option<String>,
    /// Peers that cannot connect to us since their password cannot be set, with words why; it is tried again every 5 s.
    pub faults: Vec<String>,
    /// Connections from addresses that are no peer's, which were closed.
    pub strangers: u64,
}

pub(crate) struct ListenerTask {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) address: SocketAddr,
    pub(crate) doors: watch::Receiver<Doors>,
    pub(crate) status: watch::Sender<ListenerStatus>,
}

impl ListenerTask {
    pub(crate) async fn run(mut self) {
        let mut logged = None;
        loop {
            match self.transport.listen(self.address).await {
                Ok(mut listener) => {
                    self.report(None);
                    self.serve(&mut *listener, &mut logged).await;
                }
                Err(error) => {
                    self.report(Some(error.to_string()));
                    sleep(RETRY).await;
                }
            }
        }
    }

    fn report(&self, error: Option<String>) {
        self.status.send_if_modified(|status| {
            let changed = status.error != error;
            if changed {
                match &error {
                    Some(error) => warn!(address = %self.address, %error, "BGP cannot listen"),
                    None => info!(address = %self.address, "BGP listens"),
                }
                status.error = error;
            }
            changed
        });
    }

    async fn serve(&mut self, listener: &mut dyn Listener, logged: &mut Option<Instant>) {
        let mut keys = Keys::default();
        loop {
            let faults = keys.set(listener, &self.doors.borrow_and_update());
            let faulty = !faults.is_empty();
            self.report_faults(faults);
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Ok(()) = self.doors.changed() => continue,
                () = sleep(RETRY), if faulty => continue,
            };
            match accepted {
                Ok(connection) => self.admit(connection, logged),
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => (),
                Err(error) => {
                    self.report(Some(format!("accept: {error}")));
                    sleep(BREATH).await;
                    continue;
                }
            }
            self.report(None);
        }
    }

    fn report_faults(&self, faults: Vec<String>) {
        self.status.send_if_modified(|status| {
            let changed = status.faults != faults;
            if changed {
                faults.iter().for_each(|fault| warn!(%fault, "BGP peer cannot connect to us"));
                status.faults = faults;
            }
            changed
        });
    }

    fn admit(&self, connection: Connection, logged: &mut Option<Instant>) {
        let from = connection.remote.ip().to_canonical();
        let door = self.doors.borrow().get(&from).cloned();
        match door {
            // A peer that connects faster than its task looks loses the connection, and will come again.
            Some(door) => drop(door.connections.try_send(connection)),
            None => {
                self.status.send_modify(|status| status.strangers += 1);
                if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                    *logged = Some(Instant::now());
                    info!(%from, "closed a BGP connection from an address that is no peer's");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::BoxFuture;
    use std::io;

    /// Takes keys for IPv4 peers only, and notes what it was given.
    #[derive(Default)]
    struct Ear(Vec<(IpAddr, Option<Secret>)>);

    impl Listener for Ear {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
            Box::pin(std::future::pending())
        }

        fn set_key(&mut self, peer: IpAddr, key: Option<&Secret>) -> io::Result<()> {
            if peer.is_ipv6() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.0.push((peer, key.cloned()));
            Ok(())
        }
    }

    fn doors(keys: &[(&str, Option<&str>)]) -> Doors {
        let door = |key: &Option<&str>| Door {
            connections: mpsc::channel(1).0,
            key: key.map(|word| Secret::new(word.as_bytes()).unwrap()),
        };
        keys.iter().map(|(peer, key)| (peer.parse().unwrap(), door(key))).collect()
    }

    #[test]
    fn only_the_key_that_changed_is_set_and_a_fault_stops_no_other() {
        let (mut ear, mut keys) = (Ear::default(), Keys::default());
        let secret = |word: &str| Some(Secret::new(word.as_bytes()).unwrap());
        let given = |ear: &mut Ear| std::mem::take(&mut ear.0);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = doors(&[("10.0.0.1", Some("a")), ("10.0.0.2", Some("b")), ("10.0.0.3", None)]);
        assert!(keys.set(&mut ear, &first).is_empty());
        assert_eq!(given(&mut ear), [(address("10.0.0.1"), secret("a")), (address("10.0.0.2"), secret("b"))]);
        assert!(keys.set(&mut ear, &first).is_empty() && given(&mut ear).is_empty());
        let changed = doors(&[("10.0.0.1", Some("a")), ("10.0.0.2", Some("c")), ("fd00::1", Some("d"))]);
        let faults = keys.set(&mut ear, &changed);
        assert!(matches!(&faults[..], [fault] if fault.starts_with("cannot set the password of fd00::1")));
        assert_eq!(given(&mut ear), [(address("10.0.0.2"), secret("c"))]);
        assert_eq!(keys.set(&mut ear, &changed).len(), 1, "it is tried again");
        assert!(keys.set(&mut ear, &doors(&[("10.0.0.2", None)])).is_empty());
        assert_eq!(given(&mut ear), [(address("10.0.0.1"), None), (address("10.0.0.2"), None)]);
    }
}
