//! `manx connectivity`: what `helm test` runs in pods.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use crate::connectivity::survey::{Plan, survey_all};
use crate::connectivity::{Place, list, page, server, verdict};

/// Check that pods reach each other, a service, DNS and the API server: what `helm test` runs in pods
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be reached, and say what is reached from here
    Serve(Targets),
    /// Reach out from here and from every pod that serves; a line a check
    Check {
        #[command(flatten)]
        targets: Targets,

        /// For how long pods that serve are waited for
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },
}

#[derive(clap::Args)]
struct Targets {
    /// The name of the headless service that has the addresses of the pods that serve
    #[arg(long, value_name = "NAME")]
    peers: String,

    /// How many serve
    #[arg(long, value_name = "NUMBER")]
    pods: usize,

    /// The name of the service, with an address, behind which they are
    #[arg(long, value_name = "NAME")]
    service: String,

    /// The port of both
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// The certificate by which the API server is known
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes-root/ca.crt")]
    root: PathBuf,

    /// The name of this pod's node
    #[arg(long, env = "NODENAME", value_name = "NAME", default_value = "this node")]
    nodename: String,

    /// This pod's name
    #[arg(long, env = "HOSTNAME", value_name = "NAME", default_value = "this pod")]
    pod: String,

    /// This pod's address
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pod_ip: Option<IpAddr>,
}

impl Targets {
    fn plan(self) -> Plan {
        // Kubernetes tells a pod of the services of its namespace, and of the API server's, in its environment.
        let service_variable = variable(&self.service);
        let address = std::env::var(service_variable).ok().and_then(|text| text.parse().ok());
        let api_server = std::env::var("KUBERNETES_SERVICE_HOST").ok().map(|host| {
            let port = std::env::var("KUBERNETES_SERVICE_PORT").ok().and_then(|text| text.parse().ok());
            (host, port.unwrap_or(443))
        });
        Plan {
            here: Place { node: self.nodename, pod: self.pod },
            own: self.pod_ip,
            peers: self.peers,
            pods: self.pods,
            service: self.service,
            service_address: address,
            port: self.port,
            api_server,
            root: self.root,
            nameservers: nameservers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        }
    }
}

/// Exit code 0: everything is reached; 1: something is not, or cannot be tried.
pub fn run(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    let ended = match args.command {
        Command::Serve(targets) => runtime.block_on(serve(targets.plan())),
        Command::Check { targets, wait } => {
            runtime.block_on(check(&targets.plan(), Duration::from_secs(wait)))
        }
    };
    // A name may still be looked up, for longer than anybody wants to know.
    runtime.shutdown_background();
    ended
}

async fn serve(plan: Plan) -> ExitCode {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return complain(&format!("cannot wait for a signal: {error}")),
    };
    let listener = match server::listen(&plan).await {
        Ok(listener) => listener,
        Err(error) => return complain(&format!("cannot listen on port {}: {error}", plan.port)),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        () = server::serve(listener, plan) => {}
    }
    ExitCode::SUCCESS
}

async fn check(plan: &Plan, wait: Duration) -> ExitCode {
    let (findings, places) = survey_all(plan, wait).await;
    print!("{}", page(&findings));
    let (good, words) = verdict(&findings, &places);
    println!("\n{words}");
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The variable in which a pod has the address of a service: `MANX_TEST_SERVICE_HOST` of `manx-test.kube-system.svc`.
fn variable(service: &str) -> String {
    let name = service.split('.').next().unwrap_or_default();
    format!("{}_SERVICE_HOST", name.to_uppercase().replace('-', "_"))
}

/// The nameservers of a resolv.conf, for people.
fn nameservers(text: &str) -> String {
    let found: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .collect();
    match found[..] {
        [] => "/etc/resolv.conf names no nameserver, and 127.0.0.1".to_owned(),
        _ => format!("nameserver {}", list(&found)),
    }
}

fn complain(error: &str) -> ExitCode {
    eprintln!("manx connectivity: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_service_is_in_the_variable_that_kubernetes_sets() {
        assert_eq!(variable("manx-test.kube-system.svc"), "MANX_TEST_SERVICE_HOST");
    }

    #[test]
    fn the_nameservers_that_were_asked_are_named() {
        let text = "search default.svc.cluster.local\nnameserver 10.96.0.10\nnameserver  10.96.0.11\noptions ndots:5\n";
        assert_eq!(nameservers(text), "nameserver 10.96.0.10, 10.96.0.11");
        assert!(nameservers("").contains("no nameserver"));
    }
}
