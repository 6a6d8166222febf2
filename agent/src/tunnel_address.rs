//! The address of `tunl0`: taken from IPAM while the tunnel wants one, given back when it does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use manx_ipam::AssignRequest;
use manx_model::{AllowedUse, NodeName, TUNNEL_IPIP, tunnel_handle};
use tokio::sync::watch;

use crate::addresses::Addresses;
use crate::latest;
use crate::problems::Problems;

/// After a failure the next try waits this long.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps `address` as `wanted` says, for ever.
pub async fn keep(
    node: NodeName,
    addresses: Addresses,
    mut wanted: watch::Receiver<bool>,
    address: watch::Sender<Option<Ipv4Addr>>,
    problems: Problems,
) {
    loop {
        let want = *wanted.borrow_and_update();
        let held = *address.borrow();
        let result = match (want, held) {
            (true, None) => assign(&node, &addresses).await.map(Some),
            (false, Some(_)) => {
                addresses.release(tunnel_handle(&node)).await.map(|_| None).map_err(|error| error.to_string())
            }
            _ => Ok(held),
        };
        let failed = match result {
            Ok(now) => {
                latest::set(&address, now);
                None
            }
            Err(error) => Some(error),
        };
        let retry = failed.is_some();
        problems.set("tunnel address", failed);
        tokio::select! {
            biased;
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
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
