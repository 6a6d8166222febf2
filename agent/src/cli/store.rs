//! Opening the datastore that the configuration names, for the agent and for subcommands that work on it directly.

use std::path::Path;
use std::sync::Arc;

use manx_datastore::{Datastore, Memory};
use manx_datastore_file::{FileStore, Remembering};
use manx_datastore_kube::{KubeStore, Options};

use crate::config::{Config, DatastoreChoice};

/// Opens the datastore of an agent. What Kubernetes answers is remembered: an agent that starts while the API server is
/// away goes on with that.
///
/// # Errors
/// Which datastore, and why it cannot be opened.
pub async fn open_remembering(config: &Config) -> Result<Arc<dyn Datastore>, String> {
    let store = open(&config.datastore, config.node.as_str()).await?;
    match config.datastore {
        DatastoreChoice::Kubernetes { .. } => remember(store, &config.state_dir.join("remembered")),
        DatastoreChoice::Memory | DatastoreChoice::File(_) => Ok(store),
    }
}

fn remember(store: Arc<dyn Datastore>, directory: &Path) -> Result<Arc<dyn Datastore>, String> {
    let remembering = Remembering::open(store, directory);
    Ok(Arc::new(remembering.map_err(|error| format!("what the datastore said last: {error}"))?))
}

/// Opens the datastore; `who` is who reports on objects.
///
/// # Errors
/// Which datastore, and why it cannot be opened.
pub async fn open(choice: &DatastoreChoice, who: &str) -> Result<Arc<dyn Datastore>, String> {
    let failed = |error: manx_datastore::Error| format!("datastore {choice}: {error}");
    Ok(match choice {
        DatastoreChoice::Memory => Arc::new(Memory::new()),
        DatastoreChoice::File(directory) => Arc::new(FileStore::open(directory).await.map_err(failed)?),
        DatastoreChoice::Kubernetes { kubeconfig } => {
            let options =
                Options { kubeconfig: kubeconfig.clone(), reporter: who.to_owned(), ..Options::default() };
            Arc::new(KubeStore::connect(options).await.map_err(failed)?)
        }
    })
}
