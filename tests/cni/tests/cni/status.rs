//! STATUS: whether an ADD would be served.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use manx_lab::eventually;
use serde_json::json;

use crate::runtime::{Runtime, cluster};

#[test]
fn status_is_50_until_the_agent_can_serve_an_add() {
    let mut cluster = cluster();
    Runtime::new(cluster.lab()).network("STATUS").ok().unwrap();

    cluster.agent("node1").unwrap().kill().unwrap();
    let answer = Runtime::new(cluster.lab()).network("STATUS");
    assert_eq!(answer.code(), Some(50), "{answer:?}");

    // An address that no device of the node has: the agent runs, and waits.
    let waiting = cluster.agent_program("node1", &[("IP", "192.0.2.1")]).unwrap();
    let ready = cluster.agent("node1").unwrap().program().clone();
    for (program, code) in [(waiting, Some(50)), (ready, None)] {
        let agent = cluster.agent("node1").unwrap();
        agent.kill().unwrap();
        agent.set_program(program);
        agent.start_again().unwrap();
        eventually(Duration::from_secs(20), "the agent's own answer", || {
            let answer = Runtime::new(cluster.lab()).network("STATUS");
            let details = answer.field("error")["details"].as_str().unwrap_or_default().to_owned();
            ensure!(answer.code() == code && !details.contains("no connection"), "{answer:?}");
            ensure!(code.is_none() || details.contains("waiting for this node's address"), "{answer:?}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn status_refuses_a_configuration_that_no_pod_could_get() {
    let cluster = cluster();
    let mut runtime = Runtime::new(cluster.lab());
    runtime.list["plugins"][0]["ipam"] = json!({ "type": "host-local", "subnet": "10.0.0.0/8" });
    let answer = runtime.network("STATUS");
    assert_eq!(answer.code(), Some(2), "{answer:?}");
    let message = answer.field("error")["msg"].as_str().context("a message").unwrap();
    assert!(message.contains("ipam.subnet is \"10.0.0.0/8\""), "{message}");
}
