//! The address of `tunl0`: taken from IPAM, or of the node's podCIDR, while the tunnel wants one; given back when it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use manx_ipam::{AssignRequest, tunnel_in_pod_cidr};
use manx_model::{AllowedUse, NodeName, TUNNEL_IPIP, tunnel_handle};
use tokio::sync::watch;

use crate::addresses::Addresses;
use crate::latest;
use crate::pod_cidrs;
use crate::problems::Problems;

/// After a failure the next try waits this long.
const RETRY: Duration = Duration::from_secs(1);

/// What a node has by IPAM: its blocks, and what it borrows.
pub type OfIpam = (watch::Receiver<BTreeSet<IpNet>>, watch::Receiver<BTreeSet<IpNet>>);

/// Keeps a tunnel's address.
pub struct Keeper {
    /// This node.
    pub node: NodeName,
    /// IPAM.
    pub addresses: Addresses,
    /// The podCIDRs, of a node whose tunnel has its address there (`USE_POD_CIDR`).
    pub pod_cidrs: Option<watch::Receiver<Vec<IpNet>>>,
    /// IPAM holds an address for the tunnel.
    pub held_by_ipam: bool,
    /// This node's blocks, and the addresses that it borrows: what IPAM holds for the tunnel is in one of these.
    pub of_ipam: OfIpam,
    /// What is wrong.
    pub problems: Problems,
}

impl Keeper {
    /// Keeps `address` as `wanted` says, for ever.
    pub async fn run(mut self, mut wanted: watch::Receiver<bool>, address: watch::Sender<Option<Ipv4Addr>>) {
        loop {
            let want = *wanted.borrow_and_update();
            let held = (*address.borrow()).filter(|held| !self.has_lost(*held));
            let failed = match self.turn(want, held).await {
                Ok(now) => {
                    latest::set(&address, now);
                    None
                }
                Err(error) => Some(error),
            };
            let retry = failed.is_some();
            self.problems.set("tunnel address", failed);
            tokio::select! {
                biased;
                changed = wanted.changed() => if changed.is_err() { return },
                () = moved(&mut self.pod_cidrs) => {}
                Ok(()) = self.of_ipam.0.changed() => {}
                Ok(()) = self.of_ipam.1.changed() => {}
                () = tokio::time::sleep(RETRY), if retry => {}
            }
        }
    }

    /// Whether this address was IPAM's, and is in nothing that the node has by IPAM any more: somebody took the block away.
    fn has_lost(&self, held: Ipv4Addr) -> bool {
        let (blocks, borrowed) = (self.of_ipam.0.borrow(), self.of_ipam.1.borrow());
        self.held_by_ipam && !blocks.iter().chain(&*borrowed).any(|net| net.contains(&IpAddr::V4(held)))
    }

    /// The address that the tunnel has from now on.
    async fn turn(&mut self, want: bool, held: Option<Ipv4Addr>) -> Result<Option<Ipv4Addr>, String> {
        if self.held_by_ipam && (!want || self.pod_cidrs.is_some()) {
            self.addresses.release(tunnel_handle(&self.node)).await.map_err(|error| error.to_string())?;
            self.held_by_ipam = false;
        }
        match (want, &self.pod_cidrs) {
            (false, _) => Ok(None),
            (true, Some(cidrs)) => match of_pod_cidrs(&cidrs.borrow()) {
                None if held.is_none() => Err(pod_cidrs::missing(&self.node, true)),
                found => Ok(found.or(held)),
            },
            (true, None) if held.is_some() => Ok(held),
            (true, None) => {
                let assigned = assign(&self.node, &self.addresses).await?;
                self.held_by_ipam = true;
                Ok(Some(assigned))
            }
        }
    }
}

/// Resolves when the podCIDRs may have changed, of a node that goes by them.
async fn moved(pod_cidrs: &mut Option<watch::Receiver<Vec<IpNet>>>) {
    if let Some(cidrs) = pod_cidrs
        && cidrs.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// The tunnel's address in the node's podCIDRs.
pub fn of_pod_cidrs(cidrs: &[IpNet]) -> Option<Ipv4Addr> {
    cidrs.iter().copied().find_map(tunnel_in_pod_cidr)
}

async fn assign(node: &NodeName, addresses: &Addresses) -> Result<Ipv4Addr, String> {
    let attributes =
        BTreeMap::from([("node".to_owned(), node.to_string()), ("type".to_owned(), TUNNEL_IPIP.to_owned())]);
    let request =
        AssignRequest { usage: AllowedUse::Tunnel, ..AssignRequest::ipv4(tunnel_handle(node), attributes) };
    let granted = addresses.assign(request).await.map_err(|error| error.to_string())?;
    match granted.assigned.first().map(|assigned| assigned.address) {
        Some(IpAddr::V4(address)) => Ok(address),
        other => Err(format!("IPAM gave {other:?}, and the tunnel needs an IPv4 address")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use manx_datastore::{Datastore as _, Memory, Only};
    use manx_ipam::Allocator;
    use manx_model::{IpPool, Kind, Object};

    use super::*;
    use crate::addresses::{Owner, Told};
    use crate::cluster::Cluster;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_whose_block_was_taken_away_takes_another_address() {
        let store = Memory::new();
        let pool = Object::new(Kind::IPPool, "p", &serde_json::json!({"cidr": "10.0.0.0/24"}));
        let pools = Arc::new(vec![IpPool::from_object(&pool).unwrap()]);
        let (_cluster, cluster) =
            watch::channel(Arc::new(Cluster { pools, in_sync: true, ..Cluster::default() }));
        let (node, problems): (NodeName, _) = ("n1".parse().unwrap(), Problems::default());
        let (owner, addresses) = Owner::new(
            Allocator::new(node.clone()),
            Arc::new(store.clone()),
            cluster,
            Told::default(),
            || std::time::SystemTime::UNIX_EPOCH,
            problems.clone(),
        );
        tokio::spawn(owner.run());
        // What the owner tells is told here.
        let (blocks, of_blocks) = watch::channel(BTreeSet::from(["10.0.0.0/24".parse().unwrap()]));
        let (_borrowed, of_borrowed) = watch::channel(BTreeSet::new());
        let (_wanted, wanted) = watch::channel(true);
        let (sender, mut address) = watch::channel(None);
        let of_ipam = (of_blocks, of_borrowed);
        let keeper = Keeper { node, addresses, pod_cidrs: None, held_by_ipam: false, of_ipam, problems };
        tokio::spawn(keeper.run(wanted, sender));
        let first = address.wait_for(Option::is_some).await.unwrap().unwrap();
        for kind in [Kind::IPAMHandle, Kind::BlockAffinity, Kind::IPAMBlock] {
            for object in store.list(kind, &Only::All).await.unwrap().into_iter().flatten() {
                store.delete(&object).await.unwrap();
            }
        }
        blocks.send_replace(BTreeSet::new());
        // The clock is paused: everything that can happen happens first.
        tokio::time::sleep(RETRY).await;
        let handle = store.get(Kind::IPAMHandle, &tunnel_handle(&"n1".parse().unwrap())).await.unwrap();
        assert!(handle.is_some(), "it has asked again");
        assert_eq!(*address.borrow(), Some(first), "nobody else has it");
    }
}
