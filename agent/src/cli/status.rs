//! `manx status`: asks the agent of this node.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::status::{Status, ask, render};

/// Show what the agent of this node knows, does and complains about
#[derive(clap::Args)]
pub struct Args {
    /// Where the agent's sockets are
    #[arg(long, env = "MANX_RUN_DIR", default_value = "/run/manx", value_name = "DIR")]
    run_dir: PathBuf,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Only whether it answers, ready or not: for a liveness probe
    #[arg(long)]
    alive: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Exit code 0: the agent is ready, or `--alive` and it answers; 1: it is not, or does not answer.
pub fn run(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    match runtime.block_on(ask(&args.run_dir.join("status.sock"))) {
        Ok(_) if args.alive => ExitCode::SUCCESS,
        Ok(status) => show(&status, args.output),
        Err(error) => complain(&error),
    }
}

fn show(status: &Status, output: Output) -> ExitCode {
    let page = match output {
        Output::Text => render(status),
        Output::Json => serde_json::to_string_pretty(status).expect("a status serializes") + "\n",
    };
    match io::stdout().write_all(page.as_bytes()) {
        // A reader like `head` has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => complain(&error.to_string()),
        _ if status.ready => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn complain(error: &str) -> ExitCode {
    eprintln!("manx status: {error}");
    ExitCode::FAILURE
}
