//! Names that Calico's users and tools expect, down to the last character.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use data_encoding::BASE32_NOPAD;
use ipnet::IpNet;
use sha1::{Digest, Sha1};

use crate::{Kind, NodeName};

/// `10.244.1.0/26` as a name: `10-244-1-0-26`. The name of an IPAMBlock.
pub fn cidr_name(cidr: IpNet) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

/// The name of the BlockAffinity of `node` for `cidr`: `node1-10-244-1-0-26`, shortened with a hash as Calico does
/// where it would be longer than a Kubernetes name may be.
pub fn affinity_name(node: &NodeName, cidr: IpNet) -> String {
    let cidr = cidr_name(cidr);
    let name = format!("{node}-{cidr}");
    if name.len() < 253 {
        return name;
    }
    let hash = sha2::Sha256::digest(format!("{node}+{cidr}").as_bytes());
    let keep = 252 - cidr.len() - 13;
    let host: String = node.as_str().chars().take(keep).collect();
    format!("{host}-{cidr}-{}", hex(&hash, 11))
}

/// The labels by which Calico (3.31 and later) finds a node's affinities: without them it does not see one.
pub fn affinity_labels(node: &NodeName, cidr: IpNet) -> BTreeMap<String, String> {
    let version = if cidr.addr().is_ipv4() { "4" } else { "6" };
    BTreeMap::from([
        (HOSTNAME_HASH.to_owned(), hostname_hash(node)),
        ("projectcalico.org/affinity-type".to_owned(), "host".to_owned()),
        ("projectcalico.org/ip-version".to_owned(), version.to_owned()),
    ])
}

/// The label that holds [`hostname_hash`].
pub const HOSTNAME_HASH: &str = "projectcalico.org/hostname-hash";

/// A node's name as a label can hold it, however long it is: base32 (RFC 4648, no padding) of its SHA3-256.
pub fn hostname_hash(node: &NodeName) -> String {
    BASE32_NOPAD.encode(&sha3::Sha3_256::digest(node.as_str().as_bytes()))
}

/// A BGP identifier that follows from a node's name (Calico's `CALICO_ROUTER_ID=hash`): the first four bytes of its SHA-256,
/// kept below the multicast addresses.
pub fn router_id_of(node: &NodeName) -> Ipv4Addr {
    let hash = sha2::Sha256::digest(node.as_str().as_bytes());
    let first = if hash[0] > 223 { hash[0] - 32 } else { hash[0] };
    Ipv4Addr::new(first, hash[1], hash[2], hash[3])
}

/// Whether Kubernetes takes `name` as the name of an object: a DNS-1123 subdomain.
///
/// # Errors
/// A sentence that says what a name must look like.
pub fn check_name(name: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no name: at most 253 characters of a-z, 0-9, '-' and '.', \
             each part between dots beginning and ending with a letter or digit"
        )),
    }
}

/// Whether `key` can be that of an object of `kind`: its name, or `namespace/name` where the kind lives in namespaces.
///
/// # Errors
/// The field of the metadata that is wrong, and a sentence that says what it must look like.
pub fn check_key(kind: Kind, key: &str) -> Result<(), (&'static str, String)> {
    let in_name = |reason| ("metadata.name", reason);
    if !kind.is_namespaced() {
        return check_name(key).map_err(in_name);
    }
    let Some((namespace, name)) = key.split_once('/') else {
        return Err(("metadata.namespace", format!("is missing; a {kind} lives in a namespace")));
    };
    let is_label = namespace.len() <= 63 && !namespace.contains('.') && check_name(namespace).is_ok();
    if !is_label {
        let reason = format!("{namespace:?} is no namespace: at most 63 characters of a-z, 0-9 and '-'");
        return Err(("metadata.namespace", reason));
    }
    check_name(name).map_err(in_name)
}

/// The host's end of a pod's veth: `cali` (or another prefix) and the first 11 hex digits of sha1(`namespace.pod`).
pub fn veth_name(prefix: &str, namespace: &str, pod: &str) -> String {
    let hash = Sha1::digest(format!("{namespace}.{pod}").as_bytes());
    format!("{prefix}{}", hex(&hash, 11))
}

/// The IPAM handle under which `node` holds the address of its `tunl0`.
pub fn tunnel_handle(node: &NodeName) -> String {
    format!("ipip-tunnel-addr-{node}")
}

/// The IPAM handle under which `node` holds back addresses for pods that come while the datastore is away.
pub fn reserve_handle(node: &NodeName) -> String {
    format!("{RESERVE_PREFIX}{node}")
}

/// Whether this is [`reserve_handle`] of the node.
pub fn is_reserve_handle(handle: &str, node: &NodeName) -> bool {
    handle.strip_prefix(RESERVE_PREFIX) == Some(node.as_str())
}

const RESERVE_PREFIX: &str = "manx-reserve-";

fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_veth_has_the_name_that_calico_gives_it() {
        assert_eq!(veth_name("cali", "default", "nginx"), "calic440f455693");
        assert_eq!(veth_name("cali", "default", "mypod-1"), "calie8e39d24cbb");
        assert_eq!(veth_name("cali", "ns1", "a.b"), "calie9b4ea37ef7");
    }

    #[test]
    fn blocks_and_affinities_have_the_names_that_calico_gives_them() {
        let cidr = "10.244.1.0/26".parse().unwrap();
        assert_eq!(cidr_name(cidr), "10-244-1-0-26");
        assert_eq!(cidr_name("fd80:24e2:f998:72d6::/122".parse().unwrap()), "fd80-24e2-f998-72d6---122");
        assert_eq!(affinity_name(&"node1".parse().unwrap(), cidr), "node1-10-244-1-0-26");
    }

    #[test]
    fn an_affinity_has_the_labels_by_which_calico_finds_it() {
        let labels = affinity_labels(&"node1".parse().unwrap(), "10.0.0.0/26".parse().unwrap());
        let labels: Vec<(&str, &str)> =
            labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            labels,
            [
                ("projectcalico.org/affinity-type", "host"),
                ("projectcalico.org/hostname-hash", "7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A"),
                ("projectcalico.org/ip-version", "4"),
            ]
        );
    }

    #[test]
    fn a_name_is_what_kubernetes_takes_for_one() {
        for good in ["n1", "a.b-c.d", "10-244-1-0-26", "fd80-24e2---122", "k8s-pod-network.0123abcd"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(254);
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a/b", "..", "a\n", "\u{e9}", &long] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_has_a_namespace_exactly_where_the_kind_lives_in_one() {
        for (kind, key, wrong) in [
            (Kind::Pod, "kube-system/dns-0", None),
            (Kind::Pod, "dns-0", Some("metadata.namespace")),
            (Kind::Pod, "a.b/dns-0", Some("metadata.namespace")),
            (Kind::Pod, "a/b/c", Some("metadata.name")),
            (Kind::Node, "n1.example", None),
            (Kind::Node, "a/n1", Some("metadata.name")),
        ] {
            assert_eq!(check_key(kind, key).err().map(|(field, _)| field), wrong, "{kind} {key}");
        }
    }

    #[test]
    fn a_long_affinity_name_is_cut_and_hashed_as_calico_does() {
        let node = "h".repeat(240).parse().unwrap();
        let name = affinity_name(&node, "192.168.100.192/26".parse().unwrap());
        assert_eq!(name.len(), 252);
        assert!(name.ends_with("-85f82cde040"), "{name}");
    }

    #[test]
    fn a_router_id_from_a_nodes_name_is_calicos() {
        for (node, id) in [("node1", "202.18.243.27"), ("worker-0", "220.142.52.224")] {
            assert_eq!(router_id_of(&node.parse().unwrap()).to_string(), id);
        }
    }
}
