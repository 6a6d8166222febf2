use std::collections::BTreeSet;

use ipnet::IpNet;

use super::*;

fn set(cidrs: &[&str]) -> BTreeSet<IpNet> {
    cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect()
}

#[test]
fn pools_are_what_a_reflector_passes_on_and_hidden_ones_are_told_to_nobody() {
    let mut world = three();
    world.pool("p", json!({"cidr": "10.1.0.0/16"}));
    world.pool("disabled", json!({"cidr": "10.2.0.0/16", "disabled": true}));
    world.pool("hidden", json!({"cidr": "10.3.0.0/16", "disableBGPExport": true}));
    world.configure("default", json!({"serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}]}));
    let export = world.at("a").export;
    assert_eq!(export.hidden, set(&["10.3.0.0/16"]));
    assert_eq!(export.transit, set(&["10.1.0.0/16", "10.2.0.0/16", "203.0.113.0/24"]));
    assert!(export.blocks.is_empty());
}

#[test]
fn prefixes_get_the_communities_that_are_named_or_written_out() {
    let mut world = three();
    world.configure(
        "default",
        json!({
            "communities": [{"name": "blue", "value": "65000:1:2"}],
            "prefixAdvertisements": [{"cidr": "10.1.0.0/16", "communities": ["blue", "65000:3", "green"]}],
        }),
    );
    let peering = world.at("a");
    let of = |prefix: &str| -> Vec<String> {
        peering.export.communities(&prefix.parse().unwrap()).iter().map(ToString::to_string).collect()
    };
    assert_eq!(of("10.1.2.0/26"), ["65000:1:2", "65000:3"]);
    assert!(
        peering
            .says("BGPConfiguration default: spec.prefixAdvertisements[0].communities: \"green\" is neither")
    );
}

#[test]
fn what_a_node_has_for_itself_counts_instead_and_names_are_the_clusters() {
    let mut world = three();
    world.configure(
        "default",
        json!({
            "communities": [{"name": "blue", "value": "65000:1"}],
            "prefixAdvertisements": [{"cidr": "10.1.0.0/16", "communities": ["blue"]}],
        }),
    );
    world.configure(
        "node.a",
        json!({"prefixAdvertisements": [{"cidr": "10.2.0.0/16", "communities": ["blue", "x"]}]}),
    );
    let peering = world.at("a");
    assert_eq!(peering.export.communities(&"10.1.0.0/26".parse().unwrap()), []);
    assert_eq!(peering.export.communities(&"10.2.0.0/26".parse().unwrap()).len(), 1);
    assert!(peering.says("BGPConfiguration node.a: spec.prefixAdvertisements[0].communities: \"x\""));
    assert_eq!(world.at("b").export.communities(&"10.1.0.0/26".parse().unwrap()).len(), 1);
}
