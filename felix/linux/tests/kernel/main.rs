//! The door to the kernel against the real kernel, in fresh network namespaces. Needs root, `ip`, `nft` and `ping`.
//!
//! Tests whose names begin with `ipip_` need a kernel that has ipip, and fail on one that has not.

mod common;
mod events;
mod ipv6;
mod nftables;
mod pods;
mod routes;
mod tunnel;
