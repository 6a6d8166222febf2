//! Writing wrong things as a user does it, and reading what is said about them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use manx_kubernetes::Answer;
use manx_lab::{Cluster, eventually};
use serde_json::{Value, json};

use super::table::Row;
use crate::support::{SOON, object};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CALICO: &str = "/apis/crd.projectcalico.org/v1";

/// Writes one: merges it into the object, or makes that.
pub(super) fn write(cluster: &Cluster, row: &Row) -> Result<Answer> {
    let client = cluster.control_plane()?.client();
    let merged = client.ask("PATCH", &path(row), &row.change.to_string())?;
    if merged.status != 404 {
        return Ok(merged);
    }
    let (api_version, name) = (api_version(row), row.name.rsplit('/').next().unwrap_or(row.name));
    let mut object = row.change.clone();
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(row.kind);
    object["metadata"]["name"] = json!(name);
    if row.kind == "Pod" {
        let node = if row.said.len().is_multiple_of(2) { "node1" } else { "node4" };
        object["spec"] = json!({"nodeName": node, "containers": [{"name": "c", "image": "none"}]});
    }
    client.ask("POST", &collection(row), &object.to_string())
}

/// Takes all of it away again: what had been there before is as it was.
pub(super) fn undo(cluster: &Cluster, rows: &[Row]) -> Result<()> {
    let client = cluster.control_plane()?.client();
    for row in rows {
        let kept = ["default-ipv4-ippool", "node2", "node3", "wishes"].contains(&row.name)
            || (row.kind == "ClusterInformation" && row.name == "default");
        let answer = match kept {
            true => client.ask("PATCH", &path(row), &before(row).to_string())?,
            false => client.ask("DELETE", &format!("{}?gracePeriodSeconds=0", path(row)), "")?,
        };
        ensure!([200, 202, 404].contains(&answer.status), "{row:?}: {}", answer.body);
    }
    Ok(())
}

fn before(row: &Row) -> Value {
    match row.kind {
        "IPPool" => json!({"spec": {"cidr": "192.168.0.0/16"}}),
        "ClusterInformation" => json!({"spec": {"datastoreReady": true}}),
        _ => {
            let keys = row.change["metadata"]["annotations"].as_object().into_iter().flatten();
            let nothing: BTreeMap<&String, Value> = keys.map(|(key, _)| (key, Value::Null)).collect();
            json!({"metadata": {"annotations": nothing}})
        }
    }
}

/// Takes all rules out of the definitions of Calico's kinds, whose own have hardly any.
pub(super) fn make_definitions_permissive(cluster: &Cluster) -> Result<()> {
    let client = cluster.control_plane()?.client();
    let list = object(cluster, DEFINITIONS)?;
    for definition in list["items"].as_array().into_iter().flatten() {
        let mut definition = definition.clone();
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = anything;
        let name = definition["metadata"]["name"].as_str().context("a definition without a name")?;
        let answer = client.ask("PUT", &format!("{DEFINITIONS}/{name}"), &definition.to_string())?;
        ensure!(answer.status == 200, "{name}: {}", answer.body);
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let probe = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": "probe"}, "spec": 7});
        eventually(SOON, &format!("{name} to have no rules"), || {
            let path = format!("{CALICO}/{plural}?dryRun=All");
            let answer = client.ask("POST", &path, &probe.to_string())?;
            ensure!(answer.status == 201, "{}", answer.body);
            Ok(())
        })?;
    }
    Ok(())
}

fn api_version(row: &Row) -> &'static str {
    if ["Node", "Pod", "Namespace"].contains(&row.kind) { "v1" } else { "crd.projectcalico.org/v1" }
}

fn collection(row: &Row) -> String {
    match row.kind {
        "Pod" => "/api/v1/namespaces/default/pods".to_owned(),
        "Node" | "Namespace" => format!("/api/v1/{}s", row.kind.to_lowercase()),
        "CalicoNodeStatus" => format!("{CALICO}/caliconodestatuses"),
        kind => format!("{CALICO}/{}s", kind.to_lowercase()),
    }
}

fn path(row: &Row) -> String {
    format!("{}/{}", collection(row), row.name.rsplit('/').next().unwrap_or(row.name))
}

/// All that is said of objects.
#[derive(Debug)]
pub(super) struct Said {
    /// In Events: the object as `KIND NAME`, and the note.
    events: BTreeSet<(String, String)>,
    /// In the status of any agent: problems, and what is without effect.
    pub(super) of_agents: BTreeSet<String>,
}

impl Said {
    pub(super) fn read(cluster: &Cluster) -> Result<Said> {
        let events = object(cluster, "/apis/events.k8s.io/v1/events")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = events["items"].as_array().into_iter().flatten().map(|event| {
            let of = &event["regarding"];
            (format!("{} {}", text(&of["kind"]), text(&of["name"])), text(&event["note"]))
        });
        let mut of_agents = BTreeSet::new();
        for status in cluster.statuses()?.values() {
            for list in ["problems", "notices"] {
                of_agents.extend(status[list].as_array().into_iter().flatten().map(text));
            }
        }
        Ok(Said { events: events.collect(), of_agents })
    }

    /// Where a row is not named.
    pub(super) fn lacks(&self, row: &Row) -> Option<&'static str> {
        let about = format!("{} {}", row.kind, row.name);
        let in_status = self.of_agents.iter().any(|text| text.contains(&about) && text.contains(row.said));
        match (self.of_object(row), in_status) {
            (None, false) => Some("nowhere"),
            (None, true) => Some("no Event"),
            (Some(_), false) => Some("not in the status"),
            (Some(_), true) => None,
        }
    }

    /// The Event about a row.
    pub(super) fn of_object(&self, row: &Row) -> Option<&str> {
        let about = format!("{} {}", row.kind, row.name.rsplit('/').next().unwrap_or(row.name));
        let mut notes = self.events.iter().filter(|(of, note)| *of == about && note.contains(row.said));
        notes.next().map(|(_, note)| note.as_str())
    }
}
