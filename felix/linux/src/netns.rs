//! Work inside another network namespace.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;

use rustix::fs::{self, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The calling thread's network namespace.
pub(crate) fn current() -> io::Result<OwnedFd> {
    Ok(fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Runs `work` inside `netns`; afterwards the thread is where it was, also when `work` panics. A thread of its own for each
/// piece of work would cost a tenth of all that attaching a pod costs.
pub(crate) fn within<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    let _home = Home(current()?);
    enter(netns)?;
    Ok(work())
}

/// Where a thread goes back to.
struct Home(OwnedFd);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = enter(self.0.as_fd()) {
            // The thread would do the node's work in a pod's namespace; an agent that is killed loses nothing. The kernel
            // has no reason to refuse but want of memory.
            eprintln!("a thread cannot leave a pod's network namespace: {error}");
            process::abort();
        }
    }
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
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
