//! `manx crds`: the definitions of Calico's objects, for a cluster that has none.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use manx_datastore_kube::{KubeStore, Options, crd, install_crds};
use manx_model::Kind;

/// Print the CustomResourceDefinitions of the objects that Manx works with, or install those that are absent
///
/// Printed, they are one manifest for `kubectl apply`. Definitions that a cluster has already (Calico's, say) serve as
/// well, and are never changed.
#[derive(clap::Args)]
pub struct Args {
    /// Install those that are absent, and name them
    #[arg(long)]
    install: bool,

    /// How to reach the API server
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Exit code 0: done; 1: not.
pub fn run(args: Args) -> ExitCode {
    let done = match args.install {
        true => install(args.kubeconfig),
        false => print(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manx crds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print() -> Result<(), String> {
    let manifests: Vec<&str> = Kind::ALL.into_iter().filter_map(crd).map(str::trim_end).collect();
    match io::stdout().write_all((manifests.join("\n---\n") + "\n").as_bytes()) {
        // A reader like `head` has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn install(kubeconfig: Option<PathBuf>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let installed = runtime.block_on(async {
        let store = KubeStore::connect(Options { kubeconfig, ..Options::default() }).await?;
        install_crds(&store).await
    });
    match installed.map_err(|error| error.to_string())?.as_slice() {
        [] => println!("All definitions were there already; nothing was changed."),
        kinds => kinds.iter().for_each(|kind| println!("installed {}.{}", kind.plural(), kind.group())),
    }
    Ok(())
}
