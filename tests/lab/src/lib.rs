//! Small clusters in network namespaces, for the demo and the tests alike.
//!
//! A [`Lab`] is a set of namespaces: one per node, one for the ToR router (or switch) between them, one for a
//! host `outside`, and one per pod. Every link, address and route is made inside them; the machine's own network
//! namespace is never touched. In the ToR runs a real BIRD 2.
//!
//! ```text
//!        172.171.5.0/24 (br5)               172.171.6.0/24 (br6)
//!   node1 .95 ──┐        ┌──────── tor ────────┐        ┌── node3 .95
//!   node2 .96 ──┴── .1 ──┤   BIRD, AS 65000    ├── .1 ──┴── node4 .96
//!                        └── 10.99.0.1 ────────┘
//!                               │
//!                            outside 10.99.0.10
//! ```
//!
//! The lab shells out to `ip`, `birdc`, `tcpdump` and `ping`, with few processes, since starting one costs 70 ms
//! in an emulated guest. A program is placed into a namespace by `setns` on a thread of its own ([`netns::within`]),
//! so that no `ip netns exec` stands between the test and the process that it kills.
//!
//! Needs root. A lab goes away with its value ([`Drop`]), unless it is [kept](Lab::keep); what a crashed test left
//! behind is swept by [`Lab::sweep`] (`lab down --all`).

mod binaries;
mod bird;
mod capture;
mod cluster;
mod cni;
mod get;
mod kube_cluster;
mod kubelet;
pub mod kubernetes;
mod lab;
mod machine;
mod node;
mod ping;
mod plan;
mod process;
mod route_monitor;
mod state;
mod store;
mod stream;
mod tcp;
mod topology;
mod udp;

pub use binaries::{cni_binary, kubernetes_image, kubernetes_program, lab_binary, manx_binary, manx_image};
pub use capture::{Capture, Packet};
pub use cluster::{Cluster, Statuses};
pub use cni::{Cni, CniReply, Pod};
pub use kube_cluster::{
    AGENTS, DNS_SERVICE, HOST_PORT, KubeCluster, KubePod, POD_NET, PORT, Reached, SERVICE,
};
pub use kubelet::Kubelet;
pub use lab::{Lab, Options, Swept};
pub use machine::Machine;
pub use manx_ground::{eventually, netns, slowness, target_dir};
pub use node::Node;
pub use ping::{Ping, PingReport};
pub use process::{Process, Program};
pub use route_monitor::{RouteEvent, RouteMonitor};
pub use stream::{Stream, StreamReport};
pub use tcp::TcpReport;
pub use topology::{Fabric, NodeSpec, ReversePath, Topology};
pub use udp::{UdpPace, UdpProbe, UdpReport};
