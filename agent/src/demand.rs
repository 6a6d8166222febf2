//! What a pod is to be given: by the annotations of its Pod and Namespace, by the runtime, and by the network
//! configuration.
//!
//! A Pod's word is more than its Namespace's, that more than the runtime's, and that more than the configuration's (Calico's
//! order). A wish that cannot be read is an error and not another network: the pod waits, and its events say why.

mod objects;

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_cni::settings::{Ipam, Wishes};
use manx_cni::{CniError, Code, Mac};
use serde::de::DeserializeOwned;

pub use objects::{in_vain, refused};

/// The prefix of the annotations of Pods and Namespaces that are about their network.
const PREFIX: &str = "cni.projectcalico.org/";

/// What a pod is to be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// An IPv4 address.
    pub ipv4: bool,
    /// An IPv6 address.
    pub ipv6: bool,
    /// From these pools (names or CIDRs); empty: from any that selects the pod.
    pub ipv4_pools: Vec<String>,
    /// The same for IPv6.
    pub ipv6_pools: Vec<String>,
    /// Exactly these addresses; empty: any. At most one of a family.
    pub addresses: Vec<IpAddr>,
    /// The MAC of the pod's end.
    pub mac: Option<Mac>,
    /// Annotations that ask for what Manx does not do.
    pub without_effect: Vec<String>,
}

/// What Kubernetes says of a pod; nothing, where it is not Kubernetes that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The Pod's annotations.
    pub pod: Option<&'a BTreeMap<String, String>>,
    /// Its Namespace's.
    pub namespace: Option<&'a BTreeMap<String, String>>,
}

/// Reads what one pod is to be given; `asked` is what the runtime asks for it.
///
/// # Errors
/// [`Code::CONFIG`] that names the annotation, its value and what would be right.
pub fn demand(conf: &Ipam, asked: &Wishes, about: About<'_>) -> Result<Demand, CniError> {
    let pod = Annotations { of: "Pod", all: about.pod };
    let namespace = Annotations { of: "Namespace", all: about.namespace };
    let pools = |key: &str, configured: &[String]| -> Result<Vec<String>, CniError> {
        let asked = match pod.list(key)? {
            Some(pools) => Some(pools),
            None => namespace.list(key)?,
        };
        Ok(asked.unwrap_or_else(|| configured.to_vec()))
    };
    let annotated = pod.addresses()?;
    let addresses = if annotated.is_empty() { asked.addresses.clone() } else { annotated };
    let (ipv4, ipv6) = families(conf, &pod, &addresses)?;
    Ok(Demand {
        ipv4,
        ipv6,
        ipv4_pools: pools("ipv4pools", &conf.ipv4_pools)?,
        ipv6_pools: pools("ipv6pools", &conf.ipv6_pools)?,
        addresses,
        mac: pod.mac()?.or(asked.mac),
        without_effect: pod.without_effect(),
    })
}

/// Fixed addresses say which families a pod has; else its annotation; else the configuration.
fn families(conf: &Ipam, pod: &Annotations<'_>, addresses: &[IpAddr]) -> Result<(bool, bool), CniError> {
    if !addresses.is_empty() {
        return Ok((addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6)));
    }
    let Some(asked) = pod.list::<String>("ipFamilies")? else {
        return Ok((conf.assign_ipv4, conf.assign_ipv6));
    };
    let has = |family: &str| asked.iter().any(|name| name.eq_ignore_ascii_case(family));
    match asked.iter().all(|name| ["ipv4", "ipv6"].iter().any(|family| name.eq_ignore_ascii_case(family))) {
        true if !asked.is_empty() => Ok((has("ipv4"), has("ipv6"))),
        _ => Err(pod.wrong("ipFamilies", "it must be a list of \"IPv4\", \"IPv6\" or both")),
    }
}

/// The annotations of one object.
struct Annotations<'a> {
    of: &'static str,
    all: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Annotations<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        let text = self.all?.get(&format!("{PREFIX}{key}"))?.trim();
        (!text.is_empty()).then_some(text)
    }

    fn list<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Vec<T>>, CniError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| self.wrong(key, &format!("it is no JSON list, as [\"a\", \"b\"] ({error})")))
    }

    fn addresses(&self) -> Result<Vec<IpAddr>, CniError> {
        if self.text("ipAddrsNoIpam").is_some() {
            let reason = "Manx gives no pod an address that IPAM does not know: use ipAddrs, with an address of an IPPool";
            return Err(self.wrong("ipAddrsNoIpam", reason));
        }
        let addresses: Vec<IpAddr> = match self.list::<String>("ipAddrs")? {
            None => return Ok(Vec::new()),
            Some(texts) => texts
                .iter()
                .map(|text| {
                    text.parse().map_err(|_| self.wrong("ipAddrs", &format!("{text:?} is no IP address")))
                })
                .collect::<Result<_, _>>()?,
        };
        let of_family = |ipv4: bool| addresses.iter().filter(|address| address.is_ipv4() == ipv4).count();
        match of_family(true) > 1 || of_family(false) > 1 {
            true => Err(self.wrong("ipAddrs", "a pod has at most one address of a family")),
            false => Ok(addresses),
        }
    }

    fn mac(&self) -> Result<Option<Mac>, CniError> {
        let Some(text) = self.text("hwAddr") else { return Ok(None) };
        let mac = Mac::try_from(text.to_owned()).map_err(|reason| self.wrong("hwAddr", &reason))?;
        match mac.0 {
            [0, 0, 0, 0, 0, 0] => Err(self.wrong("hwAddr", "no device can have it")),
            [first, ..] if first & 1 == 1 => {
                Err(self.wrong("hwAddr", "it is one of a group, not of one device"))
            }
            _ => Ok(Some(mac)),
        }
    }

    fn without_effect(&self) -> Vec<String> {
        const UNSUPPORTED: [&str; 2] = ["floatingIPs", "allowedSourcePrefixes"];
        let all = self.all.into_iter().flatten().filter(|(_, value)| !value.is_empty());
        let asks = |key: &str| {
            key.strip_prefix(PREFIX).is_some_and(|key| UNSUPPORTED.contains(&key))
                || key.starts_with("qos.projectcalico.org/")
        };
        all.filter(|(key, _)| asks(key))
            .map(|(key, _)| format!("annotation {key} is not supported yet"))
            .collect()
    }

    fn wrong(&self, key: &str, reason: &str) -> CniError {
        let value = self.text(key).unwrap_or_default();
        let details = format!("{} annotation {PREFIX}{key} is {value:?}: {reason}", self.of);
        CniError::new(Code::CONFIG, "what the pod's annotations ask for cannot be given", details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> Ipam {
        Ipam { ipv4_pools: vec!["conf".into()], ..Ipam::default() }
    }

    fn annotated(annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
        annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect()
    }

    fn of(pod: &[(&str, &str)], namespace: &[(&str, &str)]) -> Result<Demand, String> {
        let (pod, namespace) = (annotated(pod), annotated(namespace));
        let about = About { pod: Some(&pod), namespace: Some(&namespace) };
        demand(&conf(), &Wishes::default(), about).map_err(|error| error.to_string())
    }

    #[test]
    fn without_annotations_the_configuration_decides() {
        let expected = Demand { ipv4: true, ipv4_pools: vec!["conf".into()], ..Demand::default() };
        assert_eq!(of(&[], &[]), Ok(expected.clone()));
        assert_eq!(
            demand(&conf(), &Wishes::default(), About::default()).unwrap(),
            expected,
            "nor without Kubernetes"
        );
    }

    #[test]
    fn a_pods_pools_win_over_its_namespaces_and_those_over_the_configurations() {
        let namespace = [("ipv4pools", r#"["ns"]"#)];
        assert_eq!(of(&[], &namespace).unwrap().ipv4_pools, ["ns"]);
        assert_eq!(
            of(&[("ipv4pools", r#"["pod", "10.0.0.0/24"]"#)], &namespace).unwrap().ipv4_pools,
            ["pod", "10.0.0.0/24"]
        );
        assert_eq!(of(&[("ipv4pools", "")], &namespace).unwrap().ipv4_pools, ["ns"], "empty says nothing");
    }

    #[test]
    fn fixed_addresses_say_which_families_a_pod_has() {
        let both = of(&[("ipAddrs", r#"["10.0.0.7", "fd00::7"]"#)], &[]).unwrap();
        assert!(both.ipv4 && both.ipv6 && both.addresses.len() == 2);
        let six = of(&[("ipAddrs", r#"["fd00::7"]"#)], &[]).unwrap();
        assert!(!six.ipv4 && six.ipv6);
        let asked = of(&[("ipFamilies", r#"["IPv6"]"#)], &[]).unwrap();
        assert!(!asked.ipv4 && asked.ipv6);
    }

    #[test]
    fn a_wish_that_cannot_be_read_is_named_with_its_value_and_what_would_be_right() {
        for (key, value, reason) in [
            ("ipv4pools", "mine", "JSON list"),
            ("ipAddrs", r#"["ten"]"#, "no IP address"),
            ("ipAddrs", r#"["10.0.0.1", "10.0.0.2"]"#, "at most one"),
            ("ipAddrsNoIpam", r#"["10.0.0.1"]"#, "ipAddrs"),
            ("ipFamilies", r#"["IPX"]"#, "IPv4"),
            ("ipFamilies", "[]", "IPv4"),
            ("hwAddr", "none", "six pairs"),
            ("hwAddr", "01:00:00:00:00:01", "group"),
        ] {
            let error = of(&[(key, value)], &[]).unwrap_err();
            assert!(error.contains(&format!("{PREFIX}{key}")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_the_runtime_asks_for_counts_where_the_pod_says_nothing() {
        let asked =
            Wishes { addresses: vec!["10.0.0.9".parse().unwrap()], mac: Some(Mac([2; 6])), bandwidth: None };
        let pod = annotated(&[("ipAddrs", r#"["10.0.0.7"]"#)]);
        let given = demand(&conf(), &asked, About { pod: Some(&pod), namespace: None }).unwrap();
        assert_eq!((given.addresses, given.mac), (vec!["10.0.0.7".parse().unwrap()], asked.mac));
        assert_eq!(demand(&conf(), &asked, About::default()).unwrap().addresses, asked.addresses);
    }

    #[test]
    fn what_is_asked_for_in_vain_is_named() {
        let pod = of(&[("floatingIPs", r#"["1.2.3.4"]"#)], &[]).unwrap();
        assert_eq!(pod.without_effect, ["annotation cni.projectcalico.org/floatingIPs is not supported yet"]);
        assert_eq!(
            of(&[("hwAddr", "c2:11:22:33:44:55")], &[]).unwrap().mac,
            Some(Mac([0xc2, 0x11, 0x22, 0x33, 0x44, 0x55]))
        );
    }
}
