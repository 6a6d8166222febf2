//! Whole clusters on a real API server: agents, the CNI plugin, kubectl, and nodes of Calico's kind beside ours. Needs
//! root and the programs that `make kubernetes` builds.
//!
//! What is `ipip_` needs a kernel with ipip, and runs in a guest where this one has none.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod basics;
mod bgp;
mod calico;
mod mixed;
mod outage;
mod pod_cidrs;
mod races;
mod rights;
mod stored;
mod support;
mod wrong;
