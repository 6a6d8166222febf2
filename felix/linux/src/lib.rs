//! The only door to the Linux kernel: netlink, nftables, namespaces, sysctls.
//!
//! [`LinuxKernel`] implements `manx_felix::Kernel` for the network namespace in which it is opened. Every call that waits
//! for the kernel runs on a blocking thread with a socket of its own, so that calls overlap; [`Kernel::changed`] alone is
//! asynchronous.

mod check;
mod error;
mod link;
mod message;
mod monitor;
mod netns;
mod nft;
mod parse;
mod parts;
mod pod;
mod read;
mod route;
mod socket;
mod sysctl;
mod tunnel;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manx_felix::{
    Attached, Begun, BoxFuture, FoundRuleset, Kernel, KernelError, Operation, PodLink, Ruleset, Snapshot,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::error::{failed, refuse};
use crate::monitor::{EVENT_BUFFER, Monitor};
use crate::nft::{Nft, Watch};
use crate::socket::{Socket, Sockets};
use crate::sysctl::{Parameter, Sysctl};

/// The kernel of one network namespace. A clone is the same.
#[derive(Clone)]
pub struct LinuxKernel {
    node: Arc<Node>,
}

/// All that belongs to the node's namespace.
pub(crate) struct Node {
    sockets: Sockets,
    monitor: Monitor,
    nft: Nft,
    /// `None` where the kernel has no nfnetlink, and so nobody can change our table.
    watch: Option<Watch>,
    sysctl: Sysctl,
    /// The node is to forward packets; known once it has been prepared.
    forwards: AtomicBool,
}

impl LinuxKernel {
    /// Opens the network namespace of the calling thread; the thread may leave it afterwards. Must be called inside a
    /// tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    /// Netlink or `/proc/sys/net` cannot be opened.
    pub fn open() -> Result<Self, KernelError> {
        Self::with_event_buffer(EVENT_BUFFER)
    }

    /// Like [`Self::open`], with a receive buffer for events of `bytes` (the kernel doubles it, and has a minimum of
    /// its own). One that is too small costs reads of everything, and nothing else.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_event_buffer(bytes: usize) -> Result<Self, KernelError> {
        let action = "opening the kernel's network interface";
        tokio::runtime::Handle::try_current().map_err(|error| refuse(action, error.to_string()))?;
        let open = || -> io::Result<Node> {
            let sockets = Sockets::new(netns::current()?, NETLINK_ROUTE);
            let monitor = Monitor::open(sockets.ports(), bytes)?;
            let nft = Nft::new(netns::current()?);
            let watch = Watch::open(nft.ports()).ok();
            let (sysctl, forwards) = (Sysctl::open(true)?, AtomicBool::new(false));
            Ok(Node { sockets, monitor, nft, watch, sysctl, forwards })
        };
        Ok(Self { node: Arc::new(open().map_err(|error| failed(action, &error))?) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Node, &mut Socket) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        let with_socket = move |node: &Node| {
            node.sockets
                .with(|socket| work(node, socket))
                .unwrap_or_else(|error| Err(failed("opening a netlink socket", &error)))
        };
        self.on_a_thread(action, with_socket).await
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Node) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        let node = Arc::clone(&self.node);
        match tokio::task::spawn_blocking(move || work(&node)).await {
            Ok(result) => result,
            Err(error) => Err(refuse(action, format!("the work was broken off: {error}"))),
        }
    }
}

impl Node {
    fn netns(&self) -> BorrowedFd<'_> {
        self.sockets.netns().as_fd()
    }

    /// See [`Monitor::watch_ipv6`].
    fn watch_ipv6(&self) -> Result<bool, KernelError> {
        self.monitor.watch_ipv6().map_err(|error| failed("watching IPv6 routes", &error))
    }

    fn forwards(&self) -> bool {
        self.forwards.load(Ordering::Relaxed)
    }
}

impl Kernel for LinuxKernel {
    fn prepare<'a>(
        &'a self,
        device: &'a str,
        forwarding: bool,
    ) -> BoxFuture<'a, Result<Vec<String>, KernelError>> {
        let device = device.to_owned();
        Box::pin(self.blocking("preparing the node", move |node, _| prepare(node, &device, forwarding)))
    }

    fn read(&self) -> BoxFuture<'_, Result<Snapshot, KernelError>> {
        Box::pin(self.blocking("reading links and routes", read))
    }

    fn apply(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Result<(), KernelError>>> {
        Box::pin(async move {
            let count = operations.len();
            let apply = move |node: &Node, socket: &mut Socket| {
                if operations.iter().any(is_ipv6) {
                    node.watch_ipv6()?;
                }
                Ok(apply(node, socket, &operations))
            };
            let applied = self.blocking("writing", apply);
            applied.await.unwrap_or_else(|error| vec![Err(error); count])
        })
    }

    fn ruleset(&self) -> BoxFuture<'_, Result<Option<FoundRuleset>, KernelError>> {
        Box::pin(self.on_a_thread("reading nftables", |node| node.nft.read()))
    }

    fn write_ruleset(&self, ruleset: Option<Ruleset>) -> BoxFuture<'_, Result<(), KernelError>> {
        Box::pin(self.on_a_thread("writing nftables", move |node| node.nft.write(ruleset.as_ref())))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        let of_table = async {
            match &self.node.watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        Box::pin(async {
            tokio::select! {
                () = self.node.monitor.changed() => {}
                () = of_table => {}
            }
        })
    }

    fn begin<'a>(
        &'a self,
        netns: OwnedFd,
        pod: &'a PodLink,
        ipv6: bool,
    ) -> BoxFuture<'a, Result<Begun, KernelError>> {
        let pod = pod.clone();
        let begin = move |node: &Node, socket: &mut Socket| {
            let ends = pod::begin(node, socket, &netns, &pod, ipv6)?;
            Ok(Begun { netns, ends })
        };
        Box::pin(self.blocking("beginning to attach a pod", begin))
    }

    fn attach<'a>(&'a self, begun: Begun, pod: &'a PodLink) -> BoxFuture<'a, Result<Attached, KernelError>> {
        let pod = pod.clone();
        let attach = move |node: &Node, socket: &mut Socket| pod::attach(node, socket, &begun, &pod);
        Box::pin(self.blocking("attaching a pod", attach))
    }

    fn check<'a>(
        &'a self,
        netns: OwnedFd,
        pod: &'a PodLink,
    ) -> BoxFuture<'a, Result<Vec<String>, KernelError>> {
        let pod = pod.clone();
        let check = move |node: &Node, socket: &mut Socket| check::check(node, socket, &netns, &pod);
        Box::pin(self.blocking("checking a pod", check))
    }

    fn detach<'a>(&'a self, host_device: &'a str, handle: &'a str) -> BoxFuture<'a, Result<(), KernelError>> {
        let (host_device, handle) = (host_device.to_owned(), handle.to_owned());
        let node = Arc::clone(&self.node);
        let detach = move |_: &Node, socket: &mut Socket| pod::detach(&node, socket, &host_device, &handle);
        Box::pin(self.blocking("detaching a pod", detach))
    }
}

fn read(node: &Node, socket: &mut Socket) -> Result<Snapshot, KernelError> {
    let snapshot = read::snapshot(socket)?;
    // Of IPv6 routes that changed between this read and the beginning of the watch, nobody was told.
    match snapshot.ours().any(|route| route.key.destination.addr().is_ipv6()) && node.watch_ipv6()? {
        true => read::snapshot(socket),
        false => Ok(snapshot),
    }
}

/// Routes in batches, in order with the rest.
fn apply(node: &Node, socket: &mut Socket, operations: &[Operation]) -> Vec<Result<(), KernelError>> {
    let mut results = Vec::with_capacity(operations.len());
    let is_route =
        |operation: &Operation| !matches!(operation, Operation::TunnelUp { .. } | Operation::TunnelDown);
    for run in operations.chunk_by(|one, next| is_route(one) && is_route(next)) {
        match run {
            [Operation::TunnelUp { address, mtu }] => results.push(tunnel::up(node, socket, *address, *mtu)),
            [Operation::TunnelDown] => results.push(tunnel::down(node, socket)),
            routes => {
                for batch in routes.chunks(route::BATCH) {
                    results.extend(route::write(socket, batch));
                    node.monitor.drain();
                }
            }
        }
    }
    results
}

fn is_ipv6(operation: &Operation) -> bool {
    match operation {
        Operation::AddRoute(route) | Operation::ReplaceRoute(route) | Operation::DeleteRoute(route) => {
            route.key.destination.addr().is_ipv6()
        }
        Operation::TunnelUp { .. } | Operation::TunnelDown => false,
    }
}

fn prepare(node: &Node, device: &str, forwarding: bool) -> Result<Vec<String>, KernelError> {
    node.forwards.store(forwarding, Ordering::Relaxed);
    // Only where it changes: writing it resets parameters of every device.
    if forwarding && node.sysctl.read(Parameter::Forwarding)?.as_deref() != Some("1") {
        node.sysctl.write(Parameter::Forwarding, "1")?;
    }
    let value = |device| node.sysctl.read(Parameter::Device(device, "rp_filter"));
    // The kernel goes by the greater of both (Documentation/networking/ip-sysctl.rst).
    let strict = value("all")?.max(value(device)?).as_deref() == Some("1");
    let warning = format!(
        "net.ipv4.conf.{device}.rp_filter is strict (1): while a pool is switched between IPIP and plain routing, packets whose way back differs are dropped; set net.ipv4.conf.{device}.rp_filter=2"
    );
    Ok(if strict { vec![warning] } else { Vec::new() })
}
