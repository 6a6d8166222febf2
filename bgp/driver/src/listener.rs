//! The task that listens, and hands each connection to the peer whose address it comes from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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

/// Where accepted connections go, by the peer's address.
pub(crate) type Doors = BTreeMap<IpAddr, mpsc::Sender<Connection>>;

/// The listener as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Where it listens; `None` when it is not to.
    pub address: Option<SocketAddr>,
    /// Why it does not, in words; it is tried again every 5 s.
    pub error: Option<String>,
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
    pub(crate) async fn run(self) {
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

    async fn serve(&self, listener: &mut dyn Listener, logged: &mut Option<Instant>) {
        loop {
            match listener.accept().await {
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

    fn admit(&self, connection: Connection, logged: &mut Option<Instant>) {
        let from = connection.remote.ip().to_canonical();
        let door = self.doors.borrow().get(&from).cloned();
        match door {
            // A peer that connects faster than its task looks loses the connection, and will come again.
            Some(door) => drop(door.try_send(connection)),
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
