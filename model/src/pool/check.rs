//! The rules of a pool, each with the field that breaks it.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{AllowedUse, AssignmentMode, IpPool, IpPoolSpec, IpipMode};
use crate::Selector;

/// The field that is wrong, and why.
type Wrong = (&'static str, String);

/// The pool that `spec` describes.
pub(super) fn pool(name: &str, spec: &IpPoolSpec) -> Result<IpPool, Wrong> {
    let cidr: IpNet =
        spec.cidr.parse().map_err(|_| ("cidr", format!("{:?} is no CIDR, as 192.168.0.0/16", spec.cidr)))?;
    let disabled = spec.disabled.unwrap_or(false);
    let namespace_selector = selector("namespaceSelector", spec.namespace_selector.as_deref())?;
    let pool = IpPool {
        name: name.to_owned(),
        cidr,
        block_size: check_pool_cidr(cidr, spec.block_size, disabled)?,
        ipip: encapsulation(cidr, spec)?,
        nat_outgoing: spec.nat_outgoing.unwrap_or(false),
        disabled,
        disable_bgp_export: spec.disable_bgp_export.unwrap_or(false),
        node_selector: selector("nodeSelector", spec.node_selector.as_deref())?.unwrap_or_default(),
        allowed_uses: allowed_uses(spec, namespace_selector.is_some())?,
        namespace_selector,
        assignment: AssignmentMode::from_stored(spec.assignment_mode.as_deref())
            .map_err(|reason| ("assignmentMode", reason))?,
    };
    check_load_balancer(&pool, spec)?;
    Ok(pool)
}

/// The block size of a pool, checked.
///
/// # Errors
/// The name of the field that is wrong, and the reason.
pub fn check_pool_cidr(
    cidr: IpNet,
    block_size: Option<u8>,
    disabled: bool,
) -> Result<u8, (&'static str, String)> {
    let (range, default) = match cidr {
        IpNet::V4(_) => (20..=32, 26),
        IpNet::V6(_) => (116..=128, 122),
    };
    let block_size = block_size.unwrap_or(default);
    if cidr != cidr.trunc() {
        return Err((
            "cidr",
            format!("{cidr} has bits set beyond its length; did you mean {}?", cidr.trunc()),
        ));
    }
    if !range.contains(&block_size) {
        return Err((
            "blockSize",
            format!("{block_size} is not within {} to {}", range.start(), range.end()),
        ));
    }
    if cidr.prefix_len() > block_size && !disabled {
        return Err(("cidr", format!("{cidr} is smaller than one block (/{block_size})")));
    }
    let link_local: [IpNet; 2] =
        ["169.254.0.0/16", "fe80::/10"].map(|text| text.parse().expect("a constant CIDR"));
    if link_local.iter().any(|net| net.contains(&cidr) || cidr.contains(net)) {
        return Err(("cidr", format!("{cidr} overlaps the link-local range")));
    }
    Ok(block_size)
}

fn encapsulation(cidr: IpNet, spec: &IpPoolSpec) -> Result<IpipMode, Wrong> {
    let ipip = IpipMode::from_stored(spec.ipip_mode.as_deref()).map_err(|reason| ("ipipMode", reason))?;
    let vxlan = IpipMode::from_stored(spec.vxlan_mode.as_deref()).map_err(|reason| ("vxlanMode", reason))?;
    if ipip != IpipMode::Never && cidr.addr().is_ipv6() {
        return Err(("ipipMode", format!("{ipip}: an IPv6 pool can only have Never")));
    }
    if ipip != IpipMode::Never && vxlan != IpipMode::Never {
        return Err((
            "vxlanMode",
            format!("{vxlan}: ipipMode is {ipip}, and a pool can have only one of them"),
        ));
    }
    Ok(ipip)
}

fn selector(field: &'static str, text: Option<&str>) -> Result<Option<Selector>, Wrong> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let selector: Selector = text.parse().map_err(|error| (field, format!("{text:?} {error}")))?;
    match selector.uses_global() {
        true => Err((field, format!("{text:?} uses global(), which has no meaning in a pool"))),
        false => Ok(Some(selector)),
    }
}

/// Absent uses are Workload and Tunnel; but a tunnel's address belongs to no namespace, and so a pool that selects by
/// namespace is not meant for tunnels unless it says so, which is a contradiction.
fn allowed_uses(spec: &IpPoolSpec, by_namespace: bool) -> Result<BTreeSet<AllowedUse>, Wrong> {
    let wrong = |reason| ("allowedUses", reason);
    let named = spec.allowed_uses.iter().flatten().map(|text| text.parse());
    let named: BTreeSet<AllowedUse> = named.collect::<Result<_, String>>().map_err(wrong)?;
    if named.is_empty() {
        let tunnel = (!by_namespace).then_some(AllowedUse::Tunnel);
        return Ok(tunnel.into_iter().chain([AllowedUse::Workload]).collect());
    }
    if by_namespace && named.contains(&AllowedUse::Tunnel) {
        let reason = "Tunnel does not go with namespaceSelector: a tunnel's address belongs to no namespace";
        return Err(("namespaceSelector", reason.into()));
    }
    if named.len() > 1 && named.contains(&AllowedUse::LoadBalancer) {
        return Err(wrong("LoadBalancer goes with no other use".into()));
    }
    Ok(named)
}

/// The addresses of services belong to no node and no namespace, travel as they are, and are of use only when announced.
fn check_load_balancer(pool: &IpPool, spec: &IpPoolSpec) -> Result<(), Wrong> {
    if !pool.allows(AllowedUse::LoadBalancer) {
        return Ok(());
    }
    let vxlan = !matches!(spec.vxlan_mode.as_deref(), None | Some("" | "Never"));
    for (wrong, field, right) in [
        (!pool.node_selector.is_all(), "nodeSelector", "all()"),
        (pool.namespace_selector.is_some(), "namespaceSelector", "empty"),
        (pool.ipip != IpipMode::Never, "ipipMode", "Never"),
        (vxlan, "vxlanMode", "Never"),
        (pool.disable_bgp_export, "disableBGPExport", "false"),
    ] {
        if wrong {
            return Err((field, format!("must be {right} in a pool whose allowedUses is LoadBalancer")));
        }
    }
    Ok(())
}
