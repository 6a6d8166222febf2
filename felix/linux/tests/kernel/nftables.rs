//! Our table of nftables, with Debian's `nft` as a second reader and writer.

use std::collections::BTreeSet;
use std::time::Instant;

use manx_felix::{
    FoundRuleset, Kernel, Match, Membership, Ruleset, RulesetFacts, RulesetParameters, ruleset_to_write,
};
use manx_model::{IpPool, Kind, Object, PortRange};
use serde_json::{Value, json};

use crate::common::{Netns, Node};

/// The table of a cluster with two pools, of which one is translated, and as many nodes.
fn table(nodes: u32, parameters: &RulesetParameters) -> Ruleset {
    let pool = |cidr: &str, nat: bool| {
        let spec = json!({"cidr": cidr, "natOutgoing": nat});
        IpPool::from_object(&Object::new(Kind::IPPool, "p", &spec)).expect("a pool")
    };
    let pools = [pool("192.168.0.0/16", true), pool("10.244.0.0/16", false)];
    let nodes: BTreeSet<_> = (0..nodes).map(|n| (0x0a00_0001 + 3 * n).into()).collect();
    let facts =
        RulesetFacts { complete: true, pools: &pools, nodes: &nodes, interface_prefix: "cali", parameters };
    ruleset_to_write(&facts, None).expect("nothing was found")
}

fn plain() -> Ruleset {
    table(3, &RulesetParameters::default())
}

/// Everything that the parameters can say.
fn variants() -> Vec<Ruleset> {
    let ports = PortRange::new(32768, 40000);
    let all = RulesetParameters {
        nat_address: Some([203, 0, 113, 7].into()),
        nat_ports: ports,
        exclude_nodes: true,
        external_nodes: vec!["10.7.0.0/24".parse().expect("a CIDR"), "224.0.0.0/3".parse().expect("a CIDR")],
        ipip_from_pods: true,
    };
    let ports_only = RulesetParameters { nat_ports: ports, ..RulesetParameters::default() };
    vec![plain(), table(0, &RulesetParameters::default()), table(2, &all), table(2, &ports_only)]
}

/// What `nft` shows of everything in the namespace, without the numbers of objects.
fn shown(netns: &Netns) -> Vec<Value> {
    let text = netns.run("nft -j list ruleset");
    let mut all: Value = serde_json::from_str(&text).expect("JSON");
    let list = all["nftables"].as_array_mut().expect("a list");
    for object in list.iter_mut().flat_map(|entry| entry.as_object_mut().expect("an object").values_mut()) {
        object.as_object_mut().expect("an object").remove("handle");
    }
    let mut lines = list.split_off(1);
    lines.sort_by_key(Value::to_string);
    lines
}

fn load(netns: &Netns, text: &str) {
    let file = std::env::temp_dir().join(&netns.name);
    std::fs::write(&file, text).expect("a file");
    netns.run(&format!("nft -f {}", file.display()));
    std::fs::remove_file(&file).expect("it is there");
}

fn write(node: &Node, ruleset: Option<Ruleset>) {
    node.wait(node.kernel.write_ruleset(ruleset)).expect("the kernel takes it");
}

fn read(node: &Node) -> Option<FoundRuleset> {
    node.wait(node.kernel.ruleset()).expect("the kernel can be read")
}

fn unaltered(ruleset: Ruleset) -> Option<FoundRuleset> {
    Some(FoundRuleset { ruleset, altered: false })
}

#[test]
fn the_table_is_what_nft_itself_makes_of_its_text_and_reads_as_it_was_written() {
    let (node, other) = (Node::new(), Node::new());
    assert_eq!(read(&node), None);
    for ruleset in variants() {
        write(&node, Some(ruleset.clone()));
        assert_eq!(read(&node), unaltered(ruleset.clone()), "{ruleset}");
        load(&other.netns, &format!("flush ruleset\n{ruleset}"));
        assert_eq!(shown(&node.netns), shown(&other.netns), "{ruleset}");
        assert_eq!(read(&other), unaltered(ruleset.clone()), "written by nft: {ruleset}");
    }
    write(&node, None);
    assert_eq!((read(&node), shown(&node.netns)), (None, Vec::new()));
    write(&node, None);
}

#[test]
fn the_tables_of_others_are_not_touched() {
    let node = Node::new();
    let foreign =
        "table ip kube-proxy { chain nat { type nat hook postrouting priority srcnat; masquerade; }; }
        table ip6 manx { chain input { type filter hook input priority 0; counter; }; }
        table inet other { set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }; }";
    load(&node.netns, foreign);
    node.netns.run("iptables-nft -t nat -A POSTROUTING -j MASQUERADE");
    let before = shown(&node.netns);
    write(&node, Some(plain()));
    assert!(shown(&node.netns).len() > before.len());
    write(&node, Some(table(2, &RulesetParameters::default())));
    write(&node, None);
    assert_eq!(shown(&node.netns), before);
}

#[test]
fn whatever_somebody_does_to_our_table_is_told_and_seen() {
    let node = Node::new();
    for change in [
        "delete table ip manx",
        "flush ruleset",
        "flush chain ip manx input",
        "insert rule ip manx input accept",
        "add rule ip manx postrouting ip saddr 10.0.0.1 masquerade",
        "add rule ip manx input ip saddr @nodes accept",
        "add chain ip manx another",
        "add set ip manx another { type ipv4_addr; }",
        "add map ip manx another { type ipv4_addr : ipv4_addr; }",
        "add counter ip manx another",
        "add element ip manx nodes { 10.9.9.9 }",
        "delete element ip manx nodes { 10.0.0.1 }",
        "add chain ip manx input { policy drop; }",
        "add table ip manx { flags dormant; }",
    ] {
        write(&node, Some(plain()));
        assert_eq!(read(&node), unaltered(plain()));
        node.settle();
        node.netns.run(&format!("nft {change}"));
        node.expect_change();
        assert_ne!(read(&node), unaltered(plain()), "{change}");
    }
}

#[test]
fn what_we_do_to_our_table_and_others_to_theirs_is_not_told() {
    let node = Node::new();
    write(&node, Some(plain()));
    node.settle();
    write(&node, Some(table(4, &RulesetParameters::default())));
    node.netns.run("nft add table ip other");
    node.netns.run("nft add chain ip other c { type filter hook input priority 0; }");
    node.netns.run("nft add table inet manx");
    assert!(!node.is_told_of_a_change());
    assert_eq!(read(&node), unaltered(table(4, &RulesetParameters::default())));
}

#[test]
fn a_table_that_the_kernel_refuses_is_named_and_leaves_the_one_that_was_there() {
    let node = Node::new();
    write(&node, Some(plain()));
    let mut wrong = table(5, &RulesetParameters::default());
    let absent = Match::Source(Membership { set: "absent".into(), within: true });
    wrong.chains.get_mut("input").expect("it has one").rules[1].matches.push(absent);
    let error = node.wait(node.kernel.write_ruleset(Some(wrong))).expect_err("there is no such set");
    assert_eq!(error.action, "writing the nftables table manx");
    assert_eq!(read(&node), unaltered(plain()));
}

#[test]
fn five_thousand_nodes_are_written_in_one_step_and_read_back() {
    let node = Node::new();
    let all = table(5000, &RulesetParameters::default());
    let start = Instant::now();
    write(&node, Some(all.clone()));
    let written = start.elapsed();
    let found = read(&node);
    let read_back = start.elapsed() - written;
    let again = Instant::now();
    assert_eq!(found, read(&node), "as long as nothing changes");
    println!(
        "5000 nodes: written in {written:?}, read in {read_back:?}, asked again in {:?}",
        again.elapsed()
    );
    assert_eq!(found, unaltered(all));
}
