//! A node of its own for each test: a namespace with eth0, a runtime, and an open kernel.

use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use manx_felix::{Kernel, KernelError, PodLink, Snapshot};
use manx_felix_linux::LinuxKernel;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;

/// How long anything may take; generous, since the guest is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing must happen, to be sure that it does not.
const QUIET: Duration = Duration::from_secs(1);

/// A network namespace, which goes with this value.
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let name = format!("manx-felix-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&format!("ip netns add {name}"));
        Self { name }
    }

    pub(crate) fn file(&self) -> OwnedFd {
        File::open(format!("/run/netns/{}", self.name)).expect("the namespace was made").into()
    }

    /// Runs a command line inside; it must succeed. Returns what it printed.
    pub(crate) fn run(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.name))
    }

    pub(crate) fn sysctl(&self, name: &str) -> String {
        self.run(&format!("cat /proc/sys/{name}")).trim().to_owned()
    }

    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = self.file();
        thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
                work()
            };
            scope.spawn(inside).join().expect("no panic")
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command");
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("these tests need the program `{program}`: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A node with eth0 (172.171.5.95/24), without a default route.
pub(crate) struct Node {
    pub(crate) kernel: LinuxKernel,
    runtime: Runtime,
    pub(crate) netns: Netns,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with_event_buffer(16 << 20)
    }

    pub(crate) fn with_event_buffer(bytes: usize) -> Self {
        let netns = Netns::new();
        netns.run("ip link set lo up");
        netns.run("ip link add eth0 type veth peer name wire");
        netns.run("ip addr add 172.171.5.95/24 dev eth0");
        netns.run("ip link set eth0 up");
        netns.run("ip link set wire up");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let handle = runtime.handle().clone();
        let kernel = netns.inside(|| {
            let _guard = handle.enter();
            LinuxKernel::with_event_buffer(bytes)
        });
        Self { kernel: kernel.expect("the kernel opens"), runtime, netns }
    }

    /// The kernel as the next agent opens it.
    pub(crate) fn again(&self) -> LinuxKernel {
        let handle = self.runtime.handle().clone();
        let kernel = self.netns.inside(|| {
            let _guard = handle.enter();
            LinuxKernel::open()
        });
        kernel.expect("the kernel opens")
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(PATIENCE, future).await };
        self.runtime.block_on(limited).expect("it does not take for ever")
    }

    pub(crate) fn read(&self) -> Snapshot {
        self.wait(self.kernel.read()).expect("the kernel can be read")
    }

    pub(crate) fn attach(&self, netns: &Netns, pod: &PodLink) -> Result<(), KernelError> {
        self.wait(self.kernel.attach(netns.file().into(), pod)).map(drop)
    }

    pub(crate) fn check(&self, netns: &Netns, pod: &PodLink) -> Vec<String> {
        self.wait(self.kernel.check(netns.file(), pod)).expect("the pod can be looked at")
    }

    /// Waits for a change that was not ours.
    pub(crate) fn expect_change(&self) {
        self.wait(self.kernel.changed());
    }

    /// Whether a change is told within a while.
    pub(crate) fn is_told_of_a_change(&self) -> bool {
        let limited = async { tokio::time::timeout(QUIET, self.kernel.changed()).await };
        self.runtime.block_on(limited).is_ok()
    }

    /// Tasks may be spawned while this lives.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Forgets the changes up to now.
    pub(crate) fn settle(&self) {
        while self.is_told_of_a_change() {}
    }
}

/// The pod number `n`, with IPv4 alone.
pub(crate) fn pod(n: u8) -> PodLink {
    PodLink {
        host_device: format!("cali{n:011x}"),
        pod_device: "eth0".to_owned(),
        handle: format!("k8s-pod-network.container{n}"),
        destinations: Vec::new(),
        queues: None,
        addresses: vec![[192, 168, 236, n].into()],
        mtu: 1480,
        pod_mac: None,
        allow_ip_forwarding: false,
    }
}

/// The pod number `n`, with both families.
pub(crate) fn dual(n: u8) -> PodLink {
    let addresses = vec![[192, 168, 236, n].into(), [0xfd00, 0x10, 0, 0, 0, 0, 0, u16::from(n)].into()];
    PodLink { addresses, ..pod(n) }
}
