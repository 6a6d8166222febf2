//! Calico's IPAM up to 3.30, in its own steps: claims that are pending before they are confirmed, handles before blocks,
//! addresses from the head of `unallocated`, affinities without the labels that came later.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::{Api, Write};

/// How often Calico tries a write that somebody else wins.
const RETRIES: usize = 100;

/// One node's IPAM.
#[derive(Debug, Clone)]
pub struct Ipam {
    api: Api,
    node: String,
}

impl Ipam {
    /// That of a node.
    pub fn new(api: Api, node: &str) -> Ipam {
        Ipam { api, node: node.to_owned() }
    }

    /// Takes an address for a pod: from a block of this node, else from one that it claims, else from one of another.
    pub fn assign(&self, handle: &str, pod: &str, namespace: &str) -> Result<Ipv4Addr> {
        let attributes = json!({
            "handle_id": handle,
            "secondary": {"node": self.node, "pod": pod, "namespace": namespace, "timestamp": format!("{}", now()?)},
        });
        for block in self.blocks()? {
            if let Some(address) = self.assign_from(block, handle, &attributes)? {
                return Ok(address);
            }
        }
        while let Some(block) = self.claim()? {
            if let Some(address) = self.assign_from(block, handle, &attributes)? {
                return Ok(address);
            }
        }
        for block in self.api.list("ipamblocks")? {
            let block = cidr(&block)?;
            if let Some(address) = self.assign_from(block, handle, &attributes)? {
                return Ok(address);
            }
        }
        bail!("no addresses are left")
    }

    /// Gives back what a handle holds; what holds nothing is no error.
    pub fn release(&self, handle: &str) -> Result<()> {
        let Some(object) = self.api.get("ipamhandles", &handle.to_lowercase())? else { return Ok(()) };
        for block in object["spec"]["block"].as_object().into_iter().flatten().map(|(block, _)| block) {
            let block: Ipv4Net = block.parse()?;
            let released = self.change(block, |spec| Ok(give_back(spec, handle)))?.unwrap_or(0);
            for _ in 0..released {
                self.count(handle, block, -1)?;
            }
        }
        Ok(())
    }

    /// The blocks of this node whose affinity is confirmed.
    pub fn blocks(&self) -> Result<Vec<Ipv4Net>> {
        let mut blocks = Vec::new();
        for affinity in self.api.list("blockaffinities")? {
            let spec = &affinity["spec"];
            let confirmed = ["confirmed", ""].contains(&spec["state"].as_str().unwrap_or_default());
            if spec["node"] == *self.node && confirmed && spec["deleted"] != "true" {
                blocks.push(spec["cidr"].as_str().context("an affinity without a CIDR")?.parse()?);
            }
        }
        Ok(blocks)
    }

    /// Claims a block that nobody has; `None` where there is none.
    fn claim(&self) -> Result<Option<Ipv4Net>> {
        let taken: Vec<Ipv4Net> = self.api.list("ipamblocks")?.iter().map(cidr).collect::<Result<_>>()?;
        for pool in self.api.list("ippools")?.iter().filter(|pool| pool["spec"]["disabled"] != true) {
            let size = u8::try_from(pool["spec"]["blockSize"].as_u64().unwrap_or(26))?;
            let mut blocks: Vec<Ipv4Net> = cidr(pool)?.subnets(size)?.collect();
            // Every node begins elsewhere, and none leaves a block out.
            let start = self.node.bytes().map(usize::from).sum::<usize>() % blocks.len();
            blocks.rotate_left(start);
            for block in blocks.into_iter().filter(|block| !taken.contains(block)) {
                if self.claim_this(block)? {
                    return Ok(Some(block));
                }
            }
        }
        Ok(None)
    }

    /// Affinity pending, block, affinity confirmed.
    fn claim_this(&self, block: Ipv4Net) -> Result<bool> {
        let name = format!("{}-{}", self.node, block_name(block));
        let pending = json!({
            "state": "pending", "node": self.node, "type": "host", "cidr": block, "deleted": "false",
        });
        let Write::Done(affinity) = self.api.create("blockaffinities", "BlockAffinity", &name, pending)?
        else {
            return Ok(false);
        };
        let created = self.api.create("ipamblocks", "IPAMBlock", &block_name(block), self.fresh(block)?)?;
        if let Write::Lost = created {
            // Another node was faster.
            self.api.delete("blockaffinities", &affinity, json!("true"))?;
            return Ok(false);
        }
        let mut confirmed = affinity;
        confirmed["spec"]["state"] = json!("confirmed");
        match self.api.update("blockaffinities", &confirmed)? {
            Write::Done(_) => Ok(true),
            Write::Lost => bail!("somebody else wrote the affinity {name}"),
        }
    }

    fn fresh(&self, block: Ipv4Net) -> Result<Value> {
        let size = 1usize << (32 - block.prefix_len());
        Ok(json!({
            "cidr": block,
            "affinity": format!("host:{}", self.node),
            "allocations": vec![Value::Null; size],
            "unallocated": (0..size).collect::<Vec<_>>(),
            "attributes": [],
            "deleted": false,
            "strictAffinity": false,
            "sequenceNumber": now()?,
            "sequenceNumberForAllocation": {},
        }))
    }

    /// The address at the head of `unallocated`; the handle is counted first, and taken back where the block is lost.
    fn assign_from(&self, block: Ipv4Net, handle: &str, attributes: &Value) -> Result<Option<Ipv4Addr>> {
        for _ in 0..RETRIES {
            let Some(mut object) = self.api.get("ipamblocks", &block_name(block))? else { return Ok(None) };
            let spec = &mut object["spec"];
            if spec["deleted"] == true {
                return Ok(None);
            }
            let Some(ordinal) = take(spec, attributes)? else { return Ok(None) };
            self.count(handle, block, 1)?;
            if let Write::Done(_) = self.api.update("ipamblocks", &object)? {
                let first = u32::from(block.network());
                return Ok(Some(Ipv4Addr::from(first + u32::try_from(ordinal)?)));
            }
            self.count(handle, block, -1)?;
        }
        bail!("{block}: somebody else was faster {RETRIES} times")
    }

    /// Changes a block until no one is faster; what `change` returned, or `None` where there is no block.
    fn change<T>(&self, block: Ipv4Net, change: impl Fn(&mut Value) -> Result<T>) -> Result<Option<T>> {
        for _ in 0..RETRIES {
            let Some(mut object) = self.api.get("ipamblocks", &block_name(block))? else { return Ok(None) };
            let result = change(&mut object["spec"])?;
            if let Write::Done(_) = self.api.update("ipamblocks", &object)? {
                return Ok(Some(result));
            }
        }
        bail!("{block}: somebody else was faster {RETRIES} times")
    }

    /// Changes how many addresses of a block a handle holds; one that holds nothing is deleted.
    fn count(&self, handle: &str, block: Ipv4Net, by: i64) -> Result<()> {
        let name = handle.to_lowercase();
        let key = block.to_string();
        for _ in 0..RETRIES {
            let written = match self.api.get("ipamhandles", &name)? {
                None if by < 0 => return Ok(()),
                None => {
                    let spec = json!({"handleID": handle, "block": {key.clone(): by}, "deleted": false});
                    self.api.create("ipamhandles", "IPAMHandle", &name, spec)?
                }
                Some(mut object) => {
                    let held = object["spec"]["block"].as_object_mut().context("a handle without blocks")?;
                    let count = held.get(&key).and_then(Value::as_i64).unwrap_or(0) + by;
                    match count {
                        0 => drop(held.remove(&key)),
                        count => drop(held.insert(key.clone(), json!(count))),
                    }
                    match held.is_empty() {
                        true => self.api.delete("ipamhandles", &object, json!(true))?,
                        false => self.api.update("ipamhandles", &object)?,
                    }
                }
            };
            if let Write::Done(_) = written {
                return Ok(());
            }
        }
        bail!("handle {handle}: somebody else was faster {RETRIES} times")
    }
}

/// The first free ordinal, given to the owner that `attributes` name.
fn take(spec: &mut Value, attributes: &Value) -> Result<Option<usize>> {
    let free = spec["unallocated"].as_array_mut().context("a block without `unallocated`")?;
    if free.is_empty() {
        return Ok(None);
    }
    let ordinal = free.remove(0);
    let index = usize::try_from(ordinal.as_u64().context("an ordinal that is no number")?)?;
    let known = spec["attributes"].as_array_mut().context("a block without attributes")?;
    let position = known.iter().position(|other| other == attributes).unwrap_or_else(|| {
        known.push(attributes.clone());
        known.len() - 1
    });
    ensure!(spec["allocations"][index].is_null(), "{ordinal} is free and held in {spec}");
    spec["allocations"][index] = json!(position);
    spec["sequenceNumberForAllocation"][index.to_string()] = spec["sequenceNumber"].clone();
    next(spec);
    Ok(Some(index))
}

/// Frees what a handle holds, at the tail of `unallocated`, and what nobody refers to of the attributes; how many.
fn give_back(spec: &mut Value, handle: &str) -> usize {
    let attributes = spec["attributes"].as_array().cloned().unwrap_or_default();
    let allocations = spec["allocations"].as_array().cloned().unwrap_or_default();
    let holder = |slot: &Value| slot.as_u64().and_then(|index| attributes.get(usize::try_from(index).ok()?));
    let (mut kept, mut slots, mut freed) = (Vec::<Value>::new(), Vec::new(), Vec::new());
    for (ordinal, slot) in allocations.iter().enumerate() {
        slots.push(match holder(slot) {
            Some(owner) if owner["handle_id"] == handle => {
                freed.push(ordinal);
                Value::Null
            }
            Some(owner) => json!(kept.iter().position(|other| other == owner).unwrap_or_else(|| {
                kept.push(owner.clone());
                kept.len() - 1
            })),
            None => Value::Null,
        });
    }
    spec["allocations"] = Value::Array(slots);
    spec["attributes"] = Value::Array(kept);
    for ordinal in &freed {
        if let Some(free) = spec["unallocated"].as_array_mut() {
            free.push(json!(ordinal));
        }
        if let Some(numbers) = spec["sequenceNumberForAllocation"].as_object_mut() {
            numbers.remove(&ordinal.to_string());
        }
    }
    next(spec);
    freed.len()
}

/// Every change of a block raises its sequence number.
fn next(spec: &mut Value) {
    spec["sequenceNumber"] = json!(spec["sequenceNumber"].as_u64().unwrap_or(0) + 1);
}

fn cidr(object: &Value) -> Result<Ipv4Net> {
    Ok(object["spec"]["cidr"].as_str().context("an object without a CIDR")?.parse()?)
}

fn block_name(block: Ipv4Net) -> String {
    block.to_string().replace(['.', '/'], "-")
}

/// Nanoseconds since 1970.
fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}
