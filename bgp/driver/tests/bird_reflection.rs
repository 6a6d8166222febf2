//! Route reflection (RFC 4456) with real BIRDs: we reflect to them, and one of them to us.

mod rig;

use std::net::IpAddr;

use manx_bgp::policy::ExportPolicy;

use rig::{Bird, Neighbour, Node, OUR_ASN, OURS, place};

#[tokio::test]
async fn we_reflect_from_and_to_clients_and_keep_what_a_route_says() {
    let us = place();
    let bird = |prefix: &str| {
        let route = format!("{prefix} blackhole {{ bgp_local_pref = 70; bgp_med = 3; }}");
        Bird::start(place(), OUR_ASN, &[Neighbour::new(us)], &[&route])
    };
    let (client, near, far) = (bird("10.1.0.0/24"), bird("10.2.0.0/24"), bird("10.3.0.0/24"));
    let mut node = Node::start(us, &[&client, &near, &far], |config| {
        config.cluster_id = Some([244, 0, 0, 1].into());
        config.export.transit.insert("10.0.0.0/8".parse().unwrap());
        config.peers.values_mut().for_each(|peer| peer.export = ExportPolicy::Transit);
        config.peers.get_mut(&client.address.ip()).unwrap().client = true;
    });
    node.until("the client's at all", |_| near.has("10.1.0.0/24") && far.has("10.1.0.0/24")).await;
    node.until("all at the client", |_| client.has("10.2.0.0/24") && client.has("10.3.0.0/24")).await;
    let seen = near.route("10.1.0.0/24");
    for words in [
        format!("BGP.originator_id: {}", client.address.ip()),
        "BGP.cluster_list: 244.0.0.1".into(),
        format!("BGP.next_hop: {}", client.address.ip()),
        "BGP.local_pref: 70".into(),
        "BGP.med: 3".into(),
    ] {
        assert!(seen.contains(&words), "{words} in {seen}");
    }
    node.until("ours at all", |_| [&client, &near, &far].iter().all(|bird| bird.has(OURS))).await;
    assert!(!near.route(OURS).contains("cluster_list"), "ours is not reflected: {}", near.route(OURS));
    assert!(!near.has("10.3.0.0/24") && !far.has("10.2.0.0/24"), "not between those who are no clients");
    node.configure(|config| config.peers.get_mut(&near.address.ip()).unwrap().client = true);
    node.until("the new client is told", |_| near.has("10.3.0.0/24") && far.has("10.2.0.0/24")).await;
}

#[tokio::test]
async fn a_bird_reflects_between_us_and_nobody_takes_back_its_own() {
    let (at, places) = (place(), [place(), place()]);
    let neighbours = places.map(|us| Neighbour::new(us).with("rr client; rr cluster id 244.0.0.2;"));
    let bird = Bird::start(at, OUR_ASN, &neighbours, &[]);
    let mut nodes = places.map(|us| Node::start(us, &[&bird], |_| ()));
    for (number, node) in nodes.iter_mut().enumerate() {
        node.bgp.originate([format!("10.{number}.0.0/16").parse().unwrap()].into());
    }
    let [one, two] = &mut nodes;
    tokio::join!(
        one.until("the other's", |node| node.has("10.1.0.0/16")),
        two.until("the other's", |node| node.has("10.0.0.0/16")),
    );
    for (node, prefix, other) in [(&*one, "10.1.0.0/16", places[1]), (&*two, "10.0.0.0/16", places[0])] {
        let path = node.path(prefix);
        assert_eq!((path.peer, path.next_hop), (at.ip(), other.ip()));
        assert_eq!(path.attributes.originator_id.map(IpAddr::from), Some(other.ip()));
        assert_eq!(path.attributes.cluster_list, [std::net::Ipv4Addr::new(244, 0, 0, 2)]);
        assert_eq!(node.routes.len(), 1);
    }
}
