//! Our speaker and real BIRDs over loopback: no root, no kernel routes, high ports.

#![allow(dead_code, reason = "no test program needs all of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod bird;
mod node;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use manx_bgp::Asn;
use tokio::time::{sleep, timeout};

pub(crate) use bird::{Bird, Neighbour};
pub(crate) use node::Node;

pub(crate) const OUR_ASN: u32 = 64512;
/// What we originate.
pub(crate) const OURS: &str = "192.168.7.64/26";

pub(crate) fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

/// An address of this machine and a port, which were free when the test began and are no other test's.
pub(crate) fn place() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let address = [127, (process % 200 + 20) as u8, (process / 200) as u8, number as u8];
    TcpListener::bind((IpAddr::from(address), 0)).unwrap().local_addr().unwrap()
}

/// Waits until a program outside does what is expected.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "never happened: {what}");
}
