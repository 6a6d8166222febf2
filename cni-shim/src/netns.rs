//! The container's network namespace as an open descriptor.

use std::os::fd::OwnedFd;

use manx_cni::environment::invalid;
use manx_cni::{CniError, Container, Verb};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The magic number of nsfs, the file system of namespaces (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Opens `CNI_NETNS`. For DEL, whatever is no namespace of a container's own is a namespace that is gone: the path is
/// missing, or what is left of it is the plain file on which the namespace was mounted.
pub(crate) fn open(verb: Verb, container: &Container) -> Result<Option<OwnedFd>, CniError> {
    let Some(path) = &container.netns else { return Ok(None) };
    match open_path(path) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(_) if verb == Verb::Del => Ok(None),
        Err(reason) => Err(invalid("CNI_NETNS", format!("{path:?} {reason}"))),
    }
}

fn open_path(path: &str) -> Result<OwnedFd, String> {
    let failed = |errno: Errno| format!("cannot be opened: {errno}");
    // NONBLOCK: a path that turns out to be a pipe must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    if rustix::fs::fstatfs(&descriptor).map_err(failed)?.f_type as u64 != NSFS_MAGIC {
        return Err("is no namespace, but another kind of file".to_owned());
    }
    if is_our_own(&descriptor) {
        return Err("is the node's own network namespace; a container must have one of its own".to_owned());
    }
    Ok(descriptor)
}

/// A runtime that mixes up the namespaces must not make us rebuild the node's network. Without /proc there is nothing
/// to compare with.
fn is_our_own(descriptor: &OwnedFd) -> bool {
    let ours = rustix::fs::stat("/proc/self/ns/net");
    let theirs = rustix::fs::fstat(descriptor);
    matches!((ours, theirs), (Ok(ours), Ok(theirs)) if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino))
}
