//! The socket on which an agent answers `manx status`: whoever connects reads one JSON document.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::Status;

/// A reader, or an agent, that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// Where the status comes from.
pub type Source = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Status> + Send>> + Send + Sync>;

/// Answers for ever.
pub async fn serve(listener: UnixListener, source: Source) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&source)))),
            Err(error) => {
                tracing::warn!("cannot accept a connection for the status: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, source: Source) {
    let status = source().await;
    let document = serde_json::to_vec(&status).expect("a status serializes");
    // A reader that has gone has gone.
    let _ = timeout(LIMIT, stream.write_all(&document)).await;
}

/// Asks the agent behind `socket`.
///
/// # Errors
/// In words for the operator: nobody answers there, or not with a status.
pub async fn ask(socket: &Path) -> Result<Status, String> {
    let unanswered = |error: io::Error| {
        format!("no agent answers on {}: {error}; is `manx agent` running on this node?", socket.display())
    };
    let document = async {
        let mut stream = UnixStream::connect(socket).await?;
        let mut document = Vec::new();
        stream.read_to_end(&mut document).await?;
        Ok(document)
    };
    let limited = timeout(LIMIT, document).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let document = limited.map_err(unanswered)?;
    serde_json::from_slice(&document).map_err(|error| format!("the agent's answer is no status: {error}"))
}
