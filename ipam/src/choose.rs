//! Which block a node tries next, and which pools can be used together.

use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{Invalid, IpPool, Kind, NodeName};

/// The blocks of `pool` in the order in which `node` tries them: each once, from a start that depends on the node alone,
/// so that nodes which grow at the same time do not reach for the same block.
pub(crate) fn candidates(pool: &IpPool, node: &NodeName) -> impl Iterator<Item = IpNet> + use<> {
    let count = pool.block_count();
    let start = u128::from(hash(node.as_str())) % count;
    let (cidr, size) = (pool.cidr, pool.block_size);
    (0..count).map(move |step| nth_block(cidr, size, (start + step) % count))
}

/// How far the walk of [`candidates`] is when it comes to `block`, which is one of `pool` of whatever size.
pub(crate) fn distance(pool: &IpPool, node: &NodeName, block: IpNet) -> u128 {
    let count = pool.block_count();
    let start = u128::from(hash(node.as_str())) % count;
    let index = (bits(block) - bits(pool.cidr)) >> (pool.cidr.max_prefix_len() - pool.block_size);
    (index + count - start) % count
}

/// The block of `pool` in which `address` is, which the pool contains.
pub(crate) fn block_of(pool: &IpPool, address: IpAddr) -> IpNet {
    IpNet::new_assert(address, pool.block_size).trunc()
}

fn bits(network: IpNet) -> u128 {
    match network {
        IpNet::V4(net) => net.network().to_bits().into(),
        IpNet::V6(net) => net.network().to_bits(),
    }
}

fn nth_block(pool: IpNet, size: u8, index: u128) -> IpNet {
    let distance = index << (pool.max_prefix_len() - size);
    match pool {
        IpNet::V4(net) => {
            let network =
                std::net::Ipv4Addr::from_bits(net.network().to_bits().wrapping_add(distance as u32));
            IpNet::new_assert(network.into(), size)
        }
        IpNet::V6(net) => {
            let network = std::net::Ipv6Addr::from_bits(net.network().to_bits().wrapping_add(distance));
            IpNet::new_assert(network.into(), size)
        }
    }
}

/// FNV-1a, then mixed: names that differ in one digit must start far apart, and FNV's last step alone does not do that.
fn hash(name: &str) -> u64 {
    let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// The pools that can be used together, in the order of their names, and those that cannot: of pools with addresses in
/// common the first is used, and each other one is refused with that one's name. So the older ones come first: a new
/// pool must not put one out of use that pods live on.
pub fn check_overlaps(pools: Vec<IpPool>) -> (Vec<IpPool>, Vec<Invalid>) {
    let (mut usable, mut refused) = (Vec::<IpPool>::new(), Vec::new());
    for pool in pools {
        let overlaps = |other: &&IpPool| other.cidr.contains(&pool.cidr) || pool.cidr.contains(&other.cidr);
        match usable.iter().find(overlaps) {
            None => usable.push(pool),
            Some(other) => refused.push(Invalid {
                kind: Kind::IPPool,
                name: pool.name,
                field: "spec.cidr".into(),
                reason: format!(
                    "{} overlaps {} of IPPool {}, which is used; delete one of the two",
                    pool.cidr, other.cidr, other.name
                ),
            }),
        }
    }
    usable.sort_by(|a, b| a.name.cmp(&b.name));
    (usable, refused)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use manx_model::{IpPoolSpec, Object};

    use super::*;

    fn pool(name: &str, cidr: &str, block_size: u8) -> IpPool {
        let spec = IpPoolSpec { cidr: "10.0.0.0/16".into(), ..IpPoolSpec::default() };
        let usual = IpPool::from_object(&Object::new(Kind::IPPool, name, &spec)).unwrap();
        IpPool { cidr: cidr.parse().unwrap(), block_size, ..usual }
    }

    fn order(pool: &IpPool, node: &str) -> Vec<IpNet> {
        candidates(pool, &node.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_tries_every_block_once_and_always_in_the_same_order() {
        for (cidr, size, count) in
            [("10.0.0.0/16", 26, 1024), ("10.0.0.0/26", 26, 1), ("fd00::/112", 122, 1024)]
        {
            let pool = pool("p", cidr, size);
            let blocks = order(&pool, "node-1");
            assert_eq!(blocks.len(), count);
            assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), count);
            assert!(blocks.iter().all(|block| pool.cidr.contains(block) && block.prefix_len() == size));
            assert_eq!(order(&pool, "node-1"), blocks);
            let walked = blocks.iter().map(|block| distance(&pool, &"node-1".parse().unwrap(), *block));
            assert_eq!(walked.collect::<Vec<_>>(), (0..count as u128).collect::<Vec<_>>());
            assert_eq!(block_of(&pool, blocks[0].broadcast()), blocks[0]);
        }
    }

    #[test]
    fn different_nodes_start_at_different_blocks() {
        let pool = pool("p", "10.0.0.0/8", 26);
        let starts: BTreeSet<IpNet> = (0..1000)
            .map(|n| candidates(&pool, &format!("node-{n}").parse().unwrap()).next().unwrap())
            .collect();
        assert!(starts.len() > 990, "{} of 1000 nodes start apart", starts.len());
    }

    #[test]
    fn a_pool_of_all_addresses_can_be_walked() {
        let mut blocks = candidates(&pool("p", "::/0", 128), &"n".parse().unwrap());
        assert!(blocks.next().is_some());
    }

    #[test]
    fn of_two_overlapping_pools_the_first_is_used_and_the_other_names_it() {
        let pools = vec![
            pool("b", "10.0.0.0/16", 26),
            pool("a", "10.1.0.0/16", 26),
            pool("c", "10.0.0.0/24", 26),
            pool("d", "10.0.0.0/8", 26),
        ];
        let (usable, refused) = check_overlaps(pools);
        assert_eq!(usable.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
        assert_eq!(
            refused,
            [
                "IPPool c: spec.cidr: 10.0.0.0/24 overlaps 10.0.0.0/16 of IPPool b, which is used; delete one of the two",
                "IPPool d: spec.cidr: 10.0.0.0/8 overlaps 10.0.0.0/16 of IPPool b, which is used; delete one of the two",
            ]
        );
    }
}
