//! Kernel parameters of one network namespace.
//!
//! A name below `/proc/sys/net` means the namespace of the thread that looks it up, except below a directory that was
//! opened already: that stays in the namespace in which it was opened. So the directories are opened once, and
//! writes may come from any thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use manx_felix::KernelError;
use rustix::fs::{self, Mode, OFlags};

use crate::error::failed;

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
    device: OwnedFd,
    neighbour: OwnedFd,
    /// Absent where the kernel has no IPv6.
    device6: Option<OwnedFd>,
}

impl Sysctl {
    /// Those of the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            ipv4: directory("/proc/sys/net/ipv4")?,
            device: directory("/proc/sys/net/ipv4/conf")?,
            neighbour: directory("/proc/sys/net/ipv4/neigh")?,
            device6: directory("/proc/sys/net/ipv6/conf").ok(),
        })
    }

    /// The value, without white space around it; `None` where the kernel has no such parameter for want of IPv6.
    pub(crate) fn read(&self, parameter: Parameter<'_>) -> Result<Option<String>, KernelError> {
        let Some((directory, name)) = self.place(parameter) else { return Ok(None) };
        let mut value = String::new();
        open(directory, &name, OFlags::RDONLY)
            .and_then(|mut file| file.read_to_string(&mut value))
            .map_err(|error| failed(format!("reading sysctl {}", dotted(parameter)), &error))?;
        Ok(Some(value.trim().to_owned()))
    }

    /// Writes the value; does nothing where the kernel has no such parameter for want of IPv6.
    pub(crate) fn write(&self, parameter: Parameter<'_>, value: &str) -> Result<(), KernelError> {
        let Some((directory, name)) = self.place(parameter) else { return Ok(()) };
        open(directory, &name, OFlags::WRONLY)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|error| failed(format!("setting sysctl {} to {value}", dotted(parameter)), &error))
    }

    fn place(&self, parameter: Parameter<'_>) -> Option<(&OwnedFd, String)> {
        Some(match parameter {
            Parameter::Forwarding => (&self.ipv4, "ip_forward".to_owned()),
            Parameter::Device(device, name) => (&self.device, format!("{device}/{name}")),
            Parameter::Neighbour(device, name) => (&self.neighbour, format!("{device}/{name}")),
            Parameter::Device6(device, name) => (self.device6.as_ref()?, format!("{device}/{name}")),
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

fn open(directory: &OwnedFd, name: &str, how: OFlags) -> io::Result<File> {
    Ok(fs::openat(directory.as_fd(), name, how | OFlags::CLOEXEC, Mode::empty())?.into())
}
