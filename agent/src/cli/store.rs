//! Opening the datastore that the configuration names, for the agent and for subcommands that work on it directly.

use std::sync::Arc;

use manx_datastore::{Datastore, Memory};
use manx_datastore_file::FileStore;

use crate::config::DatastoreChoice;

/// Opens the datastore.
///
/// # Errors
/// Which datastore, and why it cannot be opened.
pub async fn open(choice: &DatastoreChoice) -> Result<Arc<dyn Datastore>, String> {
    let failed = |error: manx_datastore::Error| format!("datastore {choice}: {error}");
    Ok(match choice {
        DatastoreChoice::Memory => Arc::new(Memory::new()),
        DatastoreChoice::File(directory) => Arc::new(FileStore::open(directory).await.map_err(failed)?),
        DatastoreChoice::Kubernetes { .. } => return Err(format!("datastore {choice}: not built in")),
    })
}
