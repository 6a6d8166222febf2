//! The program `lab`: raise a small cluster in network namespaces, look around in it, take it down.

mod conformance;
mod demo;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use manx_lab::{Fabric, Lab, Options, Swept, Topology, netns};

/// The name of a lab that was given none.
const DEFAULT: &str = "manx";

/// Small clusters in network namespaces: nodes, a ToR router with BIRD, a host outside, pods.
///
/// Nothing is added to this machine's own network namespace. Needs root.
#[derive(Parser)]
#[command(name = "lab", version)]
struct Args {
    /// The lab's name, the prefix of its namespaces.
    #[arg(long, global = true, default_value = DEFAULT, env = "LAB")]
    lab: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Raise a lab and leave it up.
    Up {
        /// What lies between the nodes.
        #[arg(long, value_enum, default_value_t = Between::Bird)]
        fabric: Between,
        /// Only these nodes of the founding four, for instance `--nodes node1,node3`.
        #[arg(long, value_delimiter = ',')]
        nodes: Vec<String>,
    },
    /// Take the lab down: processes, namespaces, files.
    Down {
        /// Take down every lab that no living process owns: leftovers, and those that were left up.
        #[arg(long)]
        all: bool,
        /// Take down only the leftovers of processes that are dead, such as a test that was killed.
        #[arg(long, conflicts_with = "all")]
        dead: bool,
    },
    /// Show the nodes, their processes, pods and BGP sessions with the ToR.
    Status,
    /// List the labs that are up.
    List,
    /// Play the demo: the story of a ping, inside IP-in-IP and bare.
    Demo {
        /// Keep the cluster's objects in Kubernetes: needs the programs that `make kubernetes` builds.
        #[arg(long)]
        kubernetes: bool,
        /// Leave the cluster up.
        #[arg(long)]
        keep: bool,
    },
    /// A real Kubernetes, with a real kubelet and containerd on each node, and Manx installed in it by Helm: needs what
    /// `make cluster` builds. The name is `cluster` unless --lab says another.
    Cluster {
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// A shell in the namespace of a node, a pod, `tor` or `outside`.
    Shell {
        /// For instance `node1`.
        namespace: String,
    },
    /// Run a command in a namespace, for instance `lab exec node1 ip route`.
    Exec {
        /// A node, a pod, `tor` or `outside`.
        namespace: String,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ClusterVerb {
    /// Raise it and leave it up; `lab --lab cluster down` takes it down.
    Up {
        /// With no network: nodes stay NotReady until you install one.
        #[arg(long)]
        empty: bool,
    },
    /// Tell how `helm install` makes a network, and what it is good for.
    Demo {
        /// Leave the cluster up.
        #[arg(long)]
        keep: bool,
    },
    /// Run the upstream end-to-end tests against it and print a table.
    Conformance(conformance::Args),
}

#[derive(Clone, Copy, ValueEnum)]
enum Between {
    /// A bridge per subnet and nothing that routes (without the host outside).
    Switch,
    /// A router without BGP.
    Router,
    /// A router with BIRD 2, AS 65000.
    Bird,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.verb {
        Verb::Up { fabric, nodes } => up(args.lab, fabric, &nodes),
        Verb::Down { all, dead } if all || dead => sweep(all),
        Verb::Down { .. } => down(&args.lab),
        Verb::Status => Lab::open(&args.lab).and_then(|lab| status(&lab)),
        Verb::List => list(),
        Verb::Demo { kubernetes, keep } => demo::run(args.lab, keep, kubernetes),
        Verb::Cluster { verb } => cluster(args.lab, verb),
        Verb::Shell { namespace } => Lab::open(&args.lab).and_then(|lab| shell(&lab, &namespace)),
        Verb::Exec { namespace, command } => {
            Lab::open(&args.lab).and_then(|lab| become_command(&lab, &namespace, &command))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cluster(lab: String, verb: ClusterVerb) -> Result<()> {
    let name = if lab == DEFAULT { "cluster".to_owned() } else { lab };
    match verb {
        ClusterVerb::Up { empty } => demo::cluster::up(name, empty),
        ClusterVerb::Demo { keep } => demo::cluster::run(name, keep),
        ClusterVerb::Conformance(args) => conformance::run(name, &args),
    }
}

fn up(name: String, between: Between, nodes: &[String]) -> Result<()> {
    let fabric = match between {
        Between::Switch => Fabric::Switch,
        Between::Router => Fabric::Router,
        Between::Bird => Fabric::Bird,
    };
    let mut topology = Topology::founding().fabric(fabric);
    topology.outside = topology.routes();
    if !topology.routes() {
        topology = topology.each_node(|node| node.default_route = false);
    }
    if let Some(stranger) = nodes.iter().find(|name| topology.nodes.iter().all(|node| node.name != **name)) {
        let known: Vec<&str> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
        bail!("--nodes: there is no {stranger}; the nodes are {}", known.join(", "));
    }
    if !nodes.is_empty() {
        topology = topology.keeping(&nodes.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let lab = Lab::up(Options { name, topology })?;
    status(&lab)?;
    lab.keep()
}

fn down(name: &str) -> Result<()> {
    Lab::open(name)?.down()?;
    println!("{name}: removed");
    Ok(())
}

fn sweep(kept: bool) -> Result<()> {
    for swept in Lab::sweep(kept)? {
        match swept {
            Swept::Removed(name) => println!("{name}: removed"),
            Swept::Kept(name) => println!("{name}: kept"),
            Swept::InUse(name, pid) => println!("{name}: left alone, process {pid} uses it"),
        }
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut rows = vec![["LAB".to_owned(), "OWNER".to_owned()]];
    for (name, owner) in Lab::list() {
        rows.push([name, owner.map_or_else(|| "none".to_owned(), |pid| format!("process {pid}"))]);
    }
    print_table(&rows);
    Ok(())
}

fn status(lab: &Lab) -> Result<()> {
    let pods = lab.pods()?;
    let mut rows =
        vec![["NODE", "NAMESPACE", "ADDRESS", "PROCESSES", "PODS", "TOR SESSION"].map(str::to_owned)];
    for node in lab.nodes() {
        let count = pods.iter().filter(|pod| pod.node == node.name()).count();
        let session = match lab.topology().fabric {
            Fabric::Bird => lab.bird_session(node.name()).unwrap_or_else(|_| "BIRD is away".to_owned()),
            Fabric::Switch | Fabric::Router => "-".to_owned(),
        };
        let processes = netns::pids(&node.netns()).len();
        let address = node.address().to_string();
        rows.push([
            node.name().to_owned(),
            node.netns(),
            address,
            processes.to_string(),
            count.to_string(),
            session,
        ]);
    }
    print_table(&rows);
    if !pods.is_empty() {
        println!();
        let mut rows = vec![["POD", "NAMESPACE", "NODE", "ADDRESS"].map(str::to_owned)];
        for pod in pods {
            rows.push([
                format!("{}/{}", pod.namespace, pod.name),
                lab.netns(&pod.name),
                pod.node,
                pod.address.to_string(),
            ]);
        }
        print_table(&rows);
    }
    println!("\nfiles: {}", lab.dir().display());
    Ok(())
}

fn shell(lab: &Lab, namespace: &str) -> Result<()> {
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    println!("You are in {}; leave with `exit`.", lab.netns(namespace));
    become_command(lab, namespace, &[shell])
}

/// Turns this process into the command, inside the namespace.
fn become_command(lab: &Lab, namespace: &str, command: &[String]) -> Result<()> {
    let netns = lab.netns(namespace);
    if !netns::exists(&netns) {
        let prefix = format!("{}-", lab.name());
        let known: Vec<String> =
            netns::with_prefix(&prefix).iter().map(|name| name[prefix.len()..].to_owned()).collect();
        bail!("lab {} has no {namespace}; it has {}", lab.name(), known.join(", "));
    }
    let (program, args) = command.split_first().context("an empty command")?;
    netns::enter(&netns)?;
    let error = Command::new(program).args(args).env("LAB_NAMESPACE", &netns).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

fn print_table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
