//! `CALICO_ROUTER_ID`: the BGP identifier of a node.

use std::net::Ipv4Addr;
use std::str::FromStr;

use manx_model::{NodeName, router_id_of};

/// Where the BGP identifier comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterId {
    /// It is the node's address.
    Address,
    /// It follows from the node's name, as in Calico.
    Hash,
    /// This one.
    Given(Ipv4Addr),
}

impl RouterId {
    /// The identifier of `node` at `address`.
    pub fn of(self, node: &NodeName, address: Ipv4Addr) -> Ipv4Addr {
        match self {
            Self::Address => address,
            Self::Hash => router_id_of(node),
            Self::Given(id) => id,
        }
    }
}

impl FromStr for RouterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.parse() {
            // RFC 6286 section 2.1: any number but zero.
            Ok(Ipv4Addr::UNSPECIFIED) => Err("no router has the identifier 0.0.0.0"),
            Ok(id) => Ok(Self::Given(id)),
            Err(_) if text == "hash" => Ok(Self::Hash),
            Err(_) => Err("it is neither hash nor an identifier in the form of an IPv4 address"),
        }
    }
}
