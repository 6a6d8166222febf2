//! What a configuration asks of the agent, read from Calico's keys.

use serde_json::Value;

use super::section::{Section, invalid};
use crate::CniError;
use crate::settings::{Cidr, Features, Ipam, PodRoutes, Settings, Source};

/// The subnet that stands for the Node's `spec.podCIDRs`, and the same for its IPv6 part.
const POD_CIDR: &str = "usePodCidr";
const POD_CIDR_IPV6: &str = "usePodCidrIPv6";

/// What ADD, CHECK and STATUS need to know; the other verbs do not read this, so that a pod whose ADD was refused for it
/// can still be taken away.
///
/// # Errors
/// [`crate::Code::CONFIG`] names a key whose value cannot be right, [`crate::Code::UNSUPPORTED_FIELD`] one that asks for
/// what Manx never does.
pub fn settings(conf: &Value) -> Result<Settings, CniError> {
    let section = Section::of(conf);
    refuse_foreign(&section)?;
    let ipam = section.section("ipam")?;
    Ok(Settings {
        mtu: mtu(&section)?,
        queues: section.number("num_queues", 0..=4096)?.filter(|queues| *queues > 0),
        routes: PodRoutes {
            destinations: destinations(&ipam)?,
            defaults_too: section.flag("include_default_routes")?.unwrap_or(false),
        },
        ipam: addresses(&ipam)?,
        allow_ip_forwarding: section
            .section("container_settings")?
            .flag("allow_ip_forwarding")?
            .unwrap_or(false),
        features: features(&section.section("feature_control")?)?,
        readiness_gates: section.texts("readiness_gates")?,
        policy_timeout_seconds: section
            .number("policy_setup_timeout_seconds", 0..=3600)?
            .filter(|seconds| *seconds > 0),
        node: node(&section)?,
        without_effect: without_effect(&section)?,
    })
}

/// Keys that choose another system than this one: to go on would give pods something that was not asked for.
fn refuse_foreign(section: &Section<'_>) -> Result<(), CniError> {
    if !matches!(section.filled("datastore_type")?, None | Some("kubernetes")) {
        return Err(section.unsupported(
            "datastore_type",
            "the manx agent keeps the cluster's objects (MANX_DATASTORE), and it has no etcd; remove the key",
        ));
    }
    if !matches!(section.filled("device_type")?, None | Some("veth")) {
        return Err(section.unsupported("device_type", "Manx connects pods by veth; remove the key"));
    }
    let dataplane = section.section("dataplane_options")?;
    if !matches!(dataplane.filled("type")?, None | Some("linux")) {
        return Err(
            dataplane.unsupported("type", "the manx agent makes the pod's link itself; remove the key")
        );
    }
    let policy = section.section("policy")?;
    if !matches!(policy.filled("type")?, None | Some("k8s")) {
        return Err(policy.unsupported("type", "Manx knows the policies of Kubernetes; write \"k8s\""));
    }
    Ok(())
}

/// Keys that do no harm and nothing else. Those that every Calico cluster has and that only concern Calico's own plugin
/// (its log, its client, its files: see [`super`]) are not among them.
fn without_effect(section: &Section<'_>) -> Result<Vec<String>, CniError> {
    let etcd = [
        "etcd_endpoints",
        "etcd_discovery_srv",
        "etcd_scheme",
        "etcd_key_file",
        "etcd_cert_file",
        "etcd_ca_cert_file",
        "etcd_authority",
    ];
    let mut said = Vec::new();
    for key in etcd {
        if section.filled(key)?.is_some() {
            said.push(section.in_vain(key, "the plugin asks the manx agent and no datastore; remove it"));
        }
    }
    let ipam = section.section("ipam")?;
    if !ipam.texts("ip_pools_label_selector_keys")?.is_empty() {
        said.push(ipam.in_vain("ip_pools_label_selector_keys", "name pools by ipv4_pools or annotations"));
    }
    let runtime = section.section("runtimeConfig")?;
    if runtime.value("portMappings").is_some() {
        said.push(
            runtime.in_vain("portMappings", "chain the portmap plugin, and give the capability to it alone"),
        );
    }
    Ok(said)
}

fn mtu(section: &Section<'_>) -> Result<Option<u32>, CniError> {
    match section.number("mtu", 0..=65535)? {
        None | Some(0) => Ok(None),
        Some(mtu) if mtu < 68 => Err(invalid(format!(
            "mtu is {mtu}; IPv4 needs at least 68 (RFC 791), and 0 lets the agent decide"
        ))),
        Some(mtu) => Ok(Some(mtu)),
    }
}

fn features(section: &Section<'_>) -> Result<Features, CniError> {
    Ok(Features {
        ip_addrs_no_ipam: section.flag("ip_addrs_no_ipam")?.unwrap_or(false),
        floating_ips: section.flag("floating_ips")?.unwrap_or(false),
    })
}

/// `nodename`, or its deprecated spelling `hostname`.
fn node(section: &Section<'_>) -> Result<Option<String>, CniError> {
    let (node, old) = (section.filled("nodename")?, section.filled("hostname")?);
    Ok(node.or(old).map(str::to_owned))
}

fn addresses(ipam: &Section<'_>) -> Result<Ipam, CniError> {
    let wanted = Ipam {
        source: Source::Blocks,
        ipv4_pools: ipam.texts("ipv4_pools")?,
        ipv6_pools: ipam.texts("ipv6_pools")?,
        assign_ipv4: ipam.flag("assign_ipv4")?.unwrap_or(true),
        assign_ipv6: ipam.flag("assign_ipv6")?.unwrap_or(false),
    };
    let wanted = match ipam.filled("type")? {
        None | Some("calico-ipam" | "manx-ipam") => wanted,
        Some("host-local") => pod_cidr(ipam)?,
        Some(_) => {
            return Err(ipam.unsupported(
                "type",
                "Manx assigns addresses itself, from its own blocks: write \"calico-ipam\", or \"host-local\" with the \
                 subnet \"usePodCidr\"",
            ));
        }
    };
    if !wanted.assign_ipv4 && !wanted.assign_ipv6 {
        return Err(invalid(
            "ipam.assign_ipv4 and ipam.assign_ipv6 are both false; a pod needs an address".to_owned(),
        ));
    }
    Ok(wanted)
}

/// `host-local` is not run: its subnet, or each of its ranges, must be the Node's own.
fn pod_cidr(ipam: &Section<'_>) -> Result<Ipam, CniError> {
    const REMEDY: &str = "of host-local only the subnets \"usePodCidr\" and \"usePodCidrIPv6\" are known; write these, or \
                          use \"calico-ipam\" with ipv4_pools";
    let mut subnets: Vec<&str> = ipam.filled("subnet")?.into_iter().collect();
    let known = |subnet: &str| subnet == POD_CIDR || subnet == POD_CIDR_IPV6;
    if subnets.iter().any(|subnet| !known(subnet)) {
        return Err(ipam.unsupported("subnet", REMEDY));
    }
    let ranges = ipam.read("ranges", "a list of lists of {\"subnet\": ...}", ranges)?.unwrap_or_default();
    if ranges.iter().any(|subnet| !known(subnet)) {
        return Err(ipam.unsupported("ranges", REMEDY));
    }
    subnets.extend(ranges);
    if subnets.is_empty() {
        return Err(ipam.unsupported("type", REMEDY));
    }
    Ok(Ipam {
        source: Source::PodCidr,
        assign_ipv4: subnets.contains(&POD_CIDR),
        assign_ipv6: subnets.contains(&POD_CIDR_IPV6),
        ..Ipam::default()
    })
}

fn ranges(value: &Value) -> Option<Vec<&str>> {
    let sets: Vec<&Vec<Value>> = value.as_array()?.iter().map(Value::as_array).collect::<Option<_>>()?;
    sets.into_iter().flatten().map(|range| range.get("subnet")?.as_str()).collect()
}

fn destinations(ipam: &Section<'_>) -> Result<Vec<Cidr>, CniError> {
    let routes = ipam.sections("routes")?;
    let cidr = |route: &Section<'_>| route.read("dst", "a CIDR", |value| value.as_str()?.parse().ok());
    routes.iter().filter_map(|route| cidr(route).transpose()).collect()
}
