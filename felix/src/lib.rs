//! From facts about a node to the routes its kernel should have.

mod kernel;
mod route;

pub use kernel::{Attached, BoxFuture, Kernel, KernelError, MacAddress, Operation, PodLink, TUNNEL_DEVICE};
pub use route::{Hop, IfIndex, Link, Protocol, Route, RouteKey, Snapshot, Target};
