//! What an agent finds out about its node: the address.

use std::net::Ipv4Addr;
use std::time::Duration;

use manx_felix::{Kernel, Snapshot, first_found};
use manx_model::InterfaceAddress;

use crate::config::{AddressSource, Config};
use crate::problems::Problems;

/// While no address is found, the kernel is looked at this often, and whenever it changes.
const RETRY: Duration = Duration::from_secs(1);

/// This node's address; waits until there is one.
pub async fn address(config: &Config, kernel: &dyn Kernel, problems: &Problems) -> InterfaceAddress {
    loop {
        let found = match kernel.read().await {
            Ok(snapshot) => find(&config.address, &snapshot),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(address) => {
                problems.set("address", None);
                return address;
            }
            Err(reason) => problems.set("address", [reason]),
        }
        tokio::select! {
            biased;
            () = kernel.changed() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Prepares the node behind `address`; waits until that has succeeded. What it warns of is shown, and stops nothing.
pub async fn prepare(kernel: &dyn Kernel, address: InterfaceAddress, forwarding: bool, problems: &Problems) {
    loop {
        match prepare_once(kernel, address, forwarding).await {
            Ok(warnings) => return problems.set("node", warnings),
            Err(error) => problems.set("node", [error]),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn prepare_once(
    kernel: &dyn Kernel,
    address: InterfaceAddress,
    forwarding: bool,
) -> Result<Vec<String>, String> {
    let snapshot = kernel.read().await.map_err(|error| error.to_string())?;
    let link = snapshot.link_with(address.address());
    let link = link.ok_or_else(|| format!("no link carries the node's address {}", address.address()))?;
    kernel.prepare(&link.name, forwarding).await.map_err(|error| error.to_string())
}

/// The address that `source` means in this kernel. One that is given must be there: a typing error would otherwise
/// become a route to nowhere on every other node.
fn find(source: &AddressSource, kernel: &Snapshot) -> Result<InterfaceAddress, String> {
    let carried = |address: Ipv4Addr| {
        let link = kernel.link_with(address);
        let net = link.and_then(|link| link.addresses.iter().find(|net| net.addr() == address));
        net.and_then(|net| InterfaceAddress::new(net.addr(), net.prefix_len()))
            .ok_or_else(|| format!("IP={address}: no interface of this node has this address"))
    };
    match source {
        AddressSource::Autodetect => first_found(kernel).map(|(_, address)| address).ok_or_else(|| {
            "IP=autodetect: no interface that is up has a usable IPv4 address; set IP".to_owned()
        }),
        AddressSource::Address(address) => carried(*address),
        AddressSource::Interface(interface) => carried(interface.address()).map(|_| *interface),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_felix::{IfIndex, Link};

    fn kernel() -> Snapshot {
        let link = Link {
            index: IfIndex(2),
            name: "eth0".into(),
            up: true,
            mtu: 1500,
            alias: None,
            addresses: vec!["10.0.0.5/24".parse().unwrap()],
        };
        Snapshot { links: [(link.index, link)].into(), ..Snapshot::default() }
    }

    #[test]
    fn a_given_address_takes_its_subnet_from_the_interface_that_has_it() {
        let given = AddressSource::Address(Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(find(&given, &kernel()), Ok("10.0.0.5/24".parse().unwrap()));
        assert_eq!(find(&AddressSource::Autodetect, &kernel()), Ok("10.0.0.5/24".parse().unwrap()));
        let with_subnet = AddressSource::Interface("10.0.0.5/16".parse().unwrap());
        assert_eq!(find(&with_subnet, &kernel()), Ok("10.0.0.5/16".parse().unwrap()));
    }

    #[test]
    fn an_address_that_no_interface_has_is_waited_for_and_named() {
        let given = AddressSource::Address(Ipv4Addr::new(10, 0, 0, 6));
        assert!(find(&given, &kernel()).unwrap_err().contains("10.0.0.6"));
    }
}
