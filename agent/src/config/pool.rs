//! The pool that an agent creates when there is none, from `CALICO_IPV4POOL_…`.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use manx_model::{IpipMode, Selector};

use super::parse::{Reader, startup_bool};

/// The default pool as the environment describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultPool {
    /// Its addresses; `None`: none is created (`CALICO_IPV4POOL_CIDR=none` or `NO_DEFAULT_POOLS=true`).
    pub cidr: Option<Ipv4Net>,
    /// Prefix length of its blocks, 20 to 32.
    pub block_size: u8,
    /// Its mode, which is also applied to the pool later, when the environment changes.
    pub ipip: IpipMode,
    /// Whether traffic that leaves the pools is translated.
    pub nat_outgoing: bool,
    /// Which nodes may take addresses.
    pub node_selector: Selector,
    /// Whether nothing of it is told to BGP peers.
    pub disable_bgp_export: bool,
    /// Orders environments: one with a lower revision never overwrites one with a higher.
    pub revision: u64,
}

impl DefaultPool {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let block_size = reader.parse("CALICO_IPV4POOL_BLOCK_SIZE", block_size).unwrap_or(26);
        Self {
            cidr: cidr(reader, block_size),
            block_size,
            ipip: reader.parse("CALICO_IPV4POOL_IPIP", str::parse).unwrap_or_default(),
            nat_outgoing: reader.text("CALICO_IPV4POOL_NAT_OUTGOING").is_none_or(startup_bool),
            node_selector: reader.parse("CALICO_IPV4POOL_NODE_SELECTOR", str::parse).unwrap_or_default(),
            disable_bgp_export: reader.text("CALICO_IPV4POOL_DISABLE_BGP_EXPORT").is_some_and(startup_bool),
            revision: reader.parse("MANX_CONFIG_REVISION", revision).unwrap_or(0),
        }
    }
}

/// The default pool of IPv6, which is made only where the environment gives it a CIDR. (Calico invents one.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultPool6 {
    /// Its addresses.
    pub cidr: Ipv6Net,
    /// Prefix length of its blocks, 116 to 128.
    pub block_size: u8,
    /// Whether traffic that leaves the pools is translated.
    pub nat_outgoing: bool,
    /// Which nodes may take addresses.
    pub node_selector: Selector,
    /// Whether nothing of it is told to BGP peers.
    pub disable_bgp_export: bool,
}

impl DefaultPool6 {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let block_size = reader.parse("CALICO_IPV6POOL_BLOCK_SIZE", block_size6).unwrap_or(122);
        let node_selector = reader.parse("CALICO_IPV6POOL_NODE_SELECTOR", str::parse).unwrap_or_default();
        Some(Self {
            cidr: cidr6(reader, block_size)?,
            block_size,
            nat_outgoing: reader.text("CALICO_IPV6POOL_NAT_OUTGOING").is_some_and(startup_bool),
            node_selector,
            disable_bgp_export: reader.text("CALICO_IPV6POOL_DISABLE_BGP_EXPORT").is_some_and(startup_bool),
        })
    }
}

fn cidr6(reader: &mut Reader<'_>, block_size: u8) -> Option<Ipv6Net> {
    const VARIABLE: &str = "CALICO_IPV6POOL_CIDR";
    let text = reader.text(VARIABLE).filter(|text| *text != "none")?;
    if reader.text("NO_DEFAULT_POOLS").is_some_and(startup_bool) {
        reader.wrong(VARIABLE, text, FORBIDDEN);
        return None;
    }
    reader.parse(VARIABLE, |text| {
        let cidr: Ipv6Net = text
            .parse()
            .map_err(|_| "it is neither none nor an IPv6 CIDR, as fd00:10:244::/64".to_owned())?;
        manx_model::check_pool_cidr(IpNet::V6(cidr), Some(block_size), false)
            .map(|_| cidr)
            .map_err(|(_, reason)| format!("{reason}; CALICO_IPV6POOL_BLOCK_SIZE is {block_size}"))
    })
}

const FORBIDDEN: &str = "NO_DEFAULT_POOLS=true says that there is no default pool; unset one of the two";

fn cidr(reader: &mut Reader<'_>, block_size: u8) -> Option<Ipv4Net> {
    const VARIABLE: &str = "CALICO_IPV4POOL_CIDR";
    let wanted = !reader.text("NO_DEFAULT_POOLS").is_some_and(startup_bool);
    match reader.text(VARIABLE) {
        Some("none") => None,
        Some(text) if !wanted => {
            reader.wrong(VARIABLE, text, FORBIDDEN);
            None
        }
        Some(_) => reader.parse(VARIABLE, |text| parse_cidr(text, block_size)),
        None if !wanted => None,
        None => Some("192.168.0.0/16".parse().expect("a constant CIDR")),
    }
}

fn parse_cidr(text: &str, block_size: u8) -> Result<Ipv4Net, String> {
    let cidr: Ipv4Net =
        text.parse().map_err(|_| "it is neither none nor an IPv4 CIDR, as 192.168.0.0/16".to_owned())?;
    manx_model::check_pool_cidr(IpNet::V4(cidr), Some(block_size), false)
        .map(|_| cidr)
        .map_err(|(_, reason)| format!("{reason}; CALICO_IPV4POOL_BLOCK_SIZE is {block_size}"))
}

fn block_size(text: &str) -> Result<u8, &'static str> {
    match text.parse() {
        Ok(size @ 20..=32) => Ok(size),
        _ => Err("it is no block size: a prefix length from 20 to 32"),
    }
}

fn block_size6(text: &str) -> Result<u8, &'static str> {
    match text.parse() {
        Ok(size @ 116..=128) => Ok(size),
        _ => Err("it is no block size of IPv6: a prefix length from 116 to 128"),
    }
}

fn revision(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "it is no revision: a whole number, 0 or greater")
}
