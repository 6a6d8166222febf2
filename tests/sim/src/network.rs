//! Connections between machines: TCP as far as a BGP speaker can tell, over the machines' own tables.
//!
//! Bytes arrive late, by chance. They wait while the two machines cannot reach each other, be it for a partition or for
//! want of a route, and with them the news that the other end has closed; so a peer notices by its hold timer only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manx_bgp_driver::{BoxFuture, Connection, Dial, Listener, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split};
use tokio::sync::{mpsc, watch};

use crate::machine::{Kind, Machine};
use crate::trace::trace;
use crate::world::Net;

/// Bytes that may be under way in one direction.
const WINDOW: usize = 64 * 1024;
/// How long a dial to a machine that does not answer takes to fail.
const DIAL: Duration = Duration::from_secs(20);
/// A sender which gets nothing through for as long as this gives up.
const GIVE_UP: Duration = Duration::from_secs(900);

/// All connections. Its clones are the same network.
#[derive(Clone)]
pub struct Network {
    net: Net,
    wires: Arc<Mutex<Wires>>,
}

#[derive(Default)]
struct Wires {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<Connection>>,
    partitions: BTreeSet<(String, String)>,
    established: Vec<(String, String, watch::Sender<bool>)>,
    last_port: u16,
}

impl Network {
    /// The network of `net`.
    pub fn new(net: Net) -> Self {
        Self { net, wires: Arc::default() }
    }

    /// The transport of the programs on `machine`.
    pub fn of(&self, machine: &str) -> Arc<dyn Transport> {
        Arc::new(Here { network: self.clone(), machine: machine.to_owned() })
    }

    /// From now on nothing gets through between the two.
    pub fn part(&self, a: &str, b: &str) {
        self.wires().partitions.insert(pair(a, b));
    }

    /// Everything gets through again.
    pub fn heal(&self) {
        self.wires().partitions.clear();
    }

    /// Resets every connection between the two.
    pub fn reset(&self, a: &str, b: &str) {
        self.wires().established.retain(|(from, to, end)| {
            let hit = pair(from, to) == pair(a, b);
            if hit {
                end.send_replace(true);
            }
            !hit && end.receiver_count() > 0
        });
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine that answers for an address.
    fn machine_of(&self, address: IpAddr) -> Option<String> {
        let IpAddr::V4(address) = address else { return None };
        let world = self.net.world();
        let found = world.machines.iter().find(|(_, machine)| machine.has_address(address));
        found.map(|(name, _)| name.clone())
    }

    fn connected(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let (Some(a), Some(b)) = (self.machine_of(from.ip()), self.machine_of(to.ip())) else { return false };
        let (IpAddr::V4(from), IpAddr::V4(to)) = (from.ip(), to.ip()) else { return false };
        let world = self.net.world();
        let tables = trace(&world, &a, to).is_ok() && trace(&world, &b, from).is_ok();
        tables && !self.wires().partitions.contains(&pair(&a, &b))
    }

    async fn latency(&self) {
        let micros = 100 + self.net.world().random.below(5000);
        tokio::time::sleep(Duration::from_micros(micros as u64)).await;
    }

    /// Waits until bytes get through, as TCP does: again and again, ever more rarely.
    async fn get_through(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let (mut waited, mut pause) = (Duration::ZERO, Duration::from_millis(200));
        while !self.connected(from, to) {
            if waited > GIVE_UP {
                return false;
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        true
    }

    /// One direction of a connection.
    async fn carry(
        self,
        mut source: impl AsyncRead + Unpin,
        mut sink: impl AsyncWrite + Unpin,
        (from, to): (SocketAddr, SocketAddr),
    ) {
        let mut buffer = vec![0; WINDOW];
        loop {
            let Ok(count) = source.read(&mut buffer).await else { return };
            self.latency().await;
            if !self.get_through(from, to).await {
                return;
            }
            if count == 0 {
                // The far end may be gone as well.
                let _ = sink.shutdown().await;
                return;
            }
            if sink.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }

    fn join(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        door: &mpsc::Sender<Connection>,
    ) -> io::Result<Connection> {
        let (ours, our_wire) = duplex(WINDOW);
        let (theirs, their_wire) = duplex(WINDOW);
        let accepted = Connection::new(Box::new(theirs), to, from);
        door.try_send(accepted).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let (our_source, our_sink) = split(our_wire);
        let (their_source, their_sink) = split(their_wire);
        let there = self.clone().carry(our_source, their_sink, (from, to));
        let back = self.clone().carry(their_source, our_sink, (to, from));
        let (end, mut ended) = watch::channel(false);
        let names = (self.machine_of(from.ip()), self.machine_of(to.ip()));
        self.wires().established.push((names.0.unwrap_or_default(), names.1.unwrap_or_default(), end));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => {}
                _ = async { tokio::join!(there, back) } => {}
            }
        });
        Ok(Connection::new(Box::new(ours), from, to))
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.min(b).to_owned(), a.max(b).to_owned())
}

/// The network, seen from one machine.
struct Here {
    network: Network,
    machine: String,
}

impl Here {
    fn own_addresses(&self) -> Vec<ipnet::Ipv4Net> {
        let world = self.network.net.world();
        let wires = |machine: &Machine| -> Vec<ipnet::Ipv4Net> {
            let wires = machine.devices.values().filter(|device| matches!(device.kind, Kind::Wire(_)));
            wires.flat_map(|device| device.link.addresses.clone()).collect()
        };
        world.machines.get(&self.machine).map(wires).unwrap_or_default()
    }

    /// The address which a packet to `remote` gets.
    fn source(&self, remote: IpAddr) -> Option<Ipv4Addr> {
        let own = self.own_addresses();
        let near = own.iter().find(|net| matches!(remote, IpAddr::V4(remote) if net.contains(&remote)));
        near.or(own.first()).map(ipnet::Ipv4Net::addr)
    }
}

impl Transport for Here {
    fn dial(&self, dial: Dial) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let Dial { local, remote, .. } = dial;
            let local = local.or_else(|| self.source(remote.ip()).map(IpAddr::V4));
            let local = local.ok_or(io::ErrorKind::AddrNotAvailable)?;
            let port = {
                let mut wires = self.network.wires();
                wires.last_port = wires.last_port.wrapping_add(1).max(1024);
                wires.last_port
            };
            let from = SocketAddr::new(local, port);
            self.network.latency().await;
            if !self.network.connected(from, remote) {
                tokio::time::sleep(DIAL).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            let door = self.network.wires().listeners.get(&remote).cloned();
            let door = door.filter(|door| !door.is_closed()).ok_or(io::ErrorKind::ConnectionRefused)?;
            let connection = self.network.join(from, remote, &door)?;
            self.network.latency().await;
            Ok(connection)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = match address.ip().is_unspecified() {
                true => {
                    let own = self.own_addresses().into_iter();
                    own.map(|net| SocketAddr::new(net.addr().into(), address.port())).collect()
                }
                false => vec![address],
            };
            let (door, accepted) = mpsc::channel(16);
            let mut wires = self.network.wires();
            for address in addresses {
                if wires.listeners.get(&address).is_some_and(|door| !door.is_closed()) {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                wires.listeners.insert(address, door.clone());
            }
            Ok(Box::new(Accepted(accepted)) as Box<dyn Listener>)
        })
    }
}

struct Accepted(mpsc::Receiver<Connection>);

impl Listener for Accepted {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(connection) => Ok(connection),
                None => std::future::pending().await,
            }
        })
    }
}
