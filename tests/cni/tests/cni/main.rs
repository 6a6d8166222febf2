//! The CNI plugin as a container runtime drives it: by the CNI project's own library, a Go program (`driver/`), with
//! Debian's portmap and bandwidth behind the plugin, against a real agent. Needs root, Go, and the programs
//! that `make kubernetes` builds.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod chain;
mod gc;
mod outcomes;
mod runtime;
mod status;
mod versions;
