//! Which block each address is to come from, as far as the blocks at hand reach. Nothing is written here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{AllocationAttribute, RESERVE};

use crate::assign::Door;
use crate::batch::Batch;
use crate::block::{self, Block};
use crate::{Allocator, Error};

/// Where the open items of a batch go.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The items by the block that they are taken from.
    pub(crate) places: BTreeMap<IpNet, Vec<usize>>,
    /// The items for which there is no place at hand.
    pub(crate) missing: Vec<usize>,
}

impl Plan {
    /// How many addresses each request is to take of each block.
    pub(crate) fn by_request(&self, batch: &Batch<'_>) -> BTreeMap<usize, BTreeMap<String, u32>> {
        let mut by_request: BTreeMap<usize, BTreeMap<String, u32>> = BTreeMap::new();
        for (cidr, items) in &self.places {
            for item in items {
                let blocks = by_request.entry(batch.items[*item].request).or_default();
                *blocks.entry(cidr.to_string()).or_default() += 1;
            }
        }
        by_request
    }
}

impl Allocator {
    /// Our own blocks first, pool by pool; then those that others lend. An address that was named and is taken refuses
    /// its request.
    pub(crate) fn plan(&self, door: Door<'_>, batch: &mut Batch<'_>) -> Plan {
        let (mut plan, mut free) = (Plan::default(), Free { door, left: BTreeMap::new() });
        let (fixed, any): (Vec<_>, Vec<_>) =
            batch.open().into_iter().partition(|item| batch.fixed(*item).is_some());
        for item in fixed.into_iter().chain(any) {
            let place = match batch.fixed(item) {
                Some(_) if batch.items[item].pools.is_err() => Ok(None),
                Some(address) => self.place_fixed(door, batch, address),
                None => Ok(self.place_any(batch, item, &mut free)),
            };
            match place {
                Ok(Some(block)) => {
                    if batch.fixed(item).is_some() {
                        free.take(block);
                    }
                    plan.places.entry(block.spec.cidr).or_default().push(item);
                }
                Ok(None) => plan.missing.push(item),
                Err(error) => batch.refuse(item, error),
            }
        }
        plan
    }

    fn place_any<'s>(&'s self, batch: &'s Batch<'_>, item: usize, free: &mut Free<'_>) -> Option<&'s Block> {
        let pools = batch.items[item].pools.as_deref().unwrap_or_default();
        let pools = || pools.iter().map(|index| &free.door.rules.pools[*index]);
        let own: Vec<&Block> = pools()
            .flat_map(|pool| self.blocks.values().filter(|block| pool.cidr.contains(&block.spec.cidr)))
            .collect();
        let lent: Vec<&Block> = pools()
            .flat_map(|pool| batch.lent.keys().filter(|cidr| pool.cidr.contains(*cidr)))
            .filter_map(|cidr| self.at_hand(batch, *cidr))
            .collect();
        own.into_iter().chain(lent).find(|block| free.take(block))
    }

    fn place_fixed<'s>(
        &'s self,
        door: Door<'_>,
        batch: &'s Batch<'_>,
        address: IpAddr,
    ) -> Result<Option<&'s Block>, Error> {
        let lent = batch.lent.keys().filter_map(|cidr| self.at_hand(batch, *cidr));
        let mut blocks = self.blocks.values().chain(lent);
        let Some(block) = blocks.find(|block| block.spec.cidr.contains(&address)) else { return Ok(None) };
        let holder = block::held(&block.spec).find(|(_, held, _)| *held == address);
        let Some((_, _, attribute)) = holder else { return Ok(Some(block)) };
        if block::is_cool(attribute, door.now, door.rules.config.ip_cooldown_seconds) {
            return Ok(Some(block));
        }
        if self.is_reserve(attribute) {
            return Ok(None);
        }
        let reason = match (block::handle_of(attribute), &attribute.released_at) {
            (Some(handle), _) => format!("it is held by {}", holder_in_words(handle, attribute)),
            (None, Some(time)) => format!("it was released at {time} and cools down"),
            (None, None) => "it is held by nobody who can be named".to_owned(),
        };
        Err(Error::FixedAddress { address, reason })
    }

    /// A block from which addresses may be taken, whoever owns it.
    pub(crate) fn at_hand<'s>(&'s self, batch: &'s Batch<'_>, cidr: IpNet) -> Option<&'s Block> {
        self.remembered(cidr).or_else(|| batch.lent.get(&cidr))
    }
}

fn holder_in_words(handle: &str, attribute: &AllocationAttribute) -> String {
    let said = |key: &str| attribute.secondary.get(key);
    match (said("namespace"), said("pod"), said("node")) {
        (Some(namespace), Some(pod), Some(node)) => {
            format!("pod {namespace}/{pod} of node {node} ({handle})")
        }
        (_, _, Some(node)) if said("type").is_some_and(|kind| kind == RESERVE) => {
            format!("node {node}, for pods that come while the datastore is away ({handle})")
        }
        _ => handle.to_owned(),
    }
}

/// How many addresses the blocks still have for this plan.
struct Free<'a> {
    door: Door<'a>,
    left: BTreeMap<IpNet, usize>,
}

impl Free<'_> {
    /// Takes one address of the block, if there is one.
    fn take(&mut self, block: &Block) -> bool {
        let left = self.left.entry(block.spec.cidr).or_insert_with(|| self.door.free(block));
        let any = *left > 0;
        *left = left.saturating_sub(1);
        any
    }
}
