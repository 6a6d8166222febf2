//! `manx uninstall`: takes Manx off this node.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use manx_felix::{Kernel as _, Operation, TABLE, TUNNEL_DEVICE};
use manx_felix_linux::LinuxKernel;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cni_files::{Removed, Whole, remove};
use crate::uninstall::{Plan, decide};

/// How often `--stay` looks whether the last pod has gone.
const INTERVAL: Duration = Duration::from_secs(10);

/// Take Manx off this node, after its agent has been stopped
///
/// Its CNI configuration goes first, so that no new pod comes. What carries the packets of pods that still run stays, and
/// is named; run it again when they have gone. Routes and links of other programs are not touched, and neither are the
/// objects in Kubernetes.
#[derive(clap::Args)]
pub struct Args {
    /// Stay, and take the rest away when the last pod has gone, until asked to stop
    #[arg(long)]
    stay: bool,

    /// Where the agent's sockets were
    #[arg(long, env = "MANX_RUN_DIR", default_value = "/run/manx", value_name = "DIR")]
    run_dir: PathBuf,

    /// Where its state was
    #[arg(long, env = "MANX_STATE_DIR", default_value = "/var/lib/manx", value_name = "DIR")]
    state_dir: PathBuf,

    /// Where the container runtime looks for network configurations
    #[arg(long, env = "CNI_NET_DIR", default_value = "/etc/cni/net.d", value_name = "DIR")]
    net_dir: PathBuf,

    /// Where it looks for plugins
    #[arg(long, env = "CNI_BIN_DIR", default_value = "/opt/cni/bin", value_name = "DIR")]
    bin_dir: PathBuf,

    /// How the names of pods' host ends begin
    #[arg(long, env = "FELIX_INTERFACEPREFIX", default_value = "cali", value_name = "PREFIX")]
    prefix: String,
}

/// Exit code 0: everything is gone; 1: something is kept or failed, and is named.
pub fn run(args: Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let ended = runtime
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| runtime.block_on(serve(&args)));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("manx uninstall: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Args) -> Result<bool, String> {
    let no_signal = |error: io::Error| format!("cannot wait for signals: {error}");
    let mut stop = (
        signal(SignalKind::terminate()).map_err(no_signal)?,
        signal(SignalKind::interrupt()).map_err(no_signal)?,
    );
    let kernel = LinuxKernel::open().map_err(|error| error.to_string())?;
    let mut last = String::new();
    loop {
        let (clean, report) = once(args, &kernel).await?;
        if report != last {
            print!("{report}");
            last = report;
        }
        if !args.stay || stopped(&mut stop).await {
            return Ok(clean);
        }
    }
}

/// Waits for the next turn; whether it was asked to stop instead.
async fn stopped((terminate, interrupt): &mut (Signal, Signal)) -> bool {
    tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        () = tokio::time::sleep(INTERVAL) => false,
    }
}

/// Takes away what can go now; whether that was everything, and what there is to say.
async fn once(args: &Args, kernel: &LinuxKernel) -> Result<(bool, String), String> {
    if UnixStream::connect(args.run_dir.join("status.sock")).is_ok() {
        return Err("the agent of this node runs, and would undo it; stop it first".to_owned());
    }
    let plan = decide(&kernel.read().await.map_err(|error| error.to_string())?, &args.prefix);
    let whole = if plan.pods.is_empty() { Whole::Yes } else { Whole::PodsRemain };
    let mut removed = remove(&args.net_dir, &args.bin_dir, whole);
    let results = kernel.apply(plan.operations.clone()).await;
    removed.failed.extend(results.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    let mut table = false;
    if whole == Whole::Yes {
        table = take_table(kernel, &mut removed).await;
        forget(args, &mut removed);
    }
    Ok((whole == Whole::Yes && removed.failed.is_empty(), report(&plan, table, &removed)))
}

/// Removes our table, after the tunnel that it guards; whether there was one. Without nftables there is none.
async fn take_table(kernel: &LinuxKernel, removed: &mut Removed) -> bool {
    if kernel.ruleset().await.ok().flatten().is_none() {
        return false;
    }
    let written = kernel.write_ruleset(None).await;
    removed.failed.extend(written.as_ref().err().map(ToString::to_string));
    written.is_ok()
}

/// What the agent kept on this node for itself. A `file` datastore below the same directory is the cluster's, and stays.
fn forget(args: &Args, removed: &mut Removed) {
    for directory in [args.state_dir.join("cni-spool"), args.state_dir.join("remembered")] {
        note(removed, fs::remove_dir_all(&directory), directory);
    }
    for socket in ["cni.sock", "status.sock"].map(|name| args.run_dir.join(name)) {
        note(removed, fs::remove_file(&socket), socket);
    }
    for directory in [&args.run_dir, &args.state_dir] {
        remove_if_empty(directory);
    }
}

fn note(removed: &mut Removed, result: io::Result<()>, path: PathBuf) {
    match result {
        Ok(()) => removed.gone.push(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => removed.failed.push(format!("{}: {error}", path.display())),
    }
}

/// What others put there keeps it, and so does a mount.
fn remove_if_empty(directory: &Path) {
    let _ = fs::remove_dir(directory);
}

fn report(plan: &Plan, table: bool, removed: &Removed) -> String {
    let mut lines: Vec<String> =
        removed.gone.iter().map(|path| format!("removed {}", path.display())).collect();
    let routes = plan.operations.iter().filter(|operation| matches!(operation, Operation::DeleteRoute(_)));
    match routes.count() {
        0 => {}
        count => lines.push(format!("routes removed: {count}")),
    }
    if plan.operations.contains(&Operation::TunnelDown) {
        lines.push(format!("set {TUNNEL_DEVICE} down, without an address"));
    }
    if table {
        lines.push(format!("removed the nftables table ip {TABLE}"));
    }
    lines.extend(removed.failed.iter().map(|failure| format!("FAILED {failure}")));
    if !plan.pods.is_empty() {
        let (count, pods) = (plan.kept_routes, plan.pods.join(" "));
        lines.push(format!(
            "kept for pods that still run: {count} routes, the nftables table, the plugin, and {pods}"
        ));
    }
    if lines.is_empty() {
        lines.push("Nothing of Manx is left on this node".to_owned());
    }
    lines.join("\n") + "\n"
}
