//! `manx uninstall`: a node without Manx.

use std::path::PathBuf;
use std::process::ExitCode;

use manx_felix::{Kernel, Operation, Snapshot, TABLE};
use manx_felix_linux::LinuxKernel;

use crate::status::ask;

/// Take away what agents left in this node's kernel: their routes, tunl0's address, and the nftables table
///
/// Pods that still run lose their network. Nothing of another program is touched, and nothing in the datastore. The agent
/// must have been stopped, or it would write everything again.
#[derive(clap::Args)]
pub struct Args {
    /// Where the agent's sockets are
    #[arg(long, env = "MANX_RUN_DIR", default_value = "/run/manx", value_name = "DIR")]
    run_dir: PathBuf,
}

/// Exit code 0: nothing of ours is left; 1: not everything could be taken away.
pub fn run(args: Args) -> ExitCode {
    match uninstall(args) {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("manx uninstall: {error}");
            ExitCode::FAILURE
        }
    }
}

fn uninstall(args: Args) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        if ask(&args.run_dir.join("status.sock")).await.is_ok() {
            return Err(
                "the agent of this node runs: stop it first, or it would write everything again".into()
            );
        }
        let kernel = LinuxKernel::open().map_err(|error| error.to_string())?;
        take_away(&kernel).await
    })
}

/// The table goes last: while there is a tunnel, it is guarded.
async fn take_away(kernel: &dyn Kernel) -> Result<String, String> {
    let snapshot = kernel.read().await.map_err(|error| error.to_string())?;
    // Without nftables there is no table.
    let table = kernel.ruleset().await.ok().flatten();
    let routes = routes(&snapshot);
    if routes.is_empty() && table.is_none() {
        return Ok("Nothing of Manx is in this kernel.".to_owned());
    }
    let count = routes.len();
    let operations = routes.into_iter().chain([Operation::TunnelDown]).collect();
    let answers = kernel.apply(operations).await;
    let mut failures: Vec<String> =
        answers.into_iter().filter_map(|answer| answer.err().map(|error| error.to_string())).collect();
    if table.is_some() {
        failures.extend(kernel.write_ruleset(None).await.err().map(|error| error.to_string()));
    }
    match failures.is_empty() {
        true => Ok(format!("{count} routes and the nftables table {TABLE} are gone; tunl0 has no address.")),
        false => Err(failures.join("\n")),
    }
}

fn routes(snapshot: &Snapshot) -> Vec<Operation> {
    snapshot.ours().cloned().map(Operation::DeleteRoute).collect()
}
