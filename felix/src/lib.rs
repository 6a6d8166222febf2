//! From facts about a node to the routes and the ruleset its kernel should have.
//!
//! [`desired()`] computes them from [`Facts`] and from what the kernel has ([`Snapshot`]), with a [`Path`] per remote
//! prefix that says why; [`plan()`] is what lies between the two, as [`Operation`]s. [`Lifecycle`] decides when `tunl0` is
//! up and published. [`ruleset_to_write()`] does for nftables in one step what those do for routes. Nothing here opens, sleeps or logs; the door to Linux is `manx-felix-linux`.

mod desired;
mod detect;
mod detection;
mod facts;
mod kernel;
mod path;
mod plan;
mod remote;
mod resolve;
mod route;
mod ruleset;
#[cfg(test)]
mod testing;
mod tunnel;

pub use desired::{Desired, Held, desired};
pub use detect::Mtu;
pub use detection::Detection;
pub use facts::{Facts, RemoteNode};
pub use kernel::{
    Attached, Begun, BoxFuture, Ends, Kernel, KernelError, MacAddress, Operation, PodLink, TUNNEL_DEVICE,
};
pub use path::Path;
pub use plan::{Sweep, plan};
pub use route::{Hop, IfIndex, Link, Ownership, Protocol, Route, RouteClass, RouteKey, Snapshot, Target};
pub use ruleset::{
    Action, AddressSet, Chain, FoundRuleset, Hook, Match, Membership, Rule, Ruleset, RulesetFacts,
    RulesetParameters, TABLE, ruleset_to_write,
};
pub use tunnel::{AddressWish, Decision, Lifecycle, Publish, TunnelFacts};
