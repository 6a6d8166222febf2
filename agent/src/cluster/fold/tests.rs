use super::*;
use manx_model::annotation;
use serde_json::json;

fn pool(name: &str, cidr: &str) -> Object {
    Object::new(Kind::IPPool, name, &json!({"cidr": cidr}))
}

fn in_sync(events: impl IntoIterator<Item = (Kind, Event)>) -> Fold {
    let mut fold = Fold::new("n1".parse().unwrap());
    for (kind, _) in fold.wanted() {
        fold.take(kind, Event::Init);
        fold.take(kind, Event::InSync);
    }
    for (kind, event) in events {
        fold.take(kind, event);
    }
    fold
}

#[test]
fn a_cluster_is_in_sync_once_every_kind_has_been_listed() {
    let mut fold = Fold::new("n1".parse().unwrap());
    for (kind, _) in fold.wanted() {
        assert!(!fold.cluster().in_sync, "{kind}");
        fold.take(kind, Event::Init);
        fold.take(kind, Event::InSync);
    }
    assert!(fold.cluster().in_sync);
}

#[test]
fn of_two_pools_that_overlap_one_is_refused_by_name_and_the_rest_goes_on() {
    let fold = in_sync([
        (Kind::IPPool, Event::Object(pool("a", "10.0.0.0/16"))),
        (Kind::IPPool, Event::Object(pool("b", "10.0.128.0/17"))),
        (Kind::IPPool, Event::Object(pool("c", "10.1.0.0/16"))),
    ]);
    let cluster = fold.cluster();
    assert_eq!(cluster.pools.len(), 2);
    let [refused] = &cluster.invalid[..] else { panic!("{:?}", cluster.invalid) };
    assert!(refused.name == "b" && refused.reason.contains('a'), "{refused}");
}

#[test]
fn a_new_pool_does_not_put_an_older_one_out_of_use() {
    let made = |name: &str, cidr: &str, at: &str| {
        let mut pool = pool(name, cidr);
        pool.metadata.rest.insert("creationTimestamp".into(), at.into());
        (Kind::IPPool, Event::Object(pool))
    };
    let fold = in_sync([
        made("old", "10.0.0.0/16", "2026-01-01T00:00:00Z"),
        made("a-new", "10.0.0.0/17", "2026-01-01T00:00:01Z"),
    ]);
    let cluster = fold.cluster();
    assert_eq!((cluster.pools[0].name.as_str(), cluster.invalid[0].name.as_str()), ("old", "a-new"));
}

#[test]
fn a_mistake_in_the_cluster_information_locks_nothing_that_was_not_locked() {
    let said = |ready: serde_json::Value| {
        let spec = json!({"datastoreReady": ready});
        (Kind::ClusterInformation, Event::Object(Object::new(Kind::ClusterInformation, "default", &spec)))
    };
    let cluster = in_sync([said(json!(true)), said(json!("yes"))]).cluster();
    assert!(!cluster.information.unwrap().is_locked());
    assert_eq!(cluster.invalid[0].field, "spec.datastoreReady");
    assert!(in_sync([said(json!(false))]).cluster().information.unwrap().is_locked());
}

#[test]
fn what_a_pod_asks_for_wrongly_or_in_vain_is_said_until_it_has_ended() {
    let pod = |phase: &str| {
        let mut pod = Object::new_in(Kind::Pod, "default", "p", &json!({}));
        pod.rest.insert("status".into(), json!({"phase": phase}));
        for (key, value) in [("hwAddr", "none"), ("ipv4pools", r#"["nowhere"]"#), ("floatingIPs", "x")] {
            pod.metadata.annotations.insert(format!("cni.projectcalico.org/{key}"), value.into());
        }
        (Kind::Pod, Event::Object(pod))
    };
    let cluster = in_sync([pod("Running")]).cluster();
    assert!(
        cluster.invalid[0]
            .to_string()
            .contains("Pod default/p: metadata.annotations: cni.projectcalico.org/hwAddr")
    );
    let said: Vec<String> = cluster.without_effect.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|said| said.contains("\"nowhere\"")) && said.len() == 2, "{said:?}");
    let cluster = in_sync([pod("Running"), pod("Succeeded")]).cluster();
    assert_eq!((cluster.invalid.len(), cluster.without_effect.len()), (0, 0));
}

#[test]
fn a_nodes_wrong_annotation_is_reported_and_the_node_stays() {
    let mut node = Object::new(Kind::Node, "n1", &serde_json::Value::Null);
    node.metadata.annotations.insert(annotation::IPV4_ADDRESS.into(), "nowhere".into());
    let cluster = in_sync([(Kind::Node, Event::Object(node.clone()))]).cluster();
    assert_eq!((cluster.nodes.len(), cluster.invalid.len()), (1, 1));
    assert_eq!(cluster.own_node.as_deref(), Some(&node));
}

#[test]
fn a_node_watches_a_dozen_kinds_at_most_and_of_pods_and_affinities_its_own_only() {
    let wanted = in_sync([]).wanted();
    assert!(wanted.len() <= 12, "{wanted:?}");
    for kind in [Kind::Pod, Kind::BlockAffinity] {
        assert!(wanted.contains(&(kind, Only::Node("n1".parse().unwrap()))));
    }
}

#[test]
fn services_their_pods_and_filters_are_watched_only_while_the_objects_ask_for_them() {
    let watched = |fold: &Fold| -> Vec<Kind> {
        let sometimes = [Kind::BGPFilter, Kind::Service, Kind::EndpointSlice];
        let wanted = fold.wanted();
        sometimes.into_iter().filter(|kind| wanted.iter().any(|(wanted, _)| wanted == kind)).collect()
    };
    let mut fold = in_sync([]);
    assert_eq!(watched(&fold), []);
    let filtered = json!({"peerIP": "10.0.0.1", "asNumber": 65000, "filters": ["f"]});
    fold.take(Kind::BGPPeer, Event::Object(Object::new(Kind::BGPPeer, "tor", &filtered)));
    assert_eq!(watched(&fold), [Kind::BGPFilter]);
    let ranges = json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]});
    let ranges = Object::new(Kind::BGPConfiguration, "default", &ranges);
    fold.take(Kind::BGPConfiguration, Event::Object(ranges));
    assert_eq!(watched(&fold), [Kind::BGPFilter, Kind::Service]);
    for kind in [Kind::BGPFilter, Kind::Service] {
        assert!(!fold.cluster().in_sync, "{kind} has not been listed");
        fold.take(kind, Event::Init);
        fold.take(kind, Event::InSync);
    }
    assert!(fold.cluster().in_sync);
    let service = |policy: &str| {
        let spec = json!({"clusterIP": "10.96.0.7", "externalTrafficPolicy": policy});
        Event::Object(Object::new_in(Kind::Service, "default", "s", &spec))
    };
    fold.take(Kind::Service, service("Cluster"));
    assert_eq!(watched(&fold), [Kind::BGPFilter, Kind::Service], "its pods may be anywhere");
    fold.take(Kind::Service, service("Local"));
    assert_eq!(watched(&fold), [Kind::BGPFilter, Kind::Service, Kind::EndpointSlice]);
    assert!(!fold.cluster().in_sync, "where its pods are is not known yet");
}

#[test]
fn what_did_not_change_is_shared_and_not_copied() {
    let mut fold = in_sync([(Kind::IPPool, Event::Object(pool("a", "10.0.0.0/16")))]);
    let (before, pods) = (fold.cluster(), fold.pods());
    fold.take(Kind::Pod, Event::Object(Object::new_in(Kind::Pod, "default", "p", &json!({}))));
    let after = fold.cluster();
    assert!(Arc::ptr_eq(&before.pools, &after.pools) && Arc::ptr_eq(&before.nodes, &after.nodes));
    assert_eq!(before, after, "a pod that comes wakes nobody who waits for the cluster");
    assert_eq!((pods.len(), fold.pods().len()), (0, 1));
}
