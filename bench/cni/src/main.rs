//! What an ADD and a DEL cost: time and processor of the real plugin and a real agent, beside Debian's ptp + host-local
//! and beside the bare calls to the kernel, in turns in one run. Read the ratios: machines differ, and so do days.
//!
//! On Kubernetes the control plane, started for the run, shares the processors with the plugin.

mod bare;
mod cell;
mod cpu;
mod goals;
mod plugin;
mod pods;
mod store;
mod table;

use std::num::NonZeroUsize;

use anyhow::{Context as _, Result};
use clap::Parser;
use manx_lab::{Kubelet, Lab};

use crate::bare::Bare;
use crate::cell::Cells;
use crate::cpu::Watched;
use crate::plugin::Plugin;
use crate::pods::Pods;
use crate::store::Datastore;

/// Measures ADD and DEL, one at a time and many at once. Needs root, `make build`, containernetworking-plugins, and for
/// Kubernetes `make kubernetes`.
#[derive(Parser)]
#[command(name = "bench-cni", version)]
struct Args {
    /// Where the agent keeps its objects.
    #[arg(long, value_enum, default_value_t = Datastore::File)]
    datastore: Datastore,
    /// Pods in each turn.
    #[arg(long, default_value = "64")]
    pods: NonZeroUsize,
    /// Turns of each plugin, for each number at once.
    #[arg(long, default_value = "5")]
    turns: NonZeroUsize,
    /// How many at once, beside one at a time.
    #[arg(long, default_value = "32")]
    at_once: NonZeroUsize,
}

/// A plugin, and who makes the objects of its pods.
type Contestant<'a> = (Plugin<'a>, Option<&'a Kubelet>);

fn main() -> Result<()> {
    let args = Args::parse();
    let mut cluster = args.datastore.cluster()?;
    // A node of its own, so that no agent watches what the others do.
    let other = store::one_node("other")?;
    let agent = cluster.agent("node1")?.pid().context("the agent has ended")?;
    let watched = Watched { agent, control_plane: cluster.control_plane().ok() };
    let kubelet = cluster.kubelet()?;
    let plugins = [
        (Plugin::manx(cluster.lab())?, Some(&kubelet)),
        (Plugin::dual_stack(cluster.lab())?, Some(&kubelet)),
        (Plugin::ptp(&other)?, None),
    ];
    for (index, (plugin, kubelet)) in plugins.iter().enumerate() {
        store::warm_up(plugin, *kubelet, &format!("warm{index}"))?;
    }

    let bare = Bare::open(&other)?;
    let before = load()?;
    let mut tables = Vec::new();
    for at_once in [1, args.at_once.get()] {
        let mut cells = Cells::default();
        for turn in 0..args.turns.get() {
            let turn = format!("{at_once}x{turn}");
            compare(&mut cells, &plugins, &turn, at_once, args.pods.get(), watched)?;
            if at_once == 1 {
                alone(&mut cells, &bare, &plugins[0].0, &other, &turn, args.pods.get(), watched)?;
            }
        }
        tables.push((at_once, cells));
    }
    println!("{}", table::render(args.datastore, &tables));
    println!("load average before {before}, after {}", load()?);
    Ok(())
}

/// A turn of every plugin.
fn compare(
    cells: &mut Cells,
    plugins: &[Contestant<'_>],
    turn: &str,
    at_once: usize,
    count: usize,
    watched: Watched<'_>,
) -> Result<()> {
    for (index, (plugin, kubelet)) in plugins.iter().enumerate() {
        let pods = Pods::make(plugin.lab(), *kubelet, &format!("p{index}-{turn}"), count)?;
        for verb in ["ADD", "DEL"] {
            cells.measure(plugin.name(), verb, at_once, watched, &pods, |pod| plugin.call(verb, pod))?;
        }
        pods.remove()?;
    }
    Ok(())
}

/// A turn of the kernel alone, and of the plugin alone.
fn alone(
    cells: &mut Cells,
    bare: &Bare,
    plugin: &Plugin<'_>,
    lab: &Lab,
    turn: &str,
    count: usize,
    watched: Watched<'_>,
) -> Result<()> {
    let pods = Pods::make(lab, None, &format!("bare-{turn}"), count)?;
    cells.measure(bare::KERNEL, "ADD", 1, watched, &pods, |pod| bare.add(pod))?;
    cells.measure(bare::KERNEL, "DEL", 1, watched, &pods, |pod| bare.del(pod))?;
    cells.measure(bare::START, "VERSION", 1, watched, &pods, |pod| plugin.call("VERSION", pod))?;
    pods.remove()
}

/// Of 1, 5 and 15 minutes: what else the machine does.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}
