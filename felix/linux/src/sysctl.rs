//! Kernel parameters of one network namespace.
//!
//! A name below `/proc/sys/net` means the namespace of the thread that looks it up, except below a directory that was
//! opened already: that stays in the namespace in which it was opened. So the directories are opened once, and
//! writes may come from any thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use manx_felix::KernelError;
use rustix::fs::{self, Mode, OFlags};

use crate::error::failed;

/// Where the parameters are.
const USUAL: &str = "/proc/sys/net";

/// Where a container finds them that may write them and is not privileged: its own `/proc/sys` is read-only, and nothing
/// may be mounted over it, so the chart mounts the node's here. It shows every thread its own namespace, as the usual one.
const MOUNTED: &str = "/host/proc/sys/net";

/// Longer than any value that is read here, in bytes.
const VALUE_MAX: usize = 64;

/// A parameter, by the directory that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter<'a> {
    /// `net.ipv4.ip_forward`.
    Forwarding,
    /// `net.ipv4.conf.DEVICE.NAME`.
    Device(&'a str, &'static str),
    /// `net.ipv4.neigh.DEVICE.NAME`.
    Neighbour(&'a str, &'static str),
    /// `net.ipv6.conf.DEVICE.NAME`.
    Device6(&'a str, &'static str),
}

/// The parameters of the namespace in which this was opened.
pub(crate) struct Sysctl {
    ipv4: OwnedFd,
    /// Absent where the kernel has no IPv6, or nobody asked for it.
    ipv6: Option<OwnedFd>,
}

impl Sysctl {
    /// Those of the calling thread's namespace, with those of IPv6 (if the kernel has it) or without.
    pub(crate) fn open(with_ipv6: bool) -> io::Result<Self> {
        let root = if Path::new(MOUNTED).join("ipv4").exists() { MOUNTED } else { USUAL };
        let ipv6 = with_ipv6.then(|| directory(&format!("{root}/ipv6/conf")).ok()).flatten();
        Ok(Self { ipv4: directory(&format!("{root}/ipv4"))?, ipv6 })
    }

    /// The value, without white space around it; `None` where the kernel has no such parameter for want of IPv6.
    pub(crate) fn read(&self, parameter: Parameter<'_>) -> Result<Option<String>, KernelError> {
        let Some((directory, name)) = self.place(parameter) else { return Ok(None) };
        let mut value = [0; VALUE_MAX];
        let length = open(directory, &name, OFlags::RDONLY)
            .and_then(|file| Ok(rustix::io::read(file, &mut value)?))
            .map_err(|error| failed(format!("reading sysctl {}", dotted(parameter)), &error))?;
        Ok(Some(String::from_utf8_lossy(&value[..length]).trim().to_owned()))
    }

    /// Writes the value; does nothing where the kernel has no such parameter for want of IPv6.
    pub(crate) fn write(&self, parameter: Parameter<'_>, value: &str) -> Result<(), KernelError> {
        let Some((directory, name)) = self.place(parameter) else { return Ok(()) };
        // The kernel takes a value whole or not at all.
        open(directory, &name, OFlags::WRONLY)
            .and_then(|file| Ok(rustix::io::write(file, value.as_bytes()).map(drop)?))
            .map_err(|error| failed(format!("setting sysctl {} to {value}", dotted(parameter)), &error))
    }

    fn place(&self, parameter: Parameter<'_>) -> Option<(&OwnedFd, String)> {
        Some(match parameter {
            Parameter::Forwarding => (&self.ipv4, "ip_forward".to_owned()),
            Parameter::Device(device, name) => (&self.ipv4, format!("conf/{device}/{name}")),
            Parameter::Neighbour(device, name) => (&self.ipv4, format!("neigh/{device}/{name}")),
            Parameter::Device6(device, name) => (self.ipv6.as_ref()?, format!("{device}/{name}")),
        })
    }
}

/// The parameter as sysctl(8) writes it.
pub(crate) fn dotted(parameter: Parameter<'_>) -> String {
    match parameter {
        Parameter::Forwarding => "net.ipv4.ip_forward".to_owned(),
        Parameter::Device(device, name) => format!("net.ipv4.conf.{device}.{name}"),
        Parameter::Neighbour(device, name) => format!("net.ipv4.neigh.{device}.{name}"),
        Parameter::Device6(device, name) => format!("net.ipv6.conf.{device}.{name}"),
    }
}

fn directory(path: &str) -> io::Result<OwnedFd> {
    Ok(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open(directory: &OwnedFd, name: &str, how: OFlags) -> io::Result<OwnedFd> {
    Ok(fs::openat(directory.as_fd(), name, how | OFlags::CLOEXEC, Mode::empty())?)
}
