//! The default pool: made when there is none, and its mode kept in step with the environment.
//!
//! Calico reads `CALICO_IPV4POOL_IPIP` once, when it makes the pool, and ignores every later change silently. Here the
//! value last applied is recorded in an annotation on the pool, and a value that differs *from the record* is applied.
//! So a mode edited by hand stays until the environment changes. Agents of different releases run at once during an
//! upgrade; `MANX_CONFIG_REVISION` orders them: a lower revision never overwrites a higher one.

use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Datastore, Error};
use manx_model::{DEFAULT_IPV4_POOL, DEFAULT_IPV6_POOL, IpPoolSpec, IpipMode, Kind, Object};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::config::{DefaultPool, DefaultPool6};
use crate::echo;
use crate::problems::Problems;

/// Where the record lives. Calico keeps annotations of storage objects whose key contains `projectcalico.org/`.
pub const RECORD: &str = "manx.projectcalico.org/applied-environment";

/// The environment that was last applied to the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(rename = "CALICO_IPV4POOL_IPIP")]
    ipip: IpipMode,
    #[serde(rename = "MANX_CONFIG_REVISION")]
    revision: u64,
}

/// What is to be done about the default pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing, and nothing to say.
    Settled,
    /// Nothing, and the operator should know why.
    Report(String),
    /// Make it.
    Create(Object),
    /// Write it; the text says what changes.
    Update(Object, String),
}

impl Decision {
    fn writes(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Update(..))
    }
}

/// Decides, from a cluster in sync.
pub fn decide(cluster: &Cluster, wanted: &DefaultPool) -> Decision {
    if let Some(pool) = cluster.pool_objects.get(DEFAULT_IPV4_POOL) {
        return reconcile(pool, wanted);
    }
    match wanted.cidr {
        Some(cidr) if !has_ipv4_pool(cluster) => Decision::Create(new_pool(cidr, wanted)),
        _ => Decision::Settled,
    }
}

/// The same for the pool of IPv6, which is made as the environment says, and then left to its people.
pub fn decide6(cluster: &Cluster, wanted: &DefaultPool6) -> Decision {
    match has_pool(cluster, true) {
        true => Decision::Settled,
        false => Decision::Create(new_pool6(wanted)),
    }
}

fn has_ipv4_pool(cluster: &Cluster) -> bool {
    has_pool(cluster, false)
}

/// A damaged or refused pool is a pool: none is made beside it.
fn has_pool(cluster: &Cluster, ipv6: bool) -> bool {
    let is_ipv6 = |object: &Object| object.spec["cidr"].as_str().is_some_and(|cidr| cidr.contains(':'));
    cluster.pool_objects.values().any(|object| is_ipv6(object) == ipv6)
        || cluster.invalid.iter().any(|invalid| invalid.kind == Kind::IPPool)
}

fn new_pool6(wanted: &DefaultPool6) -> Object {
    let spec = IpPoolSpec {
        cidr: wanted.cidr.to_string(),
        block_size: Some(wanted.block_size),
        ipip_mode: Some("Never".into()),
        nat_outgoing: Some(wanted.nat_outgoing),
        node_selector: Some(wanted.node_selector.to_string()),
        vxlan_mode: Some("Never".into()),
        disable_bgp_export: wanted.disable_bgp_export.then_some(true),
        ..IpPoolSpec::default()
    };
    Object::new(Kind::IPPool, DEFAULT_IPV6_POOL, &spec)
}

fn new_pool(cidr: ipnet::Ipv4Net, wanted: &DefaultPool) -> Object {
    let spec = IpPoolSpec {
        cidr: cidr.to_string(),
        block_size: Some(wanted.block_size),
        ipip_mode: Some(wanted.ipip.to_string()),
        nat_outgoing: Some(wanted.nat_outgoing),
        node_selector: Some(wanted.node_selector.to_string()),
        vxlan_mode: Some("Never".into()),
        disable_bgp_export: wanted.disable_bgp_export.then_some(true),
        ..IpPoolSpec::default()
    };
    let mut pool = Object::new(Kind::IPPool, DEFAULT_IPV4_POOL, &spec);
    write_record(&mut pool, wanted);
    pool
}

fn reconcile(pool: &Object, wanted: &DefaultPool) -> Decision {
    let mode = pool.spec["ipipMode"].as_str().unwrap_or("Never");
    let record = match pool.metadata.annotations.get(RECORD).map(|text| serde_json::from_str::<Record>(text))
    {
        Some(Ok(record)) => record,
        Some(Err(error)) => {
            return Decision::Report(format!("IPPool {}: annotation {RECORD}: {error}", pool.name()));
        }
        None if mode == wanted.ipip.to_string() => return Decision::Settled,
        None => {
            return Decision::Report(format!(
                "CALICO_IPV4POOL_IPIP={} has no effect: IPPool {} was not made by Manx; edit its spec.ipipMode ({mode})",
                wanted.ipip,
                pool.name()
            ));
        }
    };
    match (wanted.revision.cmp(&record.revision), wanted.ipip == record.ipip) {
        (std::cmp::Ordering::Equal, true) => Decision::Settled,
        (std::cmp::Ordering::Less, true) => Decision::Settled,
        (std::cmp::Ordering::Less, false) => Decision::Report(format!(
            "CALICO_IPV4POOL_IPIP={} of MANX_CONFIG_REVISION={} is older than what IPPool {} has: {} of revision {}",
            wanted.ipip,
            wanted.revision,
            pool.name(),
            record.ipip,
            record.revision
        )),
        (std::cmp::Ordering::Equal, false) => Decision::Report(format!(
            "CALICO_IPV4POOL_IPIP={} disagrees with {}, which IPPool {} was given at the same MANX_CONFIG_REVISION={}: \
             nothing was changed; raise the revision to apply it, or edit the pool's spec.ipipMode",
            wanted.ipip,
            record.ipip,
            pool.name(),
            record.revision
        )),
        (std::cmp::Ordering::Greater, same) => update(pool, wanted, mode, same),
    }
}

fn update(pool: &Object, wanted: &DefaultPool, mode: &str, same: bool) -> Decision {
    let mut updated = pool.clone();
    write_record(&mut updated, wanted);
    if same {
        return Decision::Update(
            updated,
            format!("IPPool {}: recorded revision {}", pool.name(), wanted.revision),
        );
    }
    updated.spec["ipipMode"] = Value::from(wanted.ipip.to_string());
    let what =
        format!("IPPool {}: ipipMode {mode} -> {} (CALICO_IPV4POOL_IPIP changed)", pool.name(), wanted.ipip);
    Decision::Update(updated, what)
}

fn write_record(pool: &mut Object, wanted: &DefaultPool) {
    let record = Record { ipip: wanted.ipip, revision: wanted.revision };
    let text = serde_json::to_string(&record).expect("a record serializes");
    pool.metadata.annotations.insert(RECORD.into(), text);
}

/// After a failed write the next try waits this long.
const RETRY: Duration = Duration::from_secs(1);

/// Does what [`decide`] and [`decide6`] say whenever the cluster changes, for ever.
pub async fn keep(
    store: Arc<dyn Datastore>,
    wanted: DefaultPool,
    wanted6: Option<DefaultPool6>,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    problems: Problems,
) {
    let decide_both = |seen: &Arc<Cluster>| match seen.in_sync {
        true => [Some(decide(seen, &wanted)), wanted6.as_ref().map(|wanted| decide6(seen, wanted))],
        false => [None, None],
    };
    loop {
        let seen = Arc::clone(&cluster.borrow_and_update());
        let (mut told, mut written, mut retry) = (Vec::new(), false, false);
        for decision in decide_both(&seen).into_iter().flatten() {
            let writes = decision.writes();
            match carry_out(&*store, decision).await {
                Ok(report) => {
                    told.extend(report);
                    written |= writes;
                }
                // Another agent was faster: its word comes by the watch, as ours does.
                Err(Error::Exists { .. }) => written = true,
                Err(Error::Conflict { .. }) => retry = true,
                Err(error) => {
                    told.push(format!("the default pool is not as it should be: {error}"));
                    retry = true;
                }
            }
        }
        problems.set("default pool", told);
        if written && !retry {
            let is_done =
                |cluster: &Arc<Cluster>| !decide_both(cluster).iter().flatten().any(Decision::writes);
            match echo::heard(&mut cluster, is_done).await {
                true => continue,
                false => return,
            }
        }
        tokio::select! {
            biased;
            changed = cluster.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}

async fn carry_out(store: &dyn Datastore, decision: Decision) -> Result<Option<String>, Error> {
    match decision {
        Decision::Settled => Ok(None),
        Decision::Report(text) => Ok(Some(text)),
        Decision::Create(pool) => {
            let what = format!("made IPPool {}: {}", pool.name(), pool.spec);
            store.create(pool).await?;
            tracing::info!("{what}");
            Ok(None)
        }
        Decision::Update(pool, what) => {
            store.update(pool).await?;
            tracing::info!("{what}");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::Selector;

    fn wanted(ipip: IpipMode, revision: u64) -> DefaultPool {
        DefaultPool {
            cidr: "192.168.0.0/16".parse().ok(),
            block_size: 26,
            ipip,
            nat_outgoing: true,
            node_selector: Selector::default(),
            disable_bgp_export: false,
            revision,
        }
    }

    fn cluster_with(pool: Object) -> Cluster {
        let pool_objects = Arc::new([(pool.name().to_owned(), pool)].into());
        Cluster { pool_objects, in_sync: true, ..Cluster::default() }
    }

    fn made_with(ipip: IpipMode, revision: u64) -> Object {
        match decide(&Cluster::default(), &wanted(ipip, revision)) {
            Decision::Create(pool) => pool,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_pool_the_default_one_is_made_as_calico_makes_it() {
        let pool = made_with(IpipMode::CrossSubnet, 0);
        assert_eq!(pool.name(), "default-ipv4-ippool");
        let expected = serde_json::json!({"cidr": "192.168.0.0/16", "blockSize": 26, "ipipMode": "CrossSubnet",
            "vxlanMode": "Never", "natOutgoing": true, "nodeSelector": "all()"});
        assert_eq!(pool.spec, expected);
    }

    #[test]
    fn the_environment_says_who_may_use_the_default_pools_and_whether_peers_hear_of_them() {
        let node_selector: Selector = "has(rack)".parse().unwrap();
        let four = DefaultPool {
            node_selector: node_selector.clone(),
            disable_bgp_export: true,
            ..wanted(IpipMode::Never, 0)
        };
        let six = DefaultPool6 {
            cidr: "fd00:10:244::/64".parse().unwrap(),
            block_size: 122,
            nat_outgoing: false,
            node_selector,
            disable_bgp_export: true,
        };
        let (four, six) = match (decide(&Cluster::default(), &four), decide6(&Cluster::default(), &six)) {
            (Decision::Create(four), Decision::Create(six)) => (four, six),
            other => panic!("{other:?}"),
        };
        assert_eq!((six.name(), &six.spec["cidr"]), ("default-ipv6-ippool", &"fd00:10:244::/64".into()));
        for pool in [&four, &six] {
            assert_eq!(
                (&pool.spec["nodeSelector"], &pool.spec["disableBGPExport"]),
                (&"has(rack)".into(), &true.into())
            );
        }
        let pool = |object: &Object| Cluster {
            pool_objects: Arc::new([(object.name().to_owned(), object.clone())].into()),
            ..Cluster::default()
        };
        let wanted6 = DefaultPool6 {
            cidr: "fd00::/64".parse().unwrap(),
            block_size: 122,
            nat_outgoing: false,
            node_selector: Selector::default(),
            disable_bgp_export: false,
        };
        assert_eq!(decide6(&pool(&six), &wanted6), Decision::Settled);
        assert!(
            matches!(decide6(&pool(&four), &wanted6), Decision::Create(_)),
            "a pool of IPv4 is none of IPv6"
        );
    }

    #[test]
    fn beside_another_pool_no_default_one_is_made() {
        let other = Object::new(Kind::IPPool, "mine", &serde_json::json!({"cidr": "10.0.0.0/16"}));
        assert_eq!(decide(&cluster_with(other), &wanted(IpipMode::Never, 0)), Decision::Settled);
        let damaged = Object::new(Kind::IPPool, "mine", &Value::Null).invalid("line 1", "no YAML");
        let cluster = Cluster { invalid: vec![damaged], ..Cluster::default() };
        assert_eq!(decide(&cluster, &wanted(IpipMode::Never, 0)), Decision::Settled);
    }

    #[test]
    fn a_changed_environment_of_a_higher_revision_is_applied_and_says_so() {
        let cluster = cluster_with(made_with(IpipMode::Always, 1));
        match decide(&cluster, &wanted(IpipMode::Never, 2)) {
            Decision::Update(pool, what) => {
                assert_eq!(pool.spec["ipipMode"], "Never");
                assert!(what.contains("Always -> Never"), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mode_edited_by_hand_stays_until_the_environment_changes() {
        let mut pool = made_with(IpipMode::Always, 1);
        pool.spec["ipipMode"] = "Never".into();
        assert_eq!(decide(&cluster_with(pool.clone()), &wanted(IpipMode::Always, 1)), Decision::Settled);
        match decide(&cluster_with(pool), &wanted(IpipMode::Always, 2)) {
            Decision::Update(pool, _) => assert_eq!(pool.spec["ipipMode"], "Never"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn equal_revisions_that_disagree_and_lower_ones_write_nothing_and_are_named() {
        let cluster = cluster_with(made_with(IpipMode::Always, 5));
        for revision in [5, 4] {
            match decide(&cluster, &wanted(IpipMode::Never, revision)) {
                Decision::Report(text) => assert!(text.contains("MANX_CONFIG_REVISION"), "{text}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(decide(&cluster, &wanted(IpipMode::Always, revision)), Decision::Settled);
        }
    }

    #[test]
    fn a_pool_that_somebody_else_made_is_left_alone_and_that_is_said() {
        let mut pool = made_with(IpipMode::Always, 0);
        pool.metadata.annotations.clear();
        match decide(&cluster_with(pool), &wanted(IpipMode::Never, 9)) {
            Decision::Report(text) => assert!(text.contains("not made by Manx"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
