//! Which pools a pod may take its address from: those that the network configuration names, else every IPv4 pool.

use ipnet::IpNet;
use manx_model::IpPool;

/// The pools for a request that names `wanted`, by name or CIDR; an empty list names none in particular.
///
/// # Errors
/// In words: a named pool is not there, disabled, or of IPv6.
pub fn choose(pools: &[IpPool], wanted: &[String]) -> Result<Vec<IpPool>, String> {
    if wanted.is_empty() {
        return Ok(pools.iter().filter(|pool| is_ipv4(pool)).cloned().collect());
    }
    wanted.iter().map(|name| named(pools, name)).collect()
}

fn named(pools: &[IpPool], name: &str) -> Result<IpPool, String> {
    let cidr = name.parse::<IpNet>().ok();
    let found = pools.iter().find(|pool| pool.name == name || Some(pool.cidr) == cidr);
    match found {
        None => Err(format!("ipam.ipv4_pools names {name:?}, and there is no such IPPool in use")),
        Some(pool) if pool.disabled => Err(format!("ipam.ipv4_pools names IPPool {name}, which is disabled")),
        Some(pool) if !is_ipv4(pool) => {
            Err(format!("ipam.ipv4_pools names IPPool {name}, which is one of IPv6"))
        }
        Some(pool) => Ok(pool.clone()),
    }
}

fn is_ipv4(pool: &IpPool) -> bool {
    pool.cidr.addr().is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::{Kind, Object};
    use serde_json::json;

    fn pools() -> Vec<IpPool> {
        [("a", "10.0.0.0/16", false), ("b", "10.1.0.0/16", true), ("six", "fd00::/64", false)]
            .map(|(name, cidr, disabled)| {
                let spec = json!({"cidr": cidr, "disabled": disabled});
                IpPool::from_object(&Object::new(Kind::IPPool, name, &spec)).unwrap()
            })
            .into()
    }

    fn names(wanted: &[&str]) -> Result<Vec<String>, String> {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        choose(&pools(), &wanted).map(|pools| pools.into_iter().map(|pool| pool.name).collect())
    }

    #[test]
    fn a_pod_takes_its_address_from_the_pools_that_its_network_names_by_name_or_cidr() {
        assert_eq!(names(&["a"]).unwrap(), ["a"]);
        assert_eq!(names(&["10.0.0.0/16"]).unwrap(), ["a"]);
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_named_pool_that_cannot_be_used_is_an_error_and_not_another_pool() {
        for (name, reason) in [("b", "disabled"), ("six", "IPv6"), ("c", "no such")] {
            assert!(names(&["a", name]).unwrap_err().contains(reason), "{name}");
        }
    }
}
