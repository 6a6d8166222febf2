//! What an ADD and a DEL cost: time and processor of the real plugin and a real agent, beside Debian's ptp + host-local
//! and beside the bare calls to the kernel, in turns in one run. Read the ratios: machines differ, and so do days.

mod bare;
mod cell;
mod cpu;
mod plugin;
mod pods;
mod table;

use std::num::NonZeroUsize;

use anyhow::{Context as _, Result};
use clap::Parser;
use manx_lab::{Cluster, Lab, Options, Topology};

use crate::bare::Bare;
use crate::cell::Cells;
use crate::cpu::Watched;
use crate::plugin::Plugin;
use crate::pods::Pods;

/// Measures ADD and DEL, one at a time and many at once. Needs root, `make build` and containernetworking-plugins.
#[derive(Parser)]
#[command(name = "bench-cni", version)]
struct Args {
    /// MANX_DATASTORE of the agent; without it, a directory of its own.
    #[arg(long, env = "MANX_DATASTORE")]
    datastore: Option<String>,
    /// Pods in each turn.
    #[arg(long, default_value = "64")]
    pods: NonZeroUsize,
    /// Turns of each plugin, for each number at once.
    #[arg(long, default_value = "5")]
    turns: NonZeroUsize,
    /// How many at once, beside one at a time.
    #[arg(long, default_value = "32")]
    at_once: NonZeroUsize,
    /// A process whose processor time is counted as well, as NAME=PID: the API server, etcd. Repeat it for more.
    #[arg(long = "also", value_name = "NAME=PID")]
    also: Vec<Watched>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let lab = |name| Lab::up(Options::unique(name, Topology::one_subnet(1)));
    let mut env = vec![("CALICO_NETWORKING_BACKEND", "none")];
    env.extend(args.datastore.as_deref().map(|datastore| ("MANX_DATASTORE", datastore)));
    let mut cluster = Cluster::start(lab("bench")?, &env)?;
    // A node of its own, so that no agent watches what the others do.
    let other = lab("other")?;
    let agent = cluster.agent("node1")?.pid().context("the agent has ended")?;
    let mut watched = vec![Watched { name: "agent".to_owned(), pid: agent }];
    watched.extend(args.also);

    let plugins = [Plugin::manx(cluster.lab())?, Plugin::ptp(&other)?];
    let bare = Bare::open(&other)?;
    let mut tables = Vec::new();
    for at_once in [1, args.at_once.get()] {
        let mut cells = Cells::default();
        for turn in 0..args.turns.get() {
            for plugin in &plugins {
                let pods = Pods::make(plugin.lab(), &format!("{at_once}x{turn}"), args.pods.get())?;
                for verb in ["ADD", "DEL"] {
                    cells.measure(plugin.name(), verb, at_once, &watched, &pods, |pod| {
                        plugin.call(verb, pod)
                    })?;
                }
                pods.remove()?;
            }
            if at_once == 1 {
                let pods = Pods::make(&other, &format!("bare{turn}"), args.pods.get())?;
                cells.measure(bare::KERNEL, "ADD", 1, &watched, &pods, |pod| bare.add(pod))?;
                cells.measure(bare::KERNEL, "DEL", 1, &watched, &pods, |pod| bare.del(pod))?;
                cells.measure(bare::START, "VERSION", 1, &watched, &pods, |pod| {
                    plugins[0].call("VERSION", pod)
                })?;
                pods.remove()?;
            }
        }
        tables.push((at_once, cells));
    }
    println!("{}", table::render(args.datastore.as_deref().unwrap_or("file"), &tables));
    Ok(())
}
