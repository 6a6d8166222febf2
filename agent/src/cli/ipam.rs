//! `manx ipam`: who holds which address, what is wrong with it, and how to mend that. Works on the datastore itself: no
//! agent need run.

mod text;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Subcommand;
use manx_datastore::Datastore;
use manx_ipam::{DEFAULT_GRACE, check, fix, release_address, split, usage};

use crate::census::{Census, ipam_config};
use crate::cli::store;
use crate::config::{DatastoreChoice, datastore};

/// Show, check and mend who holds which address
///
/// Works on the datastore itself, so that it can be run wherever that can be reached; no agent need run.
#[derive(clap::Args)]
pub struct Args {
    /// Where the cluster's objects are: kubernetes or file:DIR
    #[arg(long, global = true, env = "MANX_DATASTORE", value_name = "STORE", default_value = "kubernetes")]
    datastore: String,

    /// How to reach Kubernetes
    #[arg(long, global = true, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show pools, blocks, and who holds what
    Show {
        /// The blocks of each pool, too
        #[arg(long)]
        blocks: bool,

        /// Every address that is held, and by whom
        #[arg(long)]
        addresses: bool,

        /// What is known of this address
        #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["blocks", "addresses"])]
        ip: Option<IpAddr>,
    },

    /// Look for leaks, double holders, and what points to nothing; exit code 1 when something is wrong
    Check {
        /// Mend what is certainly wrong
        #[arg(long)]
        fix: bool,
    },

    /// Give back an address that nobody uses, whoever holds it
    ///
    /// Of an address that a pod still uses another pod may be given the same: look first (`manx ipam show --ip`).
    Release {
        /// The address
        address: IpAddr,

        /// Only if this handle holds it
        #[arg(long, value_name = "HANDLE")]
        handle: Option<String>,
    },

    /// Split a disabled pool into equal parts, each a pool of its own; its blocks stay as they are
    Split {
        /// The pool's name
        pool: String,

        /// How many parts: 2, 4, 8, …
        parts: u32,
    },
}

/// Exit code 0: done, and nothing is wrong; 1: something is wrong, or it could not be done.
pub fn run(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    match runtime.block_on(execute(args)) {
        Ok((page, code)) => {
            print!("{page}");
            code
        }
        Err(error) => complain(&error),
    }
}

/// What to print, and how to end.
type Page = (String, ExitCode);

async fn execute(args: Args) -> Result<Page, String> {
    let choice = match datastore(&args.datastore)? {
        DatastoreChoice::Kubernetes { .. } => DatastoreChoice::Kubernetes { kubeconfig: args.kubeconfig },
        DatastoreChoice::Memory => return Err("the datastore in memory is gone with its agent".into()),
        file @ DatastoreChoice::File(_) => file,
    };
    let store = store::open(&choice, "manx ipam").await?;
    match args.command {
        Command::Show { blocks, addresses, ip } => show(&*store, blocks, addresses, ip).await,
        Command::Check { fix } => check_all(store, choice.is_kubernetes(), fix).await,
        Command::Release { address, handle } => release(&*store, address, handle.as_deref()).await,
        Command::Split { pool, parts } => {
            let names = split(&*store, &pool, parts).await.map_err(|error| error.to_string())?;
            Ok((format!("IPPool {pool} is now {}.\n", names.join(", ")), ExitCode::SUCCESS))
        }
    }
}

async fn show(
    store: &dyn Datastore,
    blocks: bool,
    addresses: bool,
    ip: Option<IpAddr>,
) -> Result<Page, String> {
    let census = Census::take(store).await.map_err(|error| error.to_string())?;
    let usage = usage(&census.pools, census.blocks());
    let page = match ip {
        Some(address) => text::address(&usage, address),
        None => text::pools(&usage) + &text::blocks(&usage, blocks) + &text::holders(&usage, addresses),
    };
    Ok((page, ExitCode::SUCCESS))
}

async fn check_all(store: Arc<dyn Datastore>, kubernetes: bool, mend: bool) -> Result<Page, String> {
    if !kubernetes {
        return Err("which pods exist is known to Kubernetes only: without it nothing can be judged".into());
    }
    let census = Census::take(&*store).await.map_err(|error| error.to_string())?;
    let config = ipam_config(&*store).await.map_err(|error| error.to_string())?;
    let problems = check(census.observed(), DEFAULT_GRACE, SystemTime::now());
    let (mut page, mut left) = (String::new(), problems.len());
    for problem in &problems {
        let done = match (&problem.fix, mend) {
            (None, _) => "for a person, or for time, to decide".to_owned(),
            (Some(_), false) => "--fix mends it".to_owned(),
            (Some(how), true) => match fix(&*store, SystemTime::now(), &config, how).await {
                Ok(true) => {
                    left -= 1;
                    "mended".to_owned()
                }
                Ok(false) => "it has changed meanwhile: check again".to_owned(),
                Err(error) => format!("not mended: {error}"),
            },
        };
        page += &format!("{}\n    {done}\n", problem.what);
    }
    for invalid in &census.unreadable {
        page += &format!("{invalid}\n    for a person to decide\n");
    }
    page += &text::verdict(problems.len() + census.unreadable.len(), left + census.unreadable.len());
    let code = if left + census.unreadable.len() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok((page, code))
}

async fn release(store: &dyn Datastore, address: IpAddr, handle: Option<&str>) -> Result<Page, String> {
    let census = Census::take(store).await.map_err(|error| error.to_string())?;
    let config = ipam_config(store).await.map_err(|error| error.to_string())?;
    let now = SystemTime::now();
    let released = release_address(store, now, &config, &census.pools, address, handle).await;
    Ok(match released.map_err(|error| error.to_string())? {
        Some(handle) if handle.is_empty() => {
            (format!("{address} is free; it had no handle.\n"), ExitCode::SUCCESS)
        }
        Some(handle) => (format!("{address} is free; {handle} held it.\n"), ExitCode::SUCCESS),
        None => (format!("Nobody{} holds {address}.\n", of(handle)), ExitCode::FAILURE),
    })
}

fn of(handle: Option<&str>) -> String {
    handle.map(|handle| format!(" called {handle}")).unwrap_or_default()
}

fn complain(error: &str) -> ExitCode {
    eprintln!("manx ipam: {error}");
    ExitCode::FAILURE
}
