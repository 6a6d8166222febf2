//! One node of a lab: its files and its processes.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;

use crate::topology::NodeSpec;
use crate::{Lab, Process, Program};

/// One node of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Node<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) spec: &'lab NodeSpec,
}

impl Node<'_> {
    /// Its name, as in `NODENAME`.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The address of its `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        self.spec.address
    }

    /// How it was ordered.
    pub fn spec(&self) -> &NodeSpec {
        self.spec
    }

    /// The full name of its namespace.
    pub fn netns(&self) -> String {
        self.lab.netns(&self.spec.name)
    }

    /// The directory for what is the node's own.
    pub fn dir(&self) -> PathBuf {
        self.lab.dir().join(&self.spec.name)
    }

    /// Where the node's agent listens for the CNI plugin.
    pub fn cni_socket(&self) -> PathBuf {
        self.dir().join("cni.sock")
    }

    /// Where the CNI plugin leaves a DEL for an agent that is away.
    pub fn cni_spool(&self) -> PathBuf {
        self.dir().join("cni-spool")
    }

    /// Starts a program in the node's namespace; its output goes to `NAME.log` in the node's directory.
    pub fn start(&self, name: &str, program: Program) -> Result<Process> {
        Process::start(&self.netns(), program, self.dir().join(format!("{name}.log")))
    }

    /// Its routes: see [`Lab::routes`].
    pub fn routes(&self) -> Result<Vec<String>> {
        self.lab.routes(self.name())
    }

    /// Runs a command on it: see [`Lab::exec`].
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        self.lab.exec(self.name(), command)
    }
}
