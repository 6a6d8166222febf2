//! The password of a session, from a Secret.

use anyhow::ensure;
use manx_lab::{Cluster, Lab, eventually};
use serde_json::json;

use super::{apply, kubectl, patch, session, tor};
use crate::support::{SOON, founding, object};

const TOR: &str = "172.171.5.1";
const SESSION: &str = "neighbor 172.171.5.95 as 64512;";

fn secret(cluster: &Cluster, word: &str) {
    apply(
        cluster,
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: bgp, namespace: kube-system}}\n\
             stringData: {{password: {word}}}\n"
        ),
    );
}

fn wait_established(cluster: &Cluster) {
    eventually(SOON * 2, "the session to be up", || {
        let session = session(cluster, "node1", TOR)?;
        ensure!(session["state"] == "Established", "{session}");
        cluster.lab().bird_session("node1").and_then(|state| {
            ensure!(state == "Established", "BIRD: {state}");
            Ok(())
        })
    })
    .unwrap();
}

/// Since when the sessions beside that of node1 with the ToR have been up, as BIRD and node1 tell it.
fn others(cluster: &Cluster, lab: &Lab) -> (Vec<String>, Vec<u64>) {
    let of_bird = ["node2", "node3", "node4"].map(|node| tor::up_since(lab, node).unwrap());
    let addresses = ["node2", "node3", "node4"].map(|node| lab.node(node).unwrap().address().to_string());
    let of_node1 = addresses.map(|peer| {
        let session = session(cluster, "node1", &peer).unwrap();
        assert_eq!(session["state"], "Established", "{session}");
        session["seconds"].as_u64().unwrap()
    });
    (of_bird.into(), of_node1.into())
}

#[test]
fn a_session_waits_for_its_password_says_so_and_takes_a_new_one_without_touching_others() {
    let cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    let before = others(&cluster, &lab);
    let password = json!({"password": {"secretKeyRef": {"name": "bgp", "key": "password"}}});
    patch(&cluster, "bgppeer", "tor-node1", &password);
    eventually(SOON, "the session to be held down", || {
        let session = session(&cluster, "node1", TOR)?;
        let why = "Secret kube-system/bgp does not exist";
        ensure!(session["state"] != "Established", "{session}");
        ensure!(session["lastError"].as_str().is_some_and(|error| error.contains(why)), "{session}");
        let problems = cluster.status("node1")?["problems"].to_string();
        ensure!(
            problems.contains("BGPPeer tor-node1: spec.password: ") && problems.contains(why),
            "{problems}"
        );
        let events = object(&cluster, "/apis/events.k8s.io/v1/events")?;
        let about = |event: &serde_json::Value| {
            event["regarding"]["name"] == "tor-node1"
                && event["note"].as_str().is_some_and(|note| note.contains(why))
        };
        ensure!(events["items"].as_array().is_some_and(|all| all.iter().any(about)), "no Event");
        ensure!(cluster.lab().bird_session("node1")? != "Established", "BIRD has none");
        Ok(())
    })
    .unwrap();

    tor::configure(&lab, SESSION, &format!("{SESSION} password \"first\";"));
    secret(&cluster, "first");
    wait_established(&cluster);
    let problems = cluster.status("node1").unwrap()["problems"].to_string();
    assert!(!problems.contains("spec.password"), "{problems}");

    // A new word, here first: nothing is said until both ends know it.
    secret(&cluster, "second");
    eventually(SOON, "the session to end", || {
        let session = session(&cluster, "node1", TOR)?;
        ensure!(session["state"] != "Established", "{session}");
        Ok(())
    })
    .unwrap();
    tor::configure(&lab, "password \"first\"", "password \"second\"");
    wait_established(&cluster);

    let after = others(&cluster, &lab);
    assert_eq!(before.0, after.0, "the ToR's other sessions");
    assert!(before.1.iter().zip(&after.1).all(|(before, after)| before <= after), "{before:?} {after:?}");
    let shown = [kubectl(&cluster, &["get", "events", "-A"]), cluster.status("node1").unwrap().to_string()];
    assert!(!shown.concat().contains("\"second\""), "a password is shown");
}
