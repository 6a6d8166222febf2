//! Everything wrong that a user can write is refused by the API server, or said on the object and in `manx status`; and
//! meanwhile everything else goes on. All of it is there at once, on a cluster whose pods ping each other all the time.

mod table;
mod writing;

use std::time::Duration;

use anyhow::{Result, ensure};
use manx_lab::{Cluster, Lab, Ping, eventually};

use crate::support::{SOON, assert_everybody_reaches_everybody, founding};
use table::{Row, rows};
use writing::{Said, make_definitions_permissive, undo, write};

const PACE: Duration = Duration::from_millis(50);

#[test]
fn what_is_wrong_is_refused_or_said_on_the_object_and_in_the_status_and_all_else_goes_on() {
    let cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    let pings = pings(&lab);
    let mut stored = Vec::new();
    for row in rows() {
        let answer = write(&cluster, &row).unwrap();
        match row.refused {
            Some(words) => {
                show(&row, &answer.body);
                assert_eq!(answer.status, 422, "{row:?}: {}", answer.body);
                assert!(answer.body.contains(words), "{row:?}: {}", answer.body);
            }
            None => stored.push(row),
        }
    }
    assert_said(&cluster, &stored);
    assert_all_else_goes_on(&cluster, pings);
}

#[test]
fn what_is_wrong_behind_definitions_without_rules_is_said_too_until_it_is_mended_and_all_else_goes_on() {
    let cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    let pings = pings(&lab);
    make_definitions_permissive(&cluster).unwrap();
    for row in rows() {
        let answer = write(&cluster, &row).unwrap();
        assert!([200, 201].contains(&answer.status), "{row:?}: {}", answer.body);
    }
    assert_said(&cluster, &rows());
    assert_all_else_goes_on(&cluster, pings);

    undo(&cluster, &rows()).unwrap();
    eventually(SOON, "nothing to be wrong any more", || {
        let said = Said::read(&cluster)?.of_agents;
        ensure!(said.is_empty(), "{said:#?}");
        Ok(())
    })
    .unwrap();
}

/// Between nodes of one subnet, and of two.
fn pings(lab: &Lab) -> Vec<Ping> {
    let ping = |(from, to)| lab.ping(from, lab.pod(to).unwrap().address, PACE).unwrap();
    [("pod1", "pod2"), ("pod2", "pod3"), ("pod4", "pod1")].map(ping).into()
}

/// Waits until all of it is said in both places, and prints where.
fn assert_said(cluster: &Cluster, rows: &[Row]) {
    let missing = |said: &Said| -> Vec<String> {
        rows.iter().filter_map(|row| said.lacks(row).map(|where_| format!("{where_}: {row:?}"))).collect()
    };
    let done: Result<Said> = eventually(SOON * 2, "everything to be said", || {
        let said = Said::read(cluster)?;
        let missing = missing(&said);
        ensure!(missing.is_empty(), "missing {missing:#?}\nof {said:#?}");
        Ok(said)
    });
    let said = done.unwrap();
    for row in rows {
        show(row, &format!("said: {}", said.of_object(row).unwrap_or_default()));
    }
}

/// No packet is lost, and every node gives a new pod a network that reaches all others.
fn assert_all_else_goes_on(cluster: &Cluster, pings: Vec<Ping>) {
    for node in cluster.node_names() {
        cluster.pod_add(&node, &node.replace("node", "late"), "default").unwrap();
    }
    assert_everybody_reaches_everybody(cluster);
    for pod in ["late1", "late2", "late3", "late4"] {
        let address = cluster.lab().pod(pod).unwrap().address;
        assert_eq!(address.octets()[..2], [192, 168], "of the pool that is right");
        cluster.lab().ping_once("outside", address).unwrap();
    }
    for ping in pings {
        let report = ping.stop().unwrap();
        assert!(report.lost.is_empty(), "lost {:?} of {}", report.lost, report.sent);
    }
}

fn show(row: &Row, outcome: &str) {
    let outcome = outcome
        .split("\"message\":\"")
        .nth(1)
        .map_or(outcome, |rest| rest.split("\",\"reason").next().unwrap_or(rest));
    let Row { kind, name, change, .. } = row;
    let change = change.get("spec").or(change["metadata"].get("annotations")).unwrap_or(change);
    println!("{kind:<18} {name:<20} {change}\n{:>39} {outcome}", "->");
}
