//! Objects as Calico has written them are understood, and what we do not know in them survives our writes.

use anyhow::ensure;
use manx_lab::{Topology, eventually};
use manx_netns::calico::{Api, Ipam, Write};
use serde_json::{Value, json};

use crate::support::{POOL, SOON, bare, object, stored};

/// One that an agent has made with mode Never, and Calico has written since.
const POOL_OF_CALICO: &str = r#"
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: default-ipv4-ippool
  annotations:
    manx.projectcalico.org/applied-environment: '{"CALICO_IPV4POOL_IPIP":"Never","MANX_CONFIG_REVISION":0}'
    projectcalico.org/metadata: '{"labels":{"team":"cats"},"creationTimestamp":"2024-01-02T03:04:05Z"}'
spec: {cidr: 192.168.0.0/16, blockSize: 26, ipipMode: Never, natOutgoing: false, fromTheFuture: {kept: true}}
"#;

#[test]
fn a_pool_that_calico_has_written_keeps_what_we_do_not_know_when_the_environment_changes_its_mode() {
    let mut cluster = bare(Topology::founding().keeping(&["node1"]));
    cluster.control_plane().unwrap().apply(POOL_OF_CALICO).unwrap();
    let env = [("CALICO_IPV4POOL_IPIP", "CrossSubnet"), ("MANX_CONFIG_REVISION", "1")];
    cluster.start_agents(&["node1"], &env).unwrap();
    let path = "/apis/crd.projectcalico.org/v1/ippools/default-ipv4-ippool";
    eventually(SOON, "the mode to be changed", || {
        let pool = object(&cluster, path)?;
        ensure!(pool["spec"]["ipipMode"] == "CrossSubnet", "{pool}");
        Ok(())
    })
    .unwrap();
    let pool = object(&cluster, path).unwrap();
    assert_eq!(pool["spec"]["fromTheFuture"], json!({"kept": true}), "{pool}");
    let metadata = pool["metadata"]["annotations"]["projectcalico.org/metadata"].as_str().unwrap();
    let metadata: Value = serde_json::from_str(metadata).unwrap();
    assert_eq!(metadata["labels"], json!({"team": "cats"}));
    assert_eq!(metadata["creationTimestamp"], "2024-01-02T03:04:05Z");
}

#[test]
fn affinities_of_old_calicos_are_used_and_labelled_and_those_marked_as_deleted_are_not_there() {
    let mut cluster = bare(Topology::founding().keeping(&["node1", "node2"]));
    cluster.control_plane().unwrap().apply(POOL).unwrap();
    let api = Api::new(cluster.control_plane().unwrap().client());
    // Two blocks were node1's: one is still, by an affinity without a state and without labels; of the other the affinity
    // is marked as deleted, and its deletion was not finished.
    let ipam = Ipam::new(api.clone(), "node1");
    ipam.assign("k8s-pod-network.gone", "gone", "default").unwrap();
    ipam.release("k8s-pod-network.gone").unwrap();
    let block = ipam.blocks().unwrap()[0];
    let block_name = block.to_string().replace(['.', '/'], "-");
    let mut of_the_future = api.get("ipamblocks", &block_name).unwrap().unwrap();
    of_the_future["spec"]["fromTheFuture"] = json!("kept");
    assert!(matches!(api.update("ipamblocks", &of_the_future).unwrap(), Write::Done(_)));
    let name = format!("node1-{block_name}");
    let mut affinity = api.get("blockaffinities", &name).unwrap().unwrap();
    affinity["spec"]["state"] = json!("");
    affinity["spec"]["fromTheFuture"] = json!("kept");
    assert!(matches!(api.update("blockaffinities", &affinity).unwrap(), Write::Done(_)));
    let deleted = json!({
        "state": "confirmed", "node": "node1", "type": "host", "cidr": "192.168.250.0/26", "deleted": "true",
    });
    api.create("blockaffinities", "BlockAffinity", "node1-192-168-250-0-26", deleted).unwrap();

    cluster.start_agents(&["node1", "node2"], &[("NO_DEFAULT_POOLS", "true")]).unwrap();
    let pod = cluster.pod_add("node1", "cat", "default").unwrap();
    assert!(block.contains(&pod.address), "{} is not of {block}", pod.address);
    let written = api.get("ipamblocks", &block_name).unwrap().unwrap();
    let numbers = [&of_the_future, &written].map(|block| block["spec"]["sequenceNumber"].as_u64().unwrap());
    assert!(written["spec"]["fromTheFuture"] == "kept" && numbers[0] < numbers[1], "{written}");
    assert_eq!(cluster.blocks().unwrap().keys().collect::<Vec<_>>(), [&block.to_string()]);
    eventually(SOON, "the affinity to be labelled", || {
        let affinity = object(&cluster, &format!("/apis/crd.projectcalico.org/v1/blockaffinities/{name}"))?;
        let label = &affinity["metadata"]["labels"]["projectcalico.org/hostname-hash"];
        ensure!(*label == "7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A", "{affinity}");
        ensure!(affinity["spec"]["fromTheFuture"] == "kept", "{affinity}");
        Ok(())
    })
    .unwrap();
    stored(&cluster).unwrap().audit().unwrap();
}
