//! What single nodes have for themselves: their AS, where they listen, and who asks them how they are.

use anyhow::{Context as _, ensure};
use manx_lab::{Lab, eventually};

use super::tor::{configure, wait_told};
use super::{apply, block, kubectl, session};
use crate::support::{SOON, assert_everybody_reaches_everybody, assert_routes, founding, object};

const PORT: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {listenPort: 1790}
";

const QUESTION: &str = "
apiVersion: crd.projectcalico.org/v1
kind: CalicoNodeStatus
metadata: {name: how-is-node1}
spec: {node: node1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 1}
";

#[test]
fn a_node_in_an_as_of_its_own_peers_with_all_others_and_all_pods_reach_each_other() {
    let cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    configure(&lab, "neighbor 172.171.6.95 as 64512;", "neighbor 172.171.6.95 as 64999;");
    kubectl(&cluster, &["annotate", "node", "node3", "projectcalico.org/ASNumber=64999"]);
    eventually(SOON * 2, "node3 to be in its AS", || {
        for node in ["node1", "node2", "node4"] {
            let session = session(&cluster, node, "172.171.6.95")?;
            ensure!(session["asn"] == 64999 && session["state"] == "Established", "{node}: {session}");
        }
        Ok(())
    })
    .unwrap();
    cluster.wait_converged().unwrap();
    wait_told(&lab, &block(&cluster, "node3", "192.168."), "node3", &["BGP.as_path: 64999\n"]);
    assert_routes(&cluster, "Never");
    assert_everybody_reaches_everybody(&cluster);
}

#[test]
fn nodes_listen_where_the_configuration_says_once_they_are_started_again_and_answer_who_asks_how_they_are() {
    let mut cluster = founding("Never");
    apply(&cluster, PORT);
    eventually(SOON, "node1 to say that it waits for a restart", || {
        let problems = cluster.status("node1")?["problems"].to_string();
        ensure!(problems.contains("listenPort 1790 waits for a restart"), "{problems}");
        Ok(())
    })
    .unwrap();
    for node in cluster.node_names() {
        cluster.agent(&node).unwrap().kill().unwrap();
        cluster.agent(&node).unwrap().start_again().unwrap();
    }
    for node in cluster.node_names() {
        cluster.wait_ready(&node).unwrap();
        let listening = cluster.status(&node).unwrap()["bgp"]["listening"].to_string();
        assert!(listening.contains(":1790"), "{listening}");
    }
    cluster.wait_converged().unwrap();
    let sockets = cluster.lab().exec("node1", &["ss", "-Htn", "state", "established"]).unwrap();
    let with_nodes = sockets.lines().filter(|line| line.contains(":1790")).count();
    assert_eq!(with_nodes, 3, "{sockets}");
    assert_routes(&cluster, "Never");
    assert_everybody_reaches_everybody(&cluster);

    apply(&cluster, QUESTION);
    let path = "/apis/crd.projectcalico.org/v1/caliconodestatuses/how-is-node1";
    let mut first = String::new();
    let far = block(&cluster, "node4", "192.168.");
    eventually(SOON, "node1 to answer", || {
        let status = object(&cluster, path)?["status"].clone();
        ensure!(status["agent"]["birdV4"]["state"] == "Ready", "{status}");
        ensure!(status["bgp"]["numberEstablishedV4"] == 4, "{status}");
        let routes = status["routes"]["routesV4"].as_array().context("no routes")?;
        let route = routes.iter().find(|route| route["destination"] == far).context("no route to node4")?;
        ensure!(route["gateway"] == "172.171.5.1" && route["type"] == "FIB", "{route}");
        status["lastUpdated"].as_str().unwrap_or_default().clone_into(&mut first);
        Ok(())
    })
    .unwrap();
    println!("{}", kubectl(&cluster, &["get", "caliconodestatuses"]));
    eventually(SOON, "node1 to answer again", || {
        let status = object(&cluster, path)?["status"].clone();
        ensure!(status["lastUpdated"] != first.as_str(), "{status}");
        Ok(())
    })
    .unwrap();
}
