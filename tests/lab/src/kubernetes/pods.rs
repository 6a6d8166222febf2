//! The Pods of a lab as kubelet handles them: bound to a node, told their address once they have one, deleted at the end.

use anyhow::{Context as _, Result, ensure};
use manx_kubernetes::Client;
use serde_json::{Value, json};

/// Makes a Pod on a node, as user and scheduler do together; its uid.
pub fn create(client: &Client, node: &str, name: &str, namespace: &str) -> Result<String> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]},
    });
    let answer = client.ask("POST", &collection(namespace), &pod.to_string())?;
    ensure!(answer.status == 201, "making pod {name}: {}: {}", answer.status, answer.body);
    let made: Value = serde_json::from_str(&answer.body)?;
    Ok(made["metadata"]["uid"].as_str().context("a pod without a uid")?.to_owned())
}

/// Says in the Pod's status that it runs and which address it has.
pub fn started(client: &Client, name: &str, namespace: &str, address: &str) -> Result<()> {
    let status = json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "c", "image": "none", "imageID": "none", "restartCount": 0, "ready": true, "state": {"running": {}},
        }],
    });
    let path = format!("{}/{name}/status", collection(namespace));
    let answer = client.ask("PATCH", &path, &json!({ "status": status }).to_string())?;
    ensure!(answer.status == 200, "the status of pod {name}: {}: {}", answer.status, answer.body);
    Ok(())
}

/// Deletes a Pod at once, as a kubelet does when its sandbox is gone; one that is gone is no error.
pub fn delete(client: &Client, name: &str, namespace: &str) -> Result<()> {
    let path = format!("{}/{name}?gracePeriodSeconds=0", collection(namespace));
    let answer = client.ask("DELETE", &path, "")?;
    ensure!([200, 404].contains(&answer.status), "deleting pod {name}: {}", answer.body);
    Ok(())
}

fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}
