//! The CustomResourceDefinitions of Calico's kinds, for clusters that have none. Where Calico has been, its own stay.

use std::collections::BTreeMap;
use std::time::Duration;

use manx_datastore::Error;
use manx_model::Kind;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::KubeStore;
use crate::call::Answer;
use crate::connection::Connection;
use crate::refusal::Refusal;
use crate::request::Call;

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// For how long new definitions may take to be served, and how often they are looked at.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The definition of one of Calico's kinds as YAML; `None` for a kind of Kubernetes.
pub const fn crd(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::IPPool => include_str!("../crds/ippools.yaml"),
        Kind::IPAMBlock => include_str!("../crds/ipamblocks.yaml"),
        Kind::BlockAffinity => include_str!("../crds/blockaffinities.yaml"),
        Kind::IPAMHandle => include_str!("../crds/ipamhandles.yaml"),
        Kind::IPAMConfig => include_str!("../crds/ipamconfigs.yaml"),
        Kind::IPReservation => include_str!("../crds/ipreservations.yaml"),
        Kind::BGPConfiguration => include_str!("../crds/bgpconfigurations.yaml"),
        Kind::BGPPeer => include_str!("../crds/bgppeers.yaml"),
        Kind::BGPFilter => include_str!("../crds/bgpfilters.yaml"),
        Kind::FelixConfiguration => include_str!("../crds/felixconfigurations.yaml"),
        Kind::ClusterInformation => include_str!("../crds/clusterinformations.yaml"),
        Kind::CalicoNodeStatus => include_str!("../crds/caliconodestatuses.yaml"),
        _ => return None,
    })
}

/// Installs the definitions that are absent, and waits until they are served. One that is there is never touched,
/// whoever has made it. Returns the kinds whose definitions it has installed.
///
/// # Errors
/// [`Error::Unavailable`], also where a right is missing; what was installed by then stays.
pub async fn install_crds(store: &KubeStore) -> Result<Vec<Kind>, Error> {
    let connection = &store.0;
    let there = definitions(connection).await?;
    let mut installed = Vec::new();
    for kind in Kind::ALL {
        let Some(yaml) = crd(kind).filter(|_| !there.contains_key(&name(kind))) else { continue };
        let answer = connection.call(None, &Call::create_from_yaml(PATH.into(), yaml)).await?;
        match answer.status.is_success() {
            true => installed.push(kind),
            false => match refusal(&answer) {
                // Somebody else was faster.
                Refusal::Exists => {}
                refusal => return Err(Error::Unavailable(format!("{}: {refusal}", name(kind)))),
            },
        }
    }
    await_served(connection, &installed).await?;
    Ok(installed)
}

async fn await_served(connection: &Connection, installed: &[Kind]) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waited_for = match installed.is_empty() {
            true => None,
            false => {
                let served = definitions(connection).await?;
                installed.iter().find(|&&kind| served.get(&name(kind)) != Some(&true))
            }
        };
        match waited_for {
            None => return Ok(()),
            Some(&kind) if Instant::now() > deadline => {
                return Err(Error::Unavailable(format!("{} is installed and yet not served", name(kind))));
            }
            Some(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

/// The definitions that there are, by name, and whether they are served.
async fn definitions(connection: &Connection) -> Result<BTreeMap<String, bool>, Error> {
    let answer = connection.call(None, &Call::list(PATH.into())).await?;
    if !answer.status.is_success() {
        return Err(Error::Unavailable(refusal(&answer).to_string()));
    }
    let list: List = serde_json::from_slice(&answer.body)
        .map_err(|error| Error::Unavailable(format!("the answer is no list of definitions: {error}")))?;
    Ok(list.items.into_iter().map(|one| (one.metadata.name, one.status.is_established())).collect())
}

fn name(kind: Kind) -> String {
    format!("{}.{}", kind.plural(), kind.group())
}

/// What is refused here is about no object of a kind; any of Kubernetes' own stands for it.
fn refusal(answer: &Answer) -> Refusal {
    Refusal::read(Kind::Namespace, answer)
}

#[derive(Deserialize)]
struct List {
    items: Vec<Definition>,
}

#[derive(Deserialize)]
struct Definition {
    metadata: Name,
    #[serde(default)]
    status: DefinitionStatus,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Default, Deserialize)]
struct DefinitionStatus {
    // Go writes an empty list as null.
    #[serde(default)]
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl DefinitionStatus {
    fn is_established(&self) -> bool {
        let established = |one: &Condition| one.r#type == "Established" && one.status == "True";
        self.conditions.iter().flatten().any(established)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_calicos_has_a_definition_under_its_name() {
        for kind in Kind::ALL {
            let Some(yaml) = crd(kind) else {
                assert!(!kind.is_calicos(), "{kind}");
                continue;
            };
            assert!(kind.is_calicos());
            for line in [
                format!("  name: {}\n", name(kind)),
                format!("    plural: {}\n", kind.plural()),
                format!("    kind: {kind}\n"),
            ] {
                assert!(yaml.contains(&line), "{kind}: {line}");
            }
        }
    }
}
