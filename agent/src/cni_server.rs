//! The socket on which the CNI plugin asks. Each connection is one request, served in a task of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use manx_cni::protocol::{Command, ProtocolError};
use manx_cni::{CniError, Code, Reply, Request, spool, wire};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;
use crate::pods::Pods;

/// A plugin sends its request at once, or it is no plugin of ours.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Connections served at a time; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// How often requests that a plugin left in the spool while we lived are looked for.
const SPOOL_INTERVAL: Duration = Duration::from_secs(10);

/// Why requests are not served yet; `None` once they are.
pub type NotReady = Option<String>;

/// Serves CNI requests.
pub struct CniServer {
    /// Carries them out, once there is an address to route.
    pub pods: watch::Receiver<Option<Arc<Pods>>>,
    /// Why not yet.
    pub not_ready: watch::Receiver<NotReady>,
    /// Where plugins leave DELs that no agent took.
    pub spool: PathBuf,
    /// Told how long each answer took.
    pub metrics: Metrics,
}

/// Opens a socket that only root may use, in place of one that a killed agent left.
///
/// # Errors
/// The directory cannot be made, the socket not opened, or another agent answers on it: two would undo each other.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if StdStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there; stop it first"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl CniServer {
    /// Serves for ever.
    pub async fn run(self: Arc<Self>, listener: UnixListener) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        server.serve(stream).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection of the CNI plugin: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(&self, mut stream: UnixStream) {
        let request = timeout(REQUEST_LIMIT, read_request(&stream)).await;
        let reply = match request.unwrap_or(Err(ProtocolError::TimedOut)) {
            Ok((request, netns)) => self.answer_counted(request, netns).await,
            // Somebody looked whether the socket is there.
            Err(ProtocolError::Closed) => return,
            Err(error) => {
                tracing::warn!("a CNI request is refused: {error}");
                Reply::Error((&error).into())
            }
        };
        let sent = timeout(REQUEST_LIMIT, send_reply(&mut stream, &reply)).await;
        if let Err(error) = sent.unwrap_or(Err(ProtocolError::TimedOut)) {
            tracing::warn!("the CNI plugin did not take its answer: {error}");
        }
    }

    async fn answer_counted(&self, request: Request, netns: Option<OwnedFd>) -> Reply {
        let (began, verb) = (Instant::now(), verb(&request.command));
        let reply = self.answer(request, netns).await;
        let code = match &reply {
            Reply::Error(error) => error.code.0,
            Reply::Attached(_) | Reply::Done => 0,
        };
        self.metrics.answered(verb, code, began.elapsed());
        reply
    }

    async fn answer(&self, request: Request, netns: Option<OwnedFd>) -> Reply {
        let pods = self.pods.borrow().clone();
        let Some(pods) = pods else {
            let reason = self.not_ready.borrow().clone().unwrap_or_else(|| "it is starting".into());
            return Reply::Error(not_ready(&request.command, &reason));
        };
        if let Command::Add(container) = &request.command
            && let Err(error) = spool::withdraw(&self.spool, &request.network, container)
        {
            let details = format!("an old DEL in {} cannot be withdrawn: {error}", self.spool.display());
            return Reply::Error(CniError::new(Code::TRY_AGAIN_LATER, "try again later", details));
        }
        let reply = pods.serve(request, netns).await;
        if let Reply::Error(error) = &reply {
            tracing::warn!("a CNI request failed: {error}");
        }
        reply
    }

    /// Carries out what plugins spool, from time to time, for ever.
    pub async fn keep_draining(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SPOOL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let pods = self.pods.borrow().clone();
            if let Some(pods) = pods {
                drain_spool(&self.spool, &pods).await;
            }
        }
    }
}

/// Carries out every DEL in the spool. One that fails keeps its file for the next time.
pub async fn drain_spool(directory: &Path, pods: &Pods) {
    let found = match spool::drain(directory) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!("the CNI spool {} cannot be read: {error}", directory.display());
            return;
        }
    };
    for (path, request) in found {
        let request = match request {
            Ok(request) => request,
            Err(reason) => {
                tracing::warn!("{} is set aside: {reason}", path.display());
                continue;
            }
        };
        match pods.serve(request, None).await {
            Reply::Error(error) => tracing::warn!("{} could not be carried out: {error}", path.display()),
            _ => match spool::remove(&path) {
                Ok(()) => tracing::info!("carried out {}", path.display()),
                Err(error) => tracing::warn!("{} cannot be removed: {error}", path.display()),
            },
        }
    }
}

fn verb(command: &Command) -> &'static str {
    match command {
        Command::Add(_) => "ADD",
        Command::Check { .. } => "CHECK",
        Command::Del(_) => "DEL",
        Command::Gc { .. } => "GC",
        Command::Status => "STATUS",
    }
}

fn not_ready(command: &Command, reason: &str) -> CniError {
    let code = match command {
        Command::Status => Code::NOT_AVAILABLE,
        _ => Code::TRY_AGAIN_LATER,
    };
    CniError::new(code, "the manx agent is not ready", format!("{reason}; see `manx status` on this node"))
}

async fn read_request(stream: &UnixStream) -> Result<(Request, Option<OwnedFd>), ProtocolError> {
    let mut incoming = wire::Incoming::default();
    loop {
        let read = stream.async_io(Interest::READABLE, || incoming.read(stream)).await;
        if read.map_err(ProtocolError::Io)?? {
            return incoming.request();
        }
    }
}

async fn send_reply(stream: &mut UnixStream, reply: &Reply) -> Result<(), ProtocolError> {
    stream.write_all(&wire::frame(reply)?).await.map_err(ProtocolError::Io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_of_a_killed_agent_is_replaced_and_that_of_a_living_one_is_not() {
        let directory = std::env::temp_dir().join(format!("manx-agent-{}", std::process::id()));
        let path = directory.join("cni.sock");
        let living = listen(&path).unwrap();
        let refused = listen(&path).unwrap_err();
        assert!(refused.to_string().contains("another agent"), "{refused}");
        drop(living);
        assert!(path.exists(), "like a killed agent, it leaves its socket");
        listen(&path).unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
