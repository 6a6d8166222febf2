//! How a node's address is found out (`IP_AUTODETECTION_METHOD`): Calico's methods, with its grammar.

use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use manx_model::InterfaceAddress;
use regex::Regex;

use crate::detect::{is_excluded, is_global_unicast};
use crate::{Link, Snapshot};

/// A method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Detection {
    /// `first-found`: the first usable address of a usable link.
    #[default]
    FirstFound,
    /// `kubernetes-internal-ip`: the InternalIP of the Node.
    InternalIp,
    /// `can-reach=DESTINATION`: the address from which the kernel would send there, an address or a name.
    CanReach(String),
    /// `interface=REGEX,…`: that of the first link whose name one matches, even if such links are not usable otherwise.
    Interface(Patterns),
    /// `skip-interface=REGEX,…`: as `first-found`, and not of links whose names match.
    SkipInterface(Patterns),
    /// `cidr=CIDR,…`: as `first-found`, within these.
    Cidr(Vec<Ipv4Net>),
}

/// Regular expressions for names of links, each of which may match anywhere in the name, as in Go.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<Regex>);

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(Regex::as_str).eq(other.0.iter().map(Regex::as_str))
    }
}

impl Eq for Patterns {}

impl Detection {
    /// The address of this node, or why there is none. `told` is what somebody outside the snapshot knows, for the methods
    /// that ask: the Node's InternalIP, or the address from which the kernel would send.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn find(&self, snapshot: &Snapshot, told: Option<Ipv4Addr>) -> Result<InterfaceAddress, String> {
        match self.candidates(snapshot, told).first() {
            Some(found) => Ok(*found),
            None => Err(format!("{} of this node that is up has {}", self.links(), self.wanted(told))),
        }
    }

    /// Whether `address` is still one that the method may find: a node keeps its address while it is, although a newer link
    /// has another.
    pub fn keeps(&self, snapshot: &Snapshot, told: Option<Ipv4Addr>, address: InterfaceAddress) -> bool {
        self.candidates(snapshot, told).contains(&address)
    }

    /// All that the method may find, best first. As in Calico, the newest link is looked at first.
    fn candidates(&self, snapshot: &Snapshot, told: Option<Ipv4Addr>) -> Vec<InterfaceAddress> {
        let usable = |link: &&Link| !is_excluded(&link.name);
        let links = || snapshot.links.values().rev().filter(|link| link.up);
        let of = |links: Vec<&Link>, wanted: &dyn Fn(Ipv4Addr) -> bool| -> Vec<InterfaceAddress> {
            let nets = links.into_iter().flat_map(|link| &link.addresses);
            let nets = nets.filter(|net| is_global_unicast(net.addr()) && wanted(net.addr()));
            nets.filter_map(|net| InterfaceAddress::new(net.addr(), net.prefix_len())).collect()
        };
        match self {
            Self::FirstFound => of(links().filter(usable).collect(), &|_| true),
            Self::InternalIp | Self::CanReach(_) => of(links().collect(), &|address| Some(address) == told),
            Self::Interface(patterns) => {
                let by_pattern = patterns
                    .0
                    .iter()
                    .flat_map(|pattern| links().filter(move |link| pattern.is_match(&link.name)));
                of(by_pattern.collect(), &|_| true)
            }
            Self::SkipInterface(patterns) => {
                let skipped = |link: &&Link| patterns.0.iter().any(|pattern| pattern.is_match(&link.name));
                of(links().filter(usable).filter(|link| !skipped(link)).collect(), &|_| true)
            }
            Self::Cidr(cidrs) => {
                let inside = |address: Ipv4Addr| cidrs.iter().any(|cidr| cidr.contains(&address));
                of(links().filter(usable).collect(), &inside)
            }
        }
    }

    fn links(&self) -> String {
        let list = |patterns: &Patterns| patterns.0.iter().map(Regex::as_str).collect::<Vec<_>>().join(",");
        match self {
            Self::Interface(patterns) => format!("no interface {}", list(patterns)),
            Self::SkipInterface(patterns) => format!("no interface but {}", list(patterns)),
            _ => "no interface".to_owned(),
        }
    }

    fn wanted(&self, told: Option<Ipv4Addr>) -> String {
        match (self, told) {
            (Self::InternalIp | Self::CanReach(_), Some(address)) => format!("the address {address}"),
            (Self::Cidr(cidrs), _) => {
                let texts: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
                format!("an address in {}", texts.join(","))
            }
            _ => "a usable IPv4 address".to_owned(),
        }
    }
}

impl FromStr for Detection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, rest) = text.split_once('=').map_or((text, None), |(method, rest)| (method, Some(rest)));
        let patterns = |list: &str| -> Result<Patterns, String> {
            let pattern =
                |text: &str| Regex::new(text).map_err(|_| format!("{text:?} is no regular expression"));
            list.split(',').map(str::trim).map(pattern).collect::<Result<_, _>>().map(Patterns)
        };
        match (method, rest.map(str::trim).filter(|rest| !rest.is_empty())) {
            ("first-found", None) => Ok(Self::FirstFound),
            ("kubernetes-internal-ip", None) => Ok(Self::InternalIp),
            ("can-reach", Some(destination)) => Ok(Self::CanReach(destination.to_owned())),
            ("interface", Some(list)) => patterns(list).map(Self::Interface),
            ("skip-interface", Some(list)) => patterns(list).map(Self::SkipInterface),
            ("cidr", Some(list)) => {
                let cidr = |text: &str| text.parse().map_err(|_| format!("{text:?} is no IPv4 CIDR"));
                list.split(',').map(str::trim).map(cidr).collect::<Result<_, _>>().map(Self::Cidr)
            }
            _ => Err("it is none of first-found, kubernetes-internal-ip, can-reach=DESTINATION, \
                      interface=REGEX,…, skip-interface=REGEX,…, cidr=CIDR,…"
                .to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IfIndex;
    use crate::testing::{link, snapshot};

    /// eth0 with 172.171.5.95/24 (index 2), and what is newer.
    fn host() -> Snapshot {
        let mut snapshot = snapshot();
        for (index, name, address) in [
            (20, "docker0", "10.9.0.1/16"),
            (21, "eth1", "10.0.0.1/24"),
            (22, "wan0", "203.0.113.7/28"),
            (23, "eth2", "169.254.7.7/16"),
        ] {
            snapshot.links.insert(IfIndex(index), link(IfIndex(index), name, &[address]));
        }
        snapshot.links.insert(IfIndex(24), Link { up: false, ..link(IfIndex(24), "eth3", &["10.7.0.1/24"]) });
        snapshot
    }

    #[test]
    fn the_nodes_address_is_the_first_usable_one_of_the_newest_link() {
        let mut snapshot = snapshot();
        let found = |snapshot: &Snapshot| Detection::FirstFound.find(snapshot, None).unwrap().to_string();
        let eth0 = "172.171.5.95/24";
        assert_eq!(found(&snapshot), eth0);
        for (index, name) in [(20, "docker0"), (21, "br-1"), (22, "tunl0"), (23, "veth1")] {
            snapshot.links.insert(IfIndex(index), link(IfIndex(index), name, &["10.0.0.1/24"]));
        }
        snapshot.links.insert(IfIndex(24), Link { up: false, ..link(IfIndex(24), "eth9", &["10.0.0.1/24"]) });
        snapshot.links.insert(IfIndex(25), link(IfIndex(25), "eth8", &["169.254.7.7/16"]));
        assert_eq!(found(&snapshot), eth0);
        snapshot.links.insert(IfIndex(26), link(IfIndex(26), "eth1", &["10.0.0.1/24"]));
        assert_eq!(found(&snapshot), "10.0.0.1/24");
    }

    #[test]
    fn each_method_finds_what_calicos_finds() {
        let told = Some(Ipv4Addr::new(10, 9, 0, 1));
        for (method, found) in [
            ("first-found", Ok("203.0.113.7/28")),
            ("interface=eth.*", Ok("10.0.0.1/24")),
            ("interface=lan,eth0,eth1", Ok("172.171.5.95/24")),
            ("interface=docker", Ok("10.9.0.1/16")),
            ("interface=eth3", Err("no interface eth3 of this node that is up has a usable IPv4 address")),
            ("skip-interface=wan.*,eth1", Ok("172.171.5.95/24")),
            ("skip-interface=.*", Err("no interface but .*")),
            ("cidr=172.160.0.0/12,10.9.0.0/16", Ok("172.171.5.95/24")),
            ("cidr=192.168.0.0/16", Err("an address in 192.168.0.0/16")),
            ("can-reach=example.org", Ok("10.9.0.1/16")),
            ("kubernetes-internal-ip", Ok("10.9.0.1/16")),
        ] {
            let answer = method.parse::<Detection>().unwrap().find(&host(), told);
            match (answer, found) {
                (Ok(address), Ok(found)) => assert_eq!(address.to_string(), found, "{method}"),
                (Err(error), Err(found)) => assert!(error.contains(found), "{method}: {error}"),
                (answer, _) => panic!("{method}: {answer:?}"),
            }
        }
    }

    #[test]
    fn a_node_keeps_its_address_while_the_method_may_find_it() {
        let keeps = |method: &str, address: &str| {
            let method: Detection = method.parse().unwrap();
            method.keeps(&host(), Some(Ipv4Addr::new(10, 0, 0, 1)), address.parse().unwrap())
        };
        assert!(keeps("first-found", "172.171.5.95/24"), "a newer link comes first, and changes nothing");
        assert!(!keeps("first-found", "172.171.5.95/16") && !keeps("first-found", "172.171.5.96/24"));
        assert!(keeps("can-reach=10.0.0.9", "10.0.0.1/24") && !keeps("can-reach=10.0.0.9", "203.0.113.7/28"));
        assert!(!keeps("skip-interface=eth", "172.171.5.95/24"));
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for (text, said) in [
            ("", "none of first-found"),
            ("first", "none of first-found"),
            ("can-reach=", "none of first-found"),
            ("first-found=eth0", "none of first-found"),
            ("interface=eth(", "\"eth(\" is no regular expression"),
            ("cidr=10.0.0.0/8,fd00::/8", "\"fd00::/8\" is no IPv4 CIDR"),
        ] {
            let error = text.parse::<Detection>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
