//! What IPAM has stored, in the directory of a cluster or on its API server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use manx_datastore::{Datastore as _, Only};
use manx_datastore_file::FileStore;
use manx_kubernetes::ControlPlane;
use manx_model::{AffinitySpec, BlockSpec, HandleSpec, Kind, RESERVE};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Blocks, affinities and handles, read whole.
#[derive(Debug)]
pub struct Stored {
    /// All blocks.
    pub blocks: Vec<BlockSpec>,
    /// All affinities.
    pub affinities: Vec<AffinitySpec>,
    /// All handles.
    pub handles: Vec<HandleSpec>,
}

impl Stored {
    /// Reads the directory; an object that cannot be read is an error.
    pub fn read(directory: &Path) -> Result<Stored> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = FileStore::open(directory).await?;
            Ok(Stored {
                blocks: list(&store, Kind::IPAMBlock).await?,
                affinities: list(&store, Kind::BlockAffinity).await?,
                handles: list(&store, Kind::IPAMHandle).await?,
            })
        })
    }

    /// Reads the API server; an object that cannot be read is an error, and what is marked as deleted is not there.
    pub fn in_kubernetes(control_plane: &ControlPlane) -> Result<Stored> {
        Ok(Stored {
            blocks: specs(control_plane, "ipamblocks")?,
            affinities: specs(control_plane, "blockaffinities")?,
            handles: specs(control_plane, "ipamhandles")?,
        })
    }

    /// Fails if anything does not fit together: an address twice, lost, or held by nobody known, a claim half done.
    pub fn audit(&self) -> Result<()> {
        let findings = manx_ipam::audit(&self.blocks, &self.affinities, &self.handles);
        ensure!(findings.is_empty(), "IPAM does not fit together: {findings:#?}");
        Ok(())
    }

    /// Fails if anybody holds an address, or there is a handle of anybody: but for what nodes hold back for an outage.
    pub fn is_at_rest(&self) -> Result<()> {
        let left = self.handles.iter().filter(|handle| !handle.handle_id.starts_with("manx-reserve-"));
        let left: Vec<&str> = left.map(|handle| handle.handle_id.as_str()).collect();
        let held = self.held()?;
        ensure!(held.is_empty() && left.is_empty(), "held are {held:?}, handles are {left:?}");
        Ok(())
    }

    /// Which handle holds which address, but for what nodes hold back for an outage.
    pub fn held(&self) -> Result<BTreeMap<Ipv4Addr, String>> {
        let mut held = BTreeMap::new();
        for block in &self.blocks {
            let ipnet::IpNet::V4(cidr) = block.cidr else { continue };
            let first = u32::from(cidr.network());
            for (address, holder) in (first..).zip(&block.allocations) {
                let Some(index) = holder else { continue };
                let attribute = block.attributes.get(*index).context("an index behind the attributes")?;
                // One without a handle was released, and cools down.
                let Some(handle) = attribute.handle_id.clone() else { continue };
                if attribute.secondary.get("type").is_some_and(|kind| kind == RESERVE) {
                    continue;
                }
                let twice = held.insert(Ipv4Addr::from(address), handle);
                ensure!(twice.is_none(), "{} is held twice", Ipv4Addr::from(address));
            }
        }
        Ok(held)
    }
}

async fn list<T: DeserializeOwned>(store: &FileStore, kind: Kind) -> Result<Vec<T>> {
    let mut specs = Vec::new();
    for object in store.list(kind, &Only::All).await? {
        specs.push(object?.spec()?);
    }
    Ok(specs)
}

fn specs<T: DeserializeOwned>(control_plane: &ControlPlane, plural: &str) -> Result<Vec<T>> {
    let text = control_plane.get(&format!("/apis/crd.projectcalico.org/v1/{plural}"))?;
    let list: Value = serde_json::from_str(&text)?;
    let deleted = |object: &&Value| [true.into(), "true".into()].contains(&object["spec"]["deleted"]);
    let living = list["items"].as_array().into_iter().flatten().filter(|object| !deleted(object));
    living
        .map(|object| {
            serde_json::from_value(object["spec"].clone()).with_context(|| format!("{plural}: {object}"))
        })
        .collect()
}
