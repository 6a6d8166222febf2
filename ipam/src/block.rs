//! How a block is written: Calico's rules (its `ipam_block.go`), on the stored form.
//!
//! Ordinals are given out from the head of `unallocated` and come back at its tail, so that an address rests as long as
//! possible before it is used again. A released ordinal keeps its slot, under an attribute with `releasedAt`, until the
//! cool-down is over; with no cool-down that happens in the same write.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use ipnet::IpNet;
use manx_model::{AllocationAttribute, BlockSpec, Invalid, Kind, NodeName, Object, cidr_name};

use crate::time::{nanoseconds, rfc3339, seconds_since};

/// Addresses that Calico withholds on Windows nodes; they do not make a block used.
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

/// The largest block that is believed: 2^16 addresses (Calico's largest is 2^12).
const MAX_HOST_BITS: u8 = 16;

/// A block as it was last read, with what it takes to write it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Without its spec, which would be copied with every copy of the block.
    pub(crate) object: Object,
    pub(crate) spec: BlockSpec,
}

impl Block {
    /// Reads and checks a stored block; `None` when its deletion has begun.
    pub(crate) fn read(object: Object) -> Result<Option<Self>, Invalid> {
        let spec: BlockSpec = object.spec()?;
        if spec.deleted {
            return Ok(None);
        }
        check(&spec).map_err(|(field, reason)| object.invalid(format!("spec.{field}"), reason))?;
        match object.name() == cidr_name(spec.cidr) {
            true => Ok(Some(Self { object: without_spec(object), spec })),
            false => Err(object.invalid("spec.cidr", format!("{} belongs to another name", spec.cidr))),
        }
    }
}

/// What it takes to write the object with another spec, or to delete it.
pub(crate) fn without_spec(object: Object) -> Object {
    object.with_spec(&())
}

/// `host:<node>`, as a block names its owner.
pub(crate) fn owner(node: &NodeName) -> String {
    format!("host:{node}")
}

/// A new block of `node`, everything free, as an object to be created.
pub(crate) fn fresh(cidr: IpNet, node: &NodeName, now: SystemTime) -> Object {
    let size = 1usize << host_bits(cidr).min(MAX_HOST_BITS);
    let spec = BlockSpec {
        cidr,
        affinity: Some(owner(node)),
        affinity_claim_time: Some(rfc3339(now)),
        allocations: vec![None; size],
        unallocated: (0..size).collect(),
        attributes: Vec::new(),
        sequence_number: nanoseconds(now),
        sequence_number_for_allocation: Default::default(),
        deleted: false,
        strict_affinity: false,
        rest: Default::default(),
    };
    Object::new(Kind::IPAMBlock, cidr_name(cidr), &spec)
}

/// Whether the stored lists fit each other; `Err` names the field.
pub(crate) fn check(block: &BlockSpec) -> Result<(), (&'static str, String)> {
    let bits = host_bits(block.cidr);
    if bits > MAX_HOST_BITS || block.cidr != block.cidr.trunc() {
        return Err(("cidr", format!("{} is no block: it has host bits or is too large", block.cidr)));
    }
    let size = 1usize << bits;
    if block.allocations.len() != size {
        let found = block.allocations.len();
        return Err(("allocations", format!("{found} entries, a /{} has {size}", block.cidr.prefix_len())));
    }
    let known = block.attributes.len();
    if let Some(index) = block.allocations.iter().flatten().find(|index| **index >= known) {
        return Err(("allocations", format!("index {index}, and there are {known} attributes")));
    }
    let mut free = vec![false; size];
    for ordinal in &block.unallocated {
        match free.get_mut(*ordinal) {
            None => return Err(("unallocated", format!("{ordinal} is beyond the block's {size} addresses"))),
            Some(true) => return Err(("unallocated", format!("{ordinal} is there twice"))),
            Some(_) if block.allocations[*ordinal].is_some() => {
                return Err(("unallocated", format!("{ordinal} is allocated")));
            }
            Some(seen) => *seen = true,
        }
    }
    Ok(())
}

/// Makes the list of free ordinals fit the allocations: each free one once, in the order in which they stand there, and
/// those that were in neither list at the end.
pub(crate) fn mend_lists(block: &mut BlockSpec) {
    let allocations = &block.allocations;
    let mut seen = vec![false; allocations.len()];
    block.unallocated.retain(|ordinal| {
        let free = allocations.get(*ordinal).is_some_and(Option::is_none);
        free && !std::mem::replace(&mut seen[*ordinal], true)
    });
    let lost = (0..allocations.len()).filter(|ordinal| allocations[*ordinal].is_none() && !seen[*ordinal]);
    block.unallocated.extend(lost);
}

/// Gives the first free address that is not reserved to `holder`; `None` when there is none.
pub(crate) fn allocate(
    block: &mut BlockSpec,
    holder: &AllocationAttribute,
    reserved: &[IpNet],
) -> Option<IpAddr> {
    let is_free = |ordinal: &usize| !is_reserved(address(block.cidr, *ordinal), reserved);
    let position = block.unallocated.iter().position(is_free)?;
    Some(take(block, position, holder))
}

/// Gives this very address to `holder`; `None` when it is not free.
pub(crate) fn allocate_exactly(
    block: &mut BlockSpec,
    holder: &AllocationAttribute,
    wanted: IpAddr,
) -> Option<IpAddr> {
    let is_it = |ordinal: &usize| address(block.cidr, *ordinal) == wanted;
    let position = block.unallocated.iter().position(is_it)?;
    Some(take(block, position, holder))
}

fn take(block: &mut BlockSpec, position: usize, holder: &AllocationAttribute) -> IpAddr {
    let ordinal = block.unallocated.remove(position);
    block.allocations[ordinal] = Some(attribute_index(block, holder));
    block.sequence_number_for_allocation.insert(ordinal.to_string(), block.sequence_number);
    address(block.cidr, ordinal)
}

/// Gives up to `count` addresses to `holder`, from the end of the list: those that would be used last.
pub(crate) fn allocate_last(
    block: &mut BlockSpec,
    holder: &AllocationAttribute,
    count: usize,
    reserved: &[IpNet],
) {
    for _ in 0..count {
        let is_free = |ordinal: &usize| !is_reserved(address(block.cidr, *ordinal), reserved);
        let Some(position) = block.unallocated.iter().rposition(is_free) else { return };
        take(block, position, holder);
    }
}

/// Writes addresses that somebody holds over to `holder`; they are never free in between.
pub(crate) fn hand_over(block: &mut BlockSpec, ordinals: &[usize], holder: &AllocationAttribute) {
    for ordinal in ordinals {
        block.allocations[*ordinal] = Some(attribute_index(block, holder));
        block.sequence_number_for_allocation.insert(ordinal.to_string(), block.sequence_number);
    }
    compact(block);
}

/// Frees addresses that nobody has used, and that need not cool down.
pub(crate) fn free_at_once(block: &mut BlockSpec, ordinals: &[usize]) {
    for ordinal in ordinals {
        block.allocations[*ordinal] = None;
        block.unallocated.push(*ordinal);
        block.sequence_number_for_allocation.remove(&ordinal.to_string());
    }
    compact(block);
}

/// Takes back every address of `handle`; they are free once `cooldown` seconds have passed.
pub(crate) fn release(block: &mut BlockSpec, handle: &str, now: SystemTime, cooldown: u32) -> Vec<IpAddr> {
    let ordinals: Vec<usize> = addresses_of(block, handle).map(|(ordinal, _)| ordinal).collect();
    release_ordinals(block, &ordinals, now, cooldown)
}

/// Takes back these addresses.
pub(crate) fn release_ordinals(
    block: &mut BlockSpec,
    ordinals: &[usize],
    now: SystemTime,
    cooldown: u32,
) -> Vec<IpAddr> {
    if !ordinals.is_empty() {
        let cooling = AllocationAttribute { released_at: Some(rfc3339(now)), ..Default::default() };
        let index = attribute_index(block, &cooling);
        ordinals.iter().for_each(|ordinal| block.allocations[*ordinal] = Some(index));
        collect(block, now, cooldown);
    }
    ordinals.iter().map(|ordinal| address(block.cidr, *ordinal)).collect()
}

/// Frees what has cooled down for `cooldown` seconds, and forgets attributes that nothing refers to.
pub(crate) fn collect(block: &mut BlockSpec, now: SystemTime, cooldown: u32) {
    let cool: Vec<bool> =
        block.attributes.iter().map(|attribute| is_cool(attribute, now, cooldown)).collect();
    for ordinal in 0..block.allocations.len() {
        if block.allocations[ordinal].is_some_and(|index| cool[index]) {
            block.allocations[ordinal] = None;
            block.unallocated.push(ordinal);
            block.sequence_number_for_allocation.remove(&ordinal.to_string());
        }
    }
    compact(block);
}

/// Whether the address was released, and may be given out again.
pub(crate) fn is_cool(attribute: &AllocationAttribute, now: SystemTime, cooldown: u32) -> bool {
    let since = attribute.released_at.as_deref().and_then(|then| seconds_since(then, now));
    since.is_some_and(|seconds| seconds >= i64::from(cooldown))
}

/// How many addresses [`allocate`] can give after [`collect`].
pub(crate) fn free(block: &BlockSpec, now: SystemTime, cooldown: u32, reserved: &[IpNet]) -> usize {
    let is_cool = |attribute: &AllocationAttribute| is_cool(attribute, now, cooldown);
    let cool = held(block).filter(|(_, _, attribute)| is_cool(attribute)).map(|(ordinal, _, _)| ordinal);
    let free = block.unallocated.iter().copied().chain(cool);
    free.filter(|ordinal| !is_reserved(address(block.cidr, *ordinal), reserved)).count()
}

/// Whether a new block `cidr` would have an address that is not reserved.
pub(crate) fn gives_any(cidr: IpNet, reserved: &[IpNet]) -> bool {
    let overlaps = |network: &&IpNet| network.contains(&cidr) || cidr.contains(*network);
    let reserved: Vec<IpNet> = reserved.iter().filter(overlaps).copied().collect();
    let size = 1usize << host_bits(cidr).min(MAX_HOST_BITS);
    reserved.is_empty() || (0..size).any(|ordinal| !is_reserved(address(cidr, ordinal), &reserved))
}

/// Whether one of the reserved networks contains `address`.
pub(crate) fn is_reserved(address: IpAddr, reserved: &[IpNet]) -> bool {
    reserved.iter().any(|network| network.contains(&address))
}

/// Every address that somebody holds, or that cools down: ordinal, address, attribute.
pub(crate) fn held(block: &BlockSpec) -> impl Iterator<Item = (usize, IpAddr, &AllocationAttribute)> {
    block.allocations.iter().enumerate().filter_map(|(ordinal, index)| {
        let attribute = block.attributes.get((*index)?)?;
        Some((ordinal, address(block.cidr, ordinal), attribute))
    })
}

/// The addresses of one handle, with their ordinals.
pub(crate) fn addresses_of(block: &BlockSpec, handle: &str) -> impl Iterator<Item = (usize, IpAddr)> {
    held(block)
        .filter(move |(_, _, attribute)| handle_of(attribute) == Some(handle))
        .map(|(ordinal, address, _)| (ordinal, address))
}

/// The handle of an attribute. A defect of an old migration of Calico left handles with `\r` and more after it.
pub(crate) fn handle_of(attribute: &AllocationAttribute) -> Option<&str> {
    attribute.handle_id.as_deref()?.split('\r').next()
}

/// Whether nobody holds an address, and none cools down.
pub(crate) fn is_empty(block: &BlockSpec) -> bool {
    held(block).all(|(_, _, attribute)| {
        handle_of(attribute).is_some_and(|handle| handle.eq_ignore_ascii_case(WINDOWS_RESERVED))
    })
}

/// The `ordinal`-th address of `cidr`.
pub(crate) fn address(cidr: IpNet, ordinal: usize) -> IpAddr {
    match cidr {
        IpNet::V4(net) => Ipv4Addr::from_bits(net.network().to_bits().wrapping_add(ordinal as u32)).into(),
        IpNet::V6(net) => Ipv6Addr::from_bits(net.network().to_bits().wrapping_add(ordinal as u128)).into(),
    }
}

fn attribute_index(block: &mut BlockSpec, wanted: &AllocationAttribute) -> usize {
    let found = block.attributes.iter().position(|attribute| attribute == wanted);
    found.unwrap_or_else(|| {
        block.attributes.push(wanted.clone());
        block.attributes.len() - 1
    })
}

fn compact(block: &mut BlockSpec) {
    let mut used = vec![false; block.attributes.len()];
    block.allocations.iter().flatten().for_each(|index| used[*index] = true);
    let new_index: Vec<usize> = used
        .iter()
        .scan(0, |next, used| {
            let index = *next;
            *next += usize::from(*used);
            Some(index)
        })
        .collect();
    block.allocations.iter_mut().flatten().for_each(|index| *index = new_index[*index]);
    let mut used = used.into_iter();
    block.attributes.retain(|_| used.next().unwrap_or(true));
}

fn host_bits(cidr: IpNet) -> u8 {
    cidr.max_prefix_len() - cidr.prefix_len()
}

#[cfg(test)]
mod tests;
