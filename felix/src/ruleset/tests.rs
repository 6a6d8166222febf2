use std::collections::BTreeSet;

use manx_model::{IpPool, IpipMode, PortRange};

use super::*;
use crate::testing::pool;

const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 171, 5, 95), Ipv4Addr::new(172, 171, 5, 96)];

/// What is known: a pool with natOutgoing, a disabled one with, and one without; two nodes.
struct Known {
    complete: bool,
    pools: Vec<IpPool>,
    nodes: BTreeSet<Ipv4Addr>,
    parameters: RulesetParameters,
}

impl Known {
    fn new() -> Self {
        let mut pools =
            ["192.168.0.0/16", "10.1.0.0/16", "10.2.0.0/16"].map(|cidr| pool(cidr, IpipMode::Never));
        (pools[0].nat_outgoing, pools[1].nat_outgoing, pools[1].disabled) = (true, true, true);
        let parameters = RulesetParameters::default();
        Self { complete: true, pools: pools.into(), nodes: NODES.into(), parameters }
    }

    fn to_write(&self, found: Option<&FoundRuleset>) -> Option<Ruleset> {
        let facts = RulesetFacts {
            complete: self.complete,
            pools: &self.pools,
            nodes: &self.nodes,
            interface_prefix: "cali",
            parameters: &self.parameters,
        };
        ruleset_to_write(&facts, found)
    }

    fn text(&self) -> String {
        self.to_write(None).expect("nothing was found").to_string()
    }
}

fn found(ruleset: Ruleset) -> FoundRuleset {
    FoundRuleset { ruleset, altered: false }
}

#[test]
fn the_table_translates_what_leaves_the_pools_and_takes_protocol_4_from_nodes_only() {
    assert_eq!(
        Known::new().text(),
        "table ip manx {
  set nat-pools { type ipv4_addr; flags interval; elements = { 10.1.0.0-10.1.255.255, 192.168.0.0-192.168.255.255 }; }
  set nodes { type ipv4_addr; flags interval; elements = { 172.171.5.95-172.171.5.96 }; }
  set pools { type ipv4_addr; flags interval; elements = { 10.1.0.0-10.2.255.255, 192.168.0.0-192.168.255.255 }; }
  chain forward {
    type filter hook forward priority 0;
    iifname \"cali*\" ip protocol 4 counter drop
  }
  chain input {
    type filter hook input priority 0;
    iifname \"cali*\" ip protocol 4 counter drop
    ip protocol 4 ip saddr != @nodes counter drop
  }
  chain postrouting {
    type nat hook postrouting priority 110;
    ip saddr @nat-pools ip daddr != @pools masquerade fully-random
  }
}
"
    );
}

#[test]
fn a_source_a_range_of_ports_and_nodes_as_exclusions_are_as_calico_has_them() {
    let mut known = Known::new();
    known.parameters = RulesetParameters {
        nat_address: Some(Ipv4Addr::new(203, 0, 113, 7)),
        nat_ports: PortRange::new(32768, 40000),
        exclude_nodes: true,
        external_nodes: vec!["10.7.0.0/24".parse().unwrap(), "172.171.5.0/27".parse().unwrap()],
        ipip_from_pods: true,
    };
    let text = known.text();
    let outgoing = "ip saddr @nat-pools ip daddr != @pools ip daddr != @nodes snat to 203.0.113.7";
    for line in [
        format!("    ip protocol 6 {outgoing}:32768-40000 fully-random\n"),
        format!("    ip protocol 17 {outgoing}:32768-40000 fully-random\n"),
        format!("    {outgoing} fully-random\n"),
        "10.7.0.0-10.7.0.255, 172.171.5.0-172.171.5.31, 172.171.5.95-172.171.5.96".into(),
        "iifname \"cali*\" ip protocol 4 counter drop".into(),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(!text.contains("forward"), "what is allowed passes: {text}");
}

#[test]
fn what_is_right_is_not_written_and_what_somebody_altered_is() {
    let known = Known::new();
    let right = known.to_write(None).unwrap();
    assert_eq!(known.to_write(Some(&found(right.clone()))), None);
    let altered = FoundRuleset { altered: true, ruleset: right.clone() };
    assert_eq!(known.to_write(Some(&altered)), Some(right.clone()));
    let mut bent = right.clone();
    bent.chains.remove("input");
    assert_eq!(known.to_write(Some(&found(bent))), Some(right));
}

#[test]
fn while_nodes_and_pools_are_still_coming_sets_grow_and_nobody_is_shut_out() {
    let mut known = Known::new();
    let all = found(known.to_write(None).unwrap());
    known.complete = false;
    known.nodes = [Ipv4Addr::new(172, 171, 6, 95)].into();
    known.pools.truncate(1);
    assert_eq!(known.to_write(None), None, "without a table nobody is dropped yet");
    let grown = known.to_write(Some(&all)).unwrap();
    for node in NODES.iter().chain(&known.nodes) {
        assert!(grown.sets["nodes"].contains(*node), "{grown}");
    }
    assert_eq!((&grown.sets["pools"], &grown.chains), (&all.ruleset.sets["pools"], &all.ruleset.chains));
    assert_eq!(known.to_write(Some(&found(grown.clone()))), None, "nothing new");
    known.complete = true;
    let shrunk = known.to_write(Some(&found(grown))).unwrap();
    assert!(!shrunk.sets["nodes"].contains(NODES[0]), "{shrunk}");
}
