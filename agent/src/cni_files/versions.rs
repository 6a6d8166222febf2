//! Which CNI versions another plugin speaks: it is asked, as the specification has it (VERSION).

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use manx_cni::CniVersion;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// What a plugin speaks that is there and cannot be asked. Plugins have had 0.4.0 since 2019.
pub(super) const ASSUMED: [CniVersion; 2] = [CniVersion::V0_3_1, CniVersion::V0_4_0];

/// A plugin answers at once, or it hangs.
const LIMIT: Duration = Duration::from_secs(10);

/// Before a plugin that is being installed is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a plugin did not say what it speaks.
#[derive(Debug)]
pub(super) enum Unasked {
    /// It is linked dynamically, and the agent's image has no libraries: on the node, where the runtime starts it, it runs.
    NotHere,
    /// Something is wrong with it.
    Failed(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    supported_versions: Vec<String>,
}

/// Runs `plugin` with VERSION; the versions of ours among its answer.
pub(super) async fn ask(plugin: &Path) -> Result<Vec<CniVersion>, Unasked> {
    let output = timeout(LIMIT, run(plugin)).await;
    let output = output.map_err(|_| Unasked::Failed(format!("no answer in {} s", LIMIT.as_secs())))?;
    let output = output.map_err(|error| match error.kind() {
        // The file is there, so it is its loader that is not.
        io::ErrorKind::NotFound => Unasked::NotHere,
        _ => Unasked::Failed(error.to_string()),
    })?;
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|error| Unasked::Failed(format!("its answer: {error}")))?;
    let speaks = |version: &CniVersion| answer.supported_versions.iter().any(|its| its == version.as_str());
    Ok(CniVersion::ALL.into_iter().filter(speaks).collect())
}

async fn run(plugin: &Path) -> io::Result<Vec<u8>> {
    let mut command = Command::new(plugin);
    command.env_clear().env("CNI_COMMAND", "VERSION").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = loop {
        match command.spawn() {
            // Somebody is just writing it.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => sleep(PAUSE).await,
            spawned => break spawned?,
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that answers without reading is right, too.
        let _ = stdin.write_all(br#"{"cniVersion": "1.0.0"}"#).await;
    }
    Ok(child.wait_with_output().await?.stdout)
}
