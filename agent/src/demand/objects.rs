//! What is wrong with the wishes of Pods and Namespaces, found as soon as the object is seen: whoever wrote it learns it even
//! if nobody asks for the pod's address yet.

use std::collections::BTreeMap;

use ipnet::IpNet;
use manx_cni::CniError;
use manx_cni::settings::Ipam;
use manx_model::{Complaint, Invalid, IpPool, Kind, Object};

use super::{Annotations, PREFIX, families};

/// The annotations of a Pod or a Namespace that cannot be read, each with its value and what would be right.
pub fn refused(object: &Object, annotations: &BTreeMap<String, String>) -> Vec<Invalid> {
    let of = object.kind.as_str();
    let all = Annotations { of, all: Some(annotations) };
    let pools = ["ipv4pools", "ipv6pools"].map(|key| all.list::<String>(key).err());
    let of_pod = match object.kind {
        Kind::Pod => [all.addresses().err(), families(&Ipam::default(), &all, &[]).err(), all.mac().err()],
        _ => [const { None }; 3],
    };
    let reason = |error: CniError| error.details.trim_start_matches(&format!("{of} annotation ")).to_owned();
    let wrong = pools.into_iter().chain(of_pod).flatten();
    wrong.map(|error| object.invalid("metadata.annotations", reason(error))).collect()
}

/// What the annotations of a Pod or a Namespace ask for, and cannot be had: pools that are not there, and what Manx does
/// not do.
pub fn in_vain(
    kind: Kind,
    key: &str,
    annotations: &BTreeMap<String, String>,
    pools: &[IpPool],
) -> Vec<Complaint> {
    let all = Annotations { of: kind.as_str(), all: Some(annotations) };
    let named = |family: &str| all.list::<String>(family).ok().flatten().unwrap_or_default();
    let is_there = |name: &String| {
        let cidr = name.parse::<IpNet>().ok();
        pools.iter().any(|pool| pool.name == *name || Some(pool.cidr) == cidr)
    };
    let missing = ["ipv4pools", "ipv6pools"].into_iter().flat_map(|family| {
        let missing = named(family).into_iter().filter(|name| !is_there(name));
        missing
            .map(move |name| format!("{PREFIX}{family} names {name:?}, and there is no such IPPool in use"))
    });
    let not_yet = match kind {
        Kind::Pod => all.without_effect(),
        _ => Vec::new(),
    };
    missing.chain(not_yet).map(|message| Complaint::new(kind, key, message)).collect()
}
