//! The subcommands, one file each.

pub mod agent;
pub mod connectivity;
pub mod crds;
pub mod ipam;
pub mod status;
pub mod store;
pub mod uninstall;
