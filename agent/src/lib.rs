//! The node agent of Manx: it reads the cluster's objects, owns this node's addresses, keeps the kernel's routes, speaks
//! BGP, and serves the CNI plugin. `main.rs` is the command line in front of it.
//!
//! Decisions are the pure crates'; what is here is who asks whom, and when. The map of tasks is in [`agent`].

pub mod addresses;
pub mod agent;
pub mod census;
pub mod cli;
pub mod cluster;
pub mod cni_files;
pub mod cni_server;
pub mod coalesce;
pub mod collecting;
pub mod config;
pub mod connectivity;
pub mod default_pool;
pub mod demand;
pub mod detect;
mod echo;
pub mod endpoints;
pub mod felix_parameters;
mod http_server;
pub mod information;
pub mod latest;
pub mod leader;
pub mod listening;
pub mod metrics;
pub mod network;
pub mod network_condition;
pub mod no_ipip;
pub mod node_loop;
pub mod node_status;
pub mod passwords;
pub mod peering;
pub mod pod_cidrs;
pub mod pod_objects;
pub mod pods;
pub mod policies;
pub mod probes;
pub mod problems;
pub mod publish;
pub mod readiness;
pub mod remote;
pub mod reports;
pub mod route_loop;
pub mod services;
pub mod status;
pub mod territory;
pub mod tunnel_address;
pub mod uninstall;
pub mod unsupported;
pub mod view;
