//! The values that single fields of a BGPPeer can have.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

/// Where a peer listens: an address, and the port where it is not the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PeerEndpoint {
    /// The address: of one host.
    pub address: IpAddr,
    /// The port; not 0.
    pub port: Option<u16>,
}

impl FromStr for PeerEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.parse().ok().map(|address| Self { address, port: None });
        let with_port = || {
            let socket: SocketAddr = text.parse().ok()?;
            Some(Self { address: socket.ip(), port: Some(socket.port()) })
        };
        plain
            .or_else(with_port)
            .filter(|Self { address, port }| {
                !address.is_unspecified() && !address.is_multicast() && *port != Some(0)
            })
            .ok_or_else(|| {
                format!("{text:?} is no address of a peer, as 10.0.0.1, 10.0.0.1:179 or [fd00::1]:179")
            })
    }
}

impl TryFrom<String> for PeerEndpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for PeerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// Which next hop a peer is told for what we learned from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum NextHopMode {
    /// Inside the AS the one that we were told, outside ourselves.
    #[default]
    Auto,
    /// Ourselves.
    #[serde(rename = "Self")]
    Own,
    /// The one that we were told.
    Keep,
}

/// From which address a session is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SourceAddress {
    /// The node's.
    #[default]
    UseNodeIP,
    /// The one that the kernel chooses.
    None,
}

/// Whether a node that is named as peer peers back by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ReversePeering {
    /// It does.
    #[default]
    Auto,
    /// Not unless a BGPPeer says so.
    Manual,
}
