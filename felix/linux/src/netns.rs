//! Work inside another network namespace.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::fs::{self, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The calling thread's network namespace.
pub(crate) fn current() -> io::Result<OwnedFd> {
    Ok(fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Runs `work` on a thread of its own inside `netns`. The thread ends with it, so that no thread of a pool is ever left
/// in a namespace where it does not belong.
pub(crate) fn within<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = move || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How a file relates to our own network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Own,
    /// Another namespace; of which kind shows when it is entered.
    Other,
    NoNamespace,
}

/// Compares without entering: namespaces are files of one file system, and their inodes tell them apart.
pub(crate) fn relation(file: BorrowedFd<'_>, own: BorrowedFd<'_>) -> io::Result<Relation> {
    let (file, own) = (fs::fstat(file)?, fs::fstat(own)?);
    Ok(match file.st_dev == own.st_dev {
        true if file.st_ino == own.st_ino => Relation::Own,
        true => Relation::Other,
        false => Relation::NoNamespace,
    })
}
