//! Whole clusters end to end: the agent, the CNI plugin, the real kernel and a real BIRD. Needs root.
//!
//! What is `ipip_` needs a kernel with ipip, and runs in a guest where this one has none.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod address;
mod churn;
mod config;
mod damage;
mod forged;
mod modes;
mod nat;
mod peers;
mod pod_cidrs;
mod pods;
mod probes;
mod repair;
mod restart;
mod support;
