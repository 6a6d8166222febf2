//! Our CustomResourceDefinitions beside none, and beside Calico's.

use manx_datastore::Error;
use manx_datastore_kube::crd;
use manx_kubernetes::Options as Setup;

use super::*;

/// As Calico's of a release before ours: it names its fields, and drops all others.
const STRICT: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ippools.crd.projectcalico.org, labels: {from: calico}}
spec:
  group: crd.projectcalico.org
  scope: Cluster
  names: {kind: IPPool, listKind: IPPoolList, plural: ippools, singular: ippool}
  preserveUnknownFields: false
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec: {type: object, required: [cidr], properties: {cidr: {type: string}, disabled: {type: boolean}}}
";

#[tokio::test]
async fn definitions_are_installed_where_absent_and_those_that_are_there_stay() {
    let control_plane = ControlPlane::start(Setup::new()).unwrap();
    let store = store(&control_plane, "admin").await;
    let missing = "the CustomResourceDefinition ippools.crd.projectcalico.org is not installed";
    for error in [
        store.get(Kind::IPPool, "p").await.unwrap_err(),
        store.list(Kind::IPPool, &Only::All).await.unwrap_err(),
        store.create(pool("p", "10.0.0.0/16")).await.unwrap_err(),
    ] {
        assert_eq!(error, Error::Unavailable(missing.into()));
    }
    let mut watch = store.watch(Kind::IPPool, Only::All);
    assert_eq!(next(&mut watch).await, Event::Lost(missing.into()));

    control_plane.apply(STRICT).unwrap();
    let installed = install_crds(&store).await.unwrap();
    assert_eq!(installed.len(), 11, "all but the pools: {installed:?}");
    assert_eq!(install_crds(&store).await, Ok(Vec::new()));
    let from = ["get", "crd", "ippools.crd.projectcalico.org", "-o", "jsonpath={.metadata.labels.from}"];
    assert_eq!(control_plane.kubectl(&from).unwrap(), "calico");

    // What Calico's drops is lost before we see it; all else is as with ours.
    assert_eq!(in_sync(&mut watch).await, [Event::Init, Event::InSync], "watched as soon as it is there");
    let spec = json!({"cidr": "10.0.0.0/16", "fromTheFuture": 1});
    let stored = store.create(Object::new(Kind::IPPool, "p", &spec)).await.unwrap();
    assert_eq!(stored.spec, json!({"cidr": "10.0.0.0/16"}));
    assert_eq!(next(&mut watch).await, Event::Object(stored.clone()));
    let changed = stored.with_spec(&json!({"cidr": "10.0.0.0/16", "disabled": true}));
    let stored = store.update(changed).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Object(stored.clone()));
    store.delete(&stored).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Deleted("p".into()));
}

#[tokio::test]
async fn people_can_apply_the_definitions_themselves() {
    let (control_plane, _) = shared().await;
    let all: Vec<_> = Kind::ALL.into_iter().filter_map(crd).collect();
    let said = control_plane.apply(&all.join("---\n")).unwrap();
    assert_eq!(said.lines().filter(|line| line.contains(".crd.projectcalico.org ")).count(), 12, "{said}");
}

#[tokio::test]
async fn kubectl_get_shows_what_matters_of_each_kind() {
    let (control_plane, store) = shared().await;
    let objects = [
        (
            Kind::IPPool,
            "blue",
            json!({"cidr": "10.0.0.0/16", "blockSize": 26, "ipipMode": "CrossSubnet",
            "natOutgoing": true, "disabled": false, "nodeSelector": "rack == 'r1'"}),
        ),
        (
            Kind::IPAMBlock,
            "10-0-0-0-30",
            json!({"cidr": "10.0.0.0/30", "affinity": "host:n1", "deleted": false,
            "affinityClaimTime": "2026-01-02T03:04:05Z", "allocations": [0, null, null, null],
            "unallocated": [1, 2, 3], "attributes": [{"handle_id": "h", "secondary": {"pod": "web-0", "namespace": "shop"}}],
            "sequenceNumber": 1_793_487_600_123_456_789_u64, "strictAffinity": false}),
        ),
        (
            Kind::BlockAffinity,
            "n1-10-0-0-0-30",
            json!({"cidr": "10.0.0.0/30", "node": "n1", "state": "confirmed", "deleted": "false"}),
        ),
        (Kind::IPAMHandle, "h", json!({"handleID": "h", "block": {"10.0.0.0/30": 1}, "deleted": false})),
        (
            Kind::IPAMConfig,
            "default",
            json!({"strictAffinity": false, "autoAllocateBlocks": true, "maxBlocksPerHost": 20}),
        ),
        (Kind::IPReservation, "gateways", json!({"reservedCIDRs": ["10.0.0.0/31"]})),
        (
            Kind::BGPConfiguration,
            "default",
            json!({"asNumber": 64512, "nodeToNodeMeshEnabled": true, "listenPort": 179}),
        ),
        (
            Kind::BGPPeer,
            "tor",
            json!({"nodeSelector": "rack == 'r1'", "peerIP": "10.9.0.1", "asNumber": "1.10"}),
        ),
        (
            Kind::BGPFilter,
            "no-default",
            json!({"importV4": [{"action": "Reject", "cidr": "0.0.0.0/0",
            "matchOperator": "Equal"}, {"action": "Accept"}]}),
        ),
        (
            Kind::FelixConfiguration,
            "default",
            json!({"ipipEnabled": true, "ipipMTU": 1480, "logSeverityScreen": "Info"}),
        ),
        (
            Kind::ClusterInformation,
            "default",
            json!({"datastoreReady": true, "clusterType": "k8s,bgp", "calicoVersion": "v3.30.0"}),
        ),
        (Kind::CalicoNodeStatus, "n1", json!({"node": "n1", "classes": ["BGP"], "updatePeriodSeconds": 10})),
    ];
    let shows = [
        ["10.0.0.0/16", "26", "CrossSubnet", "true", "false", "rack == 'r1'"].as_slice(),
        &["10.0.0.0/30", "host:n1", "false"],
        &["n1", "10.0.0.0/30", "confirmed"],
        &["h", "{\"10.0.0.0/30\":1}"],
        &["false", "true", "20"],
        &["[\"10.0.0.0/31\"]"],
        &["64512", "true", "179"],
        &["rack == 'r1'", "10.9.0.1", "1.10"],
        &["no-default"],
        &["true", "1480", "Info"],
        &["true", "k8s,bgp", "v3.30.0"],
        &["n1", "3", "1"],
    ];
    for ((kind, name, spec), shows) in objects.iter().zip(shows) {
        let mut object = Object::new(*kind, *name, spec);
        if *kind == Kind::CalicoNodeStatus {
            let bgp = json!({"numberEstablishedV4": 3, "numberNotEstablishedV4": 1});
            object.rest.insert("status".into(), json!({"bgp": bgp, "lastUpdated": "2026-01-02T03:04:05Z"}));
        }
        let stored = store.create(object).await.unwrap();
        assert_eq!(&stored.spec, spec);
        let table = control_plane.kubectl(&["get", kind.plural()]).unwrap();
        println!("$ kubectl get {}\n{table}", kind.plural());
        let wide = control_plane.kubectl(&["get", kind.plural(), "-o", "wide"]).unwrap();
        assert!(wide.len() >= table.len(), "{wide}");
        for part in shows {
            assert!(table.lines().nth(1).unwrap().contains(part), "{part}:\n{table}");
        }
    }
}
