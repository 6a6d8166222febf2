//! Interfaces by name, as filters ask for them. The speaker sees no interfaces; its owner says what leads where.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Which interface leads to which addresses: connected subnets, and 0.0.0.0/0 for the default route if it is to count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(pub BTreeMap<IpNet, String>);

impl Interfaces {
    /// The interface that leads to an address, by the longest prefix; `None` when that is not known.
    pub fn towards(&self, address: IpAddr) -> Option<&str> {
        let containing = self.0.iter().filter(|(net, _)| net.contains(&address));
        containing.max_by_key(|(net, _)| net.prefix_len()).map(|(_, name)| name.as_str())
    }
}

/// A pattern of names: `*` stands for anything, `?` for any one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(pub String);

impl Glob {
    /// Whether a name is of the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // Where to go on when what follows the last star does not fit: one more character belongs to the star then.
        let mut retry = None;
        while seen < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    retry = Some((at, seen));
                }
                Some(wanted) if *wanted == b'?' || *wanted == name[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((after_star, from)) = retry else { return false };
                    retry = Some((after_star, from + 1));
                    (at, seen) = (after_star, from + 1);
                }
            }
        }
        pattern[at..].iter().all(|left| *left == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::{Glob, Interfaces};

    #[test]
    fn patterns_are_matched_as_a_shell_does() {
        for (pattern, name, fits) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth", true),
            ("eth*", "eth10", true),
            ("*.cali", "vxlan.cali", true),
            ("*.cali", "vxlan.calico", false),
            ("e?h*0", "eth1000", true),
            ("*a*b*", "xxaab", true),
            ("*a*b", "ba", false),
            ("?", "", false),
            ("*", "", true),
        ] {
            assert_eq!(Glob(pattern.into()).matches(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_longest_prefix_names_the_interface() {
        let known = [("0.0.0.0/0", "eth0"), ("10.0.0.0/8", "eth1"), ("10.1.0.0/16", "eth2")];
        let known = known.map(|(net, name)| (net.parse().unwrap(), name.to_owned()));
        let interfaces = Interfaces(known.into());
        assert_eq!(interfaces.towards([10, 1, 2, 3].into()), Some("eth2"));
        assert_eq!(interfaces.towards([10, 2, 2, 3].into()), Some("eth1"));
        assert_eq!(interfaces.towards([11, 2, 2, 3].into()), Some("eth0"));
        assert_eq!(interfaces.towards("fd00::1".parse().unwrap()), None);
    }
}
