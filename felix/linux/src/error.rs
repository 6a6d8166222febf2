//! What the kernel's refusals mean, and what to do about them.

use std::fmt::Display;
use std::io;

use manx_felix::KernelError;

use crate::socket::Refusal;

const EPERM: i32 = 1;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const EADDRNOTAVAIL: i32 = 99;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EINVAL: i32 = 22;
const EROFS: i32 = 30;
pub(crate) const EPROTONOSUPPORT: i32 = 93;
pub(crate) const EOPNOTSUPP: i32 = 95;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const ENOBUFS: i32 = 105;
const EHOSTUNREACH: i32 = 113;

/// An error of ours, without an errno.
pub(crate) fn refuse(action: impl Display, reason: impl Into<String>) -> KernelError {
    KernelError { action: action.to_string(), reason: reason.into(), errno: None }
}

/// The kernel's refusal of `action`, in words.
pub(crate) fn refused(action: impl Display, refusal: Refusal) -> KernelError {
    let said = refusal.words.filter(|words| !words.is_empty());
    let meaning = meaning(refusal.errno);
    let reason = match (said, meaning) {
        (Some(said), Some(meaning)) => format!("{meaning} (the kernel said: {said})"),
        (Some(said), None) => said,
        (None, Some(meaning)) => meaning.to_owned(),
        (None, None) => io::Error::from_raw_os_error(refusal.errno).to_string(),
    };
    let errno = (refusal.errno != 0).then_some(refusal.errno);
    KernelError { action: action.to_string(), reason, errno }
}

/// A failed system call, in words.
pub(crate) fn failed(action: impl Display, error: &io::Error) -> KernelError {
    match error.raw_os_error() {
        Some(errno) => refused(action, Refusal { errno, words: None }),
        None => refuse(action, error.to_string()),
    }
}

fn meaning(errno: i32) -> Option<&'static str> {
    Some(match errno {
        EPERM => "not permitted: Manx needs CAP_NET_ADMIN, and CAP_SYS_ADMIN to enter pods' namespaces",
        ENOENT => "it does not exist",
        EEXIST => "one exists already",
        ENODEV => "there is no such device",
        EINVAL => "the kernel takes it for wrong",
        EROFS => {
            "it is read-only: in a container, mount the node's /proc/sys/net at /host/proc/sys/net, as the chart does"
        }
        EOPNOTSUPP => "this kernel does not have it",
        EADDRNOTAVAIL => "the address is not there",
        ENETDOWN => "the device is down",
        ENETUNREACH | EHOSTUNREACH => "the gateway is not on a connected subnet",
        ENOBUFS => "the kernel is out of buffers; the change may have happened",
        _ => return None,
    })
}
