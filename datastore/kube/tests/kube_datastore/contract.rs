//! What every datastore does, and what only this one can be asked.

use manx_datastore::testing::contract;
use manx_datastore::{Error, Report};
use manx_model::Kind;

use super::*;

#[tokio::test]
async fn the_store_on_the_kubernetes_api_keeps_the_contract() {
    let (_control_plane, store) = shared().await;
    soon(contract(&store)).await;
}

#[tokio::test]
async fn an_object_that_was_deleted_is_not_made_again_by_an_update() {
    let (_control_plane, store) = shared().await;
    for object in [pool("p", "10.0.0.0/16"), Object::new_in(Kind::Lease, "default", "l", &json!({}))] {
        let stored = store.create(object).await.unwrap();
        store.delete(&stored).await.unwrap();
        let refused = store.update(stored.clone()).await.unwrap_err();
        assert!(matches!(refused, Error::Gone { .. } | Error::Conflict { .. }), "{refused}");
        assert_eq!(store.get(stored.kind, &stored.key()).await, Ok(None));
    }
}

#[tokio::test]
async fn what_has_no_namespace_to_live_in_is_refused_by_that_field() {
    let (_control_plane, store) = shared().await;
    let lease = Object::new_in(Kind::Lease, "nowhere", "l", &json!({}));
    let Err(Error::Invalid(invalid)) = store.create(lease).await else {
        panic!("there is no such namespace")
    };
    assert_eq!(invalid.field, "metadata.namespace");
    assert!(invalid.reason.contains("nowhere"), "{invalid}");
}

#[tokio::test]
async fn nodes_are_watched_without_what_they_do_not_publish() {
    let (control_plane, store) = shared().await;
    let mut node = Object::new(Kind::Node, "n1", &json!({"podCIDR": "10.9.0.0/24"}));
    node.metadata.annotations.insert("projectcalico.org/IPv4Address".into(), "10.0.0.5/24".into());
    let stored = store.create(node).await.unwrap();
    let mut watch = store.watch(Kind::Node, Only::All);
    let [Event::Init, Event::Object(seen), Event::InSync] = &in_sync(&mut watch).await[..] else { panic!() };
    assert_eq!(seen.metadata, stored.metadata);
    assert!(seen.spec.is_null() && seen.rest.is_empty(), "{seen:?}");
    // Through the status, which is what an agent has the right to.
    let mark = control_plane.audit().mark().unwrap();
    store.annotate(&stored, &[("a".to_owned(), Some("b".to_owned()))].into()).await.unwrap();
    let requests = manx_lab::eventually(SOON, "the audit", || {
        let requests = control_plane.audit().since(mark)?;
        anyhow::ensure!(requests.by_agent("manx/").count() > 0);
        Ok(requests)
    });
    let uris: Vec<_> =
        requests.unwrap().by_agent("manx/").iter().map(|request| request.uri.clone()).collect();
    assert_eq!(uris, ["/api/v1/nodes/n1/status"]);
    let Event::Object(seen) = next(&mut watch).await else { panic!() };
    assert_eq!(seen.metadata.annotations["a"], "b");
    store.delete(&seen).await.unwrap();
}

#[tokio::test]
async fn a_node_is_told_of_its_own_pods_and_no_more_of_them_than_manx_uses() {
    let (control_plane, store) = shared().await;
    let pod = |name: &str, node: &str| {
        let spec = json!({"nodeName": node, "hostNetwork": true, "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80, "hostPort": 80}]}]});
        Object::new_in(Kind::Pod, "default", name, &spec)
    };
    let mut watch = store.watch(Kind::Pod, Only::Node("n1".parse().unwrap()));
    assert_eq!(in_sync(&mut watch).await, [Event::Init, Event::InSync]);
    let other = store.create(pod("other", "n2")).await.unwrap();
    let mine = store.create(pod("mine", "n1")).await.unwrap();
    let Event::Object(seen) = next(&mut watch).await else { panic!() };
    assert_eq!((seen.key(), &seen.metadata.uid), ("default/mine".into(), &mine.metadata.uid));
    assert_eq!(seen.spec["nodeName"], "n1");
    assert!(
        seen.spec.get("tolerations").is_none() && seen.spec["containers"][0].get("image").is_none(),
        "{seen:?}"
    );
    let address = [("cni.projectcalico.org/podIP".to_owned(), Some("10.0.0.1/32".to_owned()))].into();
    let annotated = store.annotate(&seen, &address).await.unwrap();
    let Event::Object(seen) = next(&mut watch).await else { panic!() };
    assert_eq!(seen.metadata.annotations, annotated.metadata.annotations);
    for pod in [&other, &annotated] {
        // There is no kubelet that would do it after the pod's time.
        let path = format!("pod/{}", pod.name());
        control_plane.kubectl(&["delete", &path, "--force", "--grace-period=0"]).unwrap();
    }
    loop {
        match next(&mut watch).await {
            Event::Deleted(key) => break assert_eq!(key, "default/mine"),
            Event::Object(going) => assert_eq!(going.key(), "default/mine"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_reported_stands_once_where_people_look() {
    let (control_plane, store) = shared().await;
    let stored = store.create(pool("reported", "10.0.0.0/16")).await.unwrap();
    let report =
        |message: &str| Report { warning: true, reason: "InvalidSpec".into(), message: message.into() };
    for message in ["nodeSelector: no selector", "nodeSelector: no selector", "another thing"] {
        store.report(&stored, &report(message)).await.unwrap();
    }
    let described = control_plane.kubectl(&["describe", "ippool", "reported"]).unwrap();
    let lines: Vec<_> = described.lines().filter(|line| line.contains("InvalidSpec")).collect();
    assert_eq!(lines.len(), 2, "{described}");
    assert!(lines[0].contains("Warning") && described.contains("nodeSelector: no selector"), "{described}");
    let lease = Object::new_in(Kind::Lease, "kube-system", "reported", &json!({}));
    let lease = store.create(lease).await.unwrap();
    store.report(&lease, &Report { warning: false, ..report(&"long ".repeat(1000)) }).await.unwrap();
    store.delete(&lease).await.unwrap();
}

#[tokio::test]
async fn labels_that_calico_keeps_in_an_annotation_are_read_and_written_in_their_place() {
    let (control_plane, store) = shared().await;
    let manifest = r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "BGPPeer",
        "metadata": {"name": "tor", "annotations": {"projectcalico.org/metadata":
            "{\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"labels\":{\"rack\":\"r1\"},\"annotations\":{\"note\":\"x\"}}"}},
        "spec": {"peerIP": "10.0.0.1", "asNumber": 64513}}"#;
    let stored =
        store.create(Object::from_value(Kind::BGPPeer, serde_json::from_str(manifest).unwrap()).unwrap());
    let mut stored = stored.await.unwrap();
    assert_eq!(stored.metadata.labels["rack"], "r1");
    stored.metadata.labels.insert("rack".into(), "r2".into());
    let stored = store.update(stored).await.unwrap();
    // One that the annotation has, and one that is new.
    let changes =
        [("note".to_owned(), Some("y".to_owned())), ("new".to_owned(), Some("z".to_owned()))].into();
    let stored = store.annotate(&stored, &changes).await.unwrap();
    assert_eq!((&*stored.metadata.annotations["note"], &*stored.metadata.annotations["new"]), ("y", "z"));
    let raw =
        control_plane.kubectl(&["get", "bgppeer", "tor", "-o", "jsonpath={.metadata.annotations}"]).unwrap();
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let inner: serde_json::Value =
        serde_json::from_str(raw["projectcalico.org/metadata"].as_str().unwrap()).unwrap();
    assert_eq!(inner["labels"]["rack"], "r2");
    assert_eq!(inner["annotations"]["note"], "y");
    assert_eq!(inner["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(raw["new"], "z");
    store.delete(&stored).await.unwrap();
}
