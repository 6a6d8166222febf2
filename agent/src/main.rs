//! `manx`: the agent of a node, and questions to it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use manx::cli::{agent, connectivity, crds, ipam, status, uninstall};

/// glibc's takes a seventh of what an ADD costs the agent: many small objects that one thread makes and another drops.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A pure-L3 network for Kubernetes: every node is a router, every pod a host route.
#[derive(Parser)]
#[command(name = "manx", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Agent(Box<agent::Args>),
    Status(status::Args),
    Ipam(ipam::Args),
    Crds(crds::Args),
    Connectivity(connectivity::Args),
    Uninstall(uninstall::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Agent(args) => agent::run(*args),
        Command::Status(args) => status::run(args),
        Command::Ipam(args) => ipam::run(args),
        Command::Crds(args) => crds::run(args),
        Command::Connectivity(args) => connectivity::run(args),
        Command::Uninstall(args) => uninstall::run(args),
    }
}
