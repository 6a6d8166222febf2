//! Sockets and timers for manx-bgp: the only door between the speaker and the network.
//!
//! ```text
//!                      +-- watch: SessionConfig, stop ---+
//!                      |   bounded: UPDATEs              v
//!   owner -- next() -- Bgp <-- bounded: outputs -- one task for each peer -- its sockets
//!                      |                                 ^
//!                      +---- listener task -- accepted --+
//! ```
//!
//! Decoding and KEEPALIVEs happen in the task of the peer, so that a busy table keeps no session waiting. A task whose
//! outputs are not taken reads no more from its peer; a peer that does not read gets no more UPDATEs, while what it is to be
//! told stays a set of prefixes in the speaker. All time is tokio's, so that tests can stop it.

mod bgp;
mod link;
mod listener;
mod peer;
mod tcp;
mod transport;

pub use bgp::{Bgp, Shutdown, Status};
pub use listener::ListenerStatus;
pub use tcp::Tcp;
pub use transport::{BoxFuture, Connection, Dial, Listener, Stream, Transport};

/// tokio's time in the form that the core takes.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
