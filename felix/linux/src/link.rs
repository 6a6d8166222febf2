//! Links by name, and their end.

use manx_felix::{IfIndex, KernelError};

use crate::error::{ENODEV, refused};
use crate::message;
use crate::parse::{self, Device};
use crate::socket::Socket;

/// The link of this name.
pub(crate) fn find(socket: &mut Socket, name: &str) -> Result<Option<Device>, KernelError> {
    let action = || format!("looking for link {name}");
    let mut found = None;
    let outcome = socket
        .exchange(&[message::link_by_name(name)], |reply| found = parse::device(reply.payload))
        .map_err(|error| refused(action(), error.into()))?
        .pop();
    match outcome {
        Some(Err(refusal)) if refusal.errno == ENODEV => Ok(None),
        Some(Err(refusal)) => Err(refused(action(), refusal)),
        _ => Ok(found),
    }
}

/// Deletes a link; its absence is success. The kernel answers only after a grace period of about 20 ms, in which this call
/// waits, although the link is gone before; several calls wait at the same time.
pub(crate) fn delete(socket: &mut Socket, name: &str, index: IfIndex) -> Result<(), KernelError> {
    match socket.request(&[message::delete_link(index)]) {
        Err(refusal) if refusal.errno != ENODEV => Err(refused(format!("deleting link {name}"), refusal)),
        _ => Ok(()),
    }
}
