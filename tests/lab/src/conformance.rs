//! `lab cluster conformance`: the upstream end-to-end suite of Kubernetes as a judge, over Manx or, to see what the cluster
//! itself is worth, over Debian's ptp plugin with static routes.

mod report;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use manx_lab::{
    KubeCluster, Lab, Options, Topology, kubernetes_image, kubernetes_program, manx_image, netns,
};

const NODES: [&str; 2] = ["node1", "node3"];
/// Every image under a name that `tests/kubernetes/images/build` gives it (KUBE_TEST_REPO_LIST).
const REGISTRIES: &str = "\
promoterE2eRegistry: localhost/e2e
buildImageRegistry: localhost/e2e
gcRegistry: localhost/e2e
";

/// How the suite is to be run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Over which network.
    #[arg(long, value_enum, default_value_t = Network::Manx)]
    network: Network,
    /// A regular expression: which tests.
    #[arg(long, default_value = r"\[sig-network\].*\[Conformance\]")]
    focus: String,
    /// A regular expression: which of them not.
    #[arg(long, default_value = "")]
    skip: String,
    /// How often.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Add to the table that earlier runs over the same network left, if any did, rather than begin a new one.
    #[arg(long)]
    add: bool,
    /// Compare with the table that an earlier run over another network left: its name, as `ptp`.
    #[arg(long, value_enum)]
    compare: Option<Network>,
}

/// What connects the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// The chart and the image of this tree.
    Manx,
    /// Debian's ptp plugin, and static routes in the ToR.
    Ptp,
}

impl Network {
    fn name(self) -> &'static str {
        match self {
            Network::Manx => "manx",
            Network::Ptp => "ptp",
        }
    }
}

/// Runs it; an error if a test failed, or passes over the other network only.
pub(crate) fn run(name: String, args: &Args) -> Result<()> {
    let folder = manx_lab::target_dir().join("conformance");
    fs::create_dir_all(&folder)?;
    let file = |network: Network| folder.join(format!("{}.json", network.name()));
    let theirs = match args.compare {
        Some(other) => Some((read(&file(other), other)?, other.name())),
        None => None,
    };
    let mut table = match file(args.network) {
        earlier if args.add && earlier.exists() => read(&earlier, args.network)?,
        _ => report::Table::default(),
    };
    let suite = kubernetes_program("e2e.test")?;
    let images = [kubernetes_image("agnhost")?, manx_image()?];
    let topology = Topology::founding().keeping(&NODES);
    let cluster = KubeCluster::start(Lab::up(Options { name, topology })?, &NODES, &images)?;
    match args.network {
        Network::Manx => drop(cluster.install()?),
        Network::Ptp => cluster.install_ptp()?,
    }
    cluster.wait_ready()?;
    cluster.wait_rolled_out("kube-system", "deployment/coredns")?;
    for run in 1..=args.runs {
        println!("Run {run} of {} over {}: {}", args.runs, args.network.name(), args.focus);
        table.add(&once(&cluster, &suite, args, &folder)?);
        fs::write(file(args.network), serde_json::to_string_pretty(&table)?)?;
    }
    print!("{table}");
    if let Some((theirs, other)) = theirs {
        println!("\n{}", table.beside(args.network.name(), &theirs, other));
    }
    ensure!(table.tests() > 0, "no test matches {}", args.focus);
    match table.failed() {
        0 => Ok(()),
        failed => {
            bail!("{failed} of {} tests failed; the suite's output is in {}", table.tests(), folder.display())
        }
    }
}

/// The table that an earlier run left.
fn read(path: &Path, network: Network) -> Result<report::Table> {
    let text = fs::read_to_string(path).with_context(|| {
        format!("{} is not there; run it with --network {}", path.display(), network.name())
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is no table; delete it", path.display()))
}

fn once(cluster: &KubeCluster, suite: &Path, args: &Args, folder: &Path) -> Result<String> {
    let registries = folder.join("registries.yaml");
    fs::write(&registries, REGISTRIES)?;
    let (report, log) = (folder.join("report.json"), folder.join(format!("{}.log", args.network.name())));
    let output = fs::File::create(&log)?;
    let mut command = Command::new(suite);
    command
        .env("KUBE_TEST_REPO_LIST", &registries)
        .arg(format!("--kubeconfig={}", cluster.control_plane().kubeconfig("admin")?.display()))
        .args(["--provider=local", "--node-os-distro=custom", "--allowed-not-ready-nodes=0"])
        .arg(format!("--ginkgo.focus={}", args.focus))
        .arg(format!("--ginkgo.skip={}", args.skip))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .args(["--ginkgo.timeout=1h", "--ginkgo.no-color", "--ginkgo.silence-skips", "--ginkgo.v"])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut running = netns::within(&cluster.lab().netns("outside"), || command.spawn())?
        .with_context(|| format!("cannot run {}", suite.display()))?;
    let mut told = 0;
    let limit = Duration::from_secs(3600);
    manx_lab::eventually(limit, "the end-to-end suite to end", || {
        told = progress(&log, told);
        running.try_wait()?.context("it still runs")
    })?;
    progress(&log, told);
    fs::read_to_string(&report).with_context(|| format!("the suite wrote no report; see {}", log.display()))
}

/// Tells which tests have ended since; how many have.
fn progress(log: &Path, told: usize) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    let ended = report::ended(&text);
    for (index, line) in ended.iter().enumerate().skip(told) {
        println!("  {} {line}", index + 1);
    }
    ended.len()
}
