//! When `tunl0` is up, published and gone: receive before send, and stop sending long before it stops receiving.
//!
//! A level-triggered machine: [`Lifecycle::step`] is asked again whenever something changed or its deadline passed, and
//! answers with everything that is to be done now. All it remembers is since when no pool wants the tunnel, and
//! when the kernel last refused it; both begin anew with the process.
//!
//! ```text
//! wanted:    assign address -> TunnelUp -> publish      (others send protocol 4 only now)
//! unwanted:  unpublish at once -> a minute in sync -> TunnelDown -> release address
//! ```

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use manx_model::{IpPool, IpipMode};

use crate::{KernelError, Link, Mtu, Operation, Snapshot, TUNNEL_DEVICE};

/// How long the tunnel still takes packets after the last pool stopped wanting it.
const LINGER: Duration = Duration::from_secs(60);
/// How long a refusal of the kernel holds back the next attempt.
const RETRY: Duration = Duration::from_secs(10);

/// What the decision depends on, besides the kernel.
#[derive(Clone, Copy, Debug)]
pub struct TunnelFacts<'a> {
    /// The usable pools.
    pub pools: &'a [IpPool],
    /// The datastore is in sync: what is not in `pools` does not exist.
    pub in_sync: bool,
    /// This node's address.
    pub node: Ipv4Addr,
    /// The address that IPAM has assigned to our tunnel.
    pub assigned: Option<Ipv4Addr>,
    /// MTU configuration, and whether IPIP is ruled out.
    pub mtu: Mtu,
}

/// What is to be done now. Asked again with the same facts it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to ask of IPAM.
    pub address: AddressWish,
    /// What to write to the kernel; its failure is told by [`Lifecycle::failed`].
    pub operation: Option<Operation>,
    /// What to publish as the node's tunnel address.
    pub publish: Publish,
    /// When to ask again, if nothing changes before.
    pub deadline: Option<Instant>,
    /// Why a wanted tunnel is not up.
    pub problem: Option<String>,
}

/// What becomes of the tunnel's address in IPAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressWish {
    /// As it is.
    Keep,
    /// One is needed.
    Assign,
    /// It is not needed any more.
    Release,
}

/// What becomes of the published tunnel address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// As it is.
    Keep,
    /// The tunnel takes packets: publish this address.
    Set(Ipv4Addr),
    /// Nobody shall send to our tunnel.
    Clear,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Lifecycle {
    unwanted_since: Option<Instant>,
    refused: Option<(Instant, KernelError)>,
}

impl Lifecycle {
    /// A machine that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The kernel refused the last operation.
    pub fn failed(&mut self, now: Instant, error: KernelError) {
        self.refused = Some((now, error));
    }

    /// Decides.
    pub fn step(&mut self, now: Instant, facts: &TunnelFacts<'_>, snapshot: &Snapshot) -> Decision {
        let wanted = !facts.mtu.ipip_ruled_out && facts.pools.iter().any(|pool| pool.ipip != IpipMode::Never);
        if wanted {
            self.unwanted_since = None;
            return self.up(now, facts, snapshot);
        }
        match facts.in_sync {
            true => self.down(now, facts, snapshot),
            // A pool that wants the tunnel may still be on its way.
            false => Decision::KEEP,
        }
    }

    fn up(&mut self, now: Instant, facts: &TunnelFacts<'_>, snapshot: &Snapshot) -> Decision {
        let Some(address) = facts.assigned else {
            return Decision { address: AddressWish::Assign, ..Decision::KEEP };
        };
        if facts.in_sync && !facts.pools.iter().any(|pool| pool.contains(address.into())) {
            // Its pool is gone; another address is asked for next.
            return Decision { address: AddressWish::Release, ..Decision::KEEP };
        }
        let link = snapshot.link(TUNNEL_DEVICE);
        let takes_packets = link.is_some_and(|link| link.up && link.addresses == [Ipv4Net::from(address)]);
        let publish = match takes_packets {
            true => Publish::Set(address),
            false if self.refused.is_some() => Publish::Clear,
            false => Publish::Keep,
        };
        let mtu = match facts.mtu.tunnel(snapshot, facts.node) {
            Ok(mtu) => mtu,
            Err(problem) => return Decision { publish, problem: Some(problem), ..Decision::KEEP },
        };
        if takes_packets && link.is_some_and(|link| link.mtu == mtu) {
            self.refused = None;
            return Decision { publish, ..Decision::KEEP };
        }
        self.attempt(now, Operation::TunnelUp { address, mtu }, publish)
    }

    fn down(&mut self, now: Instant, facts: &TunnelFacts<'_>, snapshot: &Snapshot) -> Decision {
        let link = snapshot.link(TUNNEL_DEVICE).filter(|link| is_ours(link, facts));
        let decision = Decision { publish: Publish::Clear, ..Decision::KEEP };
        if link.is_none() {
            self.refused = None;
        }
        if link.is_none() && facts.assigned.is_none() {
            self.unwanted_since = None;
            return decision;
        }
        let end = *self.unwanted_since.get_or_insert(now) + LINGER;
        match (now < end, link) {
            (true, _) => Decision { deadline: Some(end), ..decision },
            (false, Some(_)) => self.attempt(now, Operation::TunnelDown, Publish::Clear),
            (false, None) => Decision { address: AddressWish::Release, ..decision },
        }
    }

    /// The operation, or a wait where the kernel refused it just now.
    fn attempt(&self, now: Instant, operation: Operation, publish: Publish) -> Decision {
        let retry = self.refused.as_ref().map(|(at, _)| *at + RETRY).filter(|retry| now < *retry);
        Decision {
            address: AddressWish::Keep,
            operation: retry.is_none().then_some(operation),
            publish,
            deadline: retry,
            problem: self.refused.as_ref().map(|(_, error)| error.to_string()),
        }
    }
}

/// `tunl0` is the kernel's and anybody may use it: what we gave it is the assigned address, or one of the pools'
/// (whose assignment was lost).
fn is_ours(link: &Link, facts: &TunnelFacts<'_>) -> bool {
    link.addresses.iter().any(|net| {
        facts.assigned == Some(net.addr()) || facts.pools.iter().any(|pool| pool.contains(net.addr().into()))
    })
}

impl Decision {
    const KEEP: Self = Self {
        address: AddressWish::Keep,
        operation: None,
        publish: Publish::Keep,
        deadline: None,
        problem: None,
    };
}

#[cfg(test)]
mod tests;
