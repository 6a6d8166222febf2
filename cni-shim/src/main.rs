//! `manx-cni`, the CNI plugin of Manx: reads what the runtime gives it, asks the agent, prints the answer.

mod netns;
mod plugin;

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use manx_cni::environment::Environment;
use manx_cni::{CniVersion, Verb};
use serde_json::Value;

fn main() -> ExitCode {
    let environment = Environment(&|name| std::env::var_os(name));
    if let Ok(None) = environment.verb() {
        explain();
    }
    match plugin::run(&environment, &mut *stdin()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => print(&answer, ExitCode::SUCCESS),
        Err(failure) => print(&failure.error.render(failure.version), ExitCode::FAILURE),
    }
}

/// Stdin, or nothing where a person sits at it: nobody types a configuration.
fn stdin() -> Box<dyn Read> {
    if io::stdin().is_terminal() { Box::new(io::empty()) } else { Box::new(io::stdin()) }
}

/// Prints the one JSON text that the specification allows on stdout, in one write: the runtime is woken by each. If it cannot be printed the call has failed,
/// whatever was done: the runtime did not hear of it.
fn print(answer: &Value, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(format!("{answer:#}\n").as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// For the person who ran the plugin by hand; stderr is free for this. Where stderr is closed nobody reads it.
fn explain() {
    let _ = writeln!(
        io::stderr(),
        "manx-cni {} is a CNI plugin: a container runtime runs it, with CNI_COMMAND ({}) in its environment and the \
         network configuration on stdin. It hands the request to the manx agent of this node.\n\
         CNI versions: {}. To see it answer: CNI_COMMAND=VERSION manx-cni",
        env!("CARGO_PKG_VERSION"),
        Verb::ALL.map(Verb::as_str).join(", "),
        CniVersion::list(),
    );
}
