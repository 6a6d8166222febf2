//! `manx agent`: the agent of a node.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use manx_bgp_driver::Tcp;
use manx_felix_linux::LinuxKernel;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::agent::{Agent, Doors};
use crate::cli::store;
use crate::cni_files::Installer;
use crate::cni_server::{CniServer, listen};
use crate::config::{Config, Settings};
use crate::listening;
use crate::status;

/// The configuration is wrong: nothing was started, and nothing in the kernel was touched.
const EXIT_CONFIG: u8 = 2;

/// Run the agent of this node
///
/// Every option is another spelling of an environment variable, and wins over it. The variables are those of
/// calico-node, with its values and defaults; `manx status` lists those that have no effect yet.
#[derive(clap::Args)]
pub struct Args {
    /// This node's name (NODENAME; default: the value of HOSTNAME)
    #[arg(long, value_name = "NAME")]
    nodename: Option<String>,

    /// This node's address: autodetect, 10.0.0.5 or 10.0.0.5/24 (IP; default: autodetect)
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,

    /// The default pool: a CIDR or none (CALICO_IPV4POOL_CIDR; default: 192.168.0.0/16)
    #[arg(long, value_name = "CIDR")]
    pool_cidr: Option<String>,

    /// Prefix length of the default pool's blocks, 20 to 32 (CALICO_IPV4POOL_BLOCK_SIZE; default: 26)
    #[arg(long, value_name = "LENGTH")]
    block_size: Option<String>,

    /// When packets travel inside IP-in-IP: Always, CrossSubnet, Never or off (CALICO_IPV4POOL_IPIP; default: Never)
    #[arg(long, value_name = "MODE")]
    ipip: Option<String>,

    /// Who carries routes between nodes: bird (the built-in BGP speaker) or none (CALICO_NETWORKING_BACKEND)
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,

    /// This node's AS number (AS; default: the cluster's)
    #[arg(long = "as", value_name = "NUMBER")]
    asn: Option<String>,

    /// Where the cluster's objects are: kubernetes, file:DIR or memory (MANX_DATASTORE; default: file:/var/lib/manx/datastore)
    #[arg(long, value_name = "STORE")]
    datastore: Option<String>,

    /// Where the sockets are (MANX_RUN_DIR; default: /run/manx)
    #[arg(long, value_name = "DIR")]
    run_dir: Option<String>,

    /// Where what survives a reboot is (MANX_STATE_DIR; default: /var/lib/manx)
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,

    /// Orders configurations: a lower revision never overwrites a higher (MANX_CONFIG_REVISION; default: 0)
    #[arg(long, value_name = "NUMBER")]
    config_revision: Option<String>,
}

impl Args {
    fn settings(self) -> Settings {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut settings = Settings::from_environment(environment);
        let flags = [
            ("NODENAME", "--nodename", self.nodename),
            ("IP", "--ip", self.ip),
            ("CALICO_IPV4POOL_CIDR", "--pool-cidr", self.pool_cidr),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "--block-size", self.block_size),
            ("CALICO_IPV4POOL_IPIP", "--ipip", self.ipip),
            ("CALICO_NETWORKING_BACKEND", "--backend", self.backend),
            ("AS", "--as", self.asn),
            ("MANX_DATASTORE", "--datastore", self.datastore),
            ("MANX_RUN_DIR", "--run-dir", self.run_dir),
            ("MANX_STATE_DIR", "--state-dir", self.state_dir),
            ("MANX_CONFIG_REVISION", "--config-revision", self.config_revision),
        ];
        for (variable, flag, value) in flags {
            if let Some(value) = value {
                settings.set_flag(variable, flag, value);
            }
        }
        settings
    }
}

/// Exit code 0: asked to stop; 1: failed; 2: the configuration is wrong.
pub fn run(args: Args) -> ExitCode {
    let settings = args.settings();
    let log = settings.get("MANX_LOG").unwrap_or("info").to_owned();
    let config = match (Config::read(&settings), EnvFilter::try_new(&log)) {
        (Ok(config), Ok(filter)) => {
            let ansi = std::io::stderr().is_terminal();
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(ansi)
                .with_writer(std::io::stderr)
                .init();
            Arc::new(config)
        }
        (Err(error), _) => {
            eprintln!("manx agent: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
        (_, Err(error)) => {
            eprintln!(
                "manx agent: the configuration is wrong:\n  MANX_LOG={log}: {error}; as info, debug or manx=debug"
            );
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(serve(config));
    // A thread may be waiting for a lock that another agent holds; it has nothing to finish.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Arc<Config>) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let doors = open_doors(&config).await?;
    let cni = open_socket(&config.cni_socket())?;
    let questions = open_socket(&config.status_socket())?;
    let mut agent = Agent::start(Arc::clone(&config), doors);

    let mut servers = JoinSet::new();
    let server = Arc::new(CniServer {
        pods: agent.pods.clone(),
        not_ready: agent.not_ready.clone(),
        spool: config.spool(),
        metrics: agent.view.metrics(),
    });
    servers.spawn(Arc::clone(&server).run(cni));
    servers.spawn(server.keep_draining());
    let view = agent.view.clone();
    let source: status::Source = Arc::new(move || {
        let view = view.clone();
        Box::pin(async move { view.status().await })
    });
    servers.spawn(status::serve(questions, source));
    let problems = agent.view.standing();
    servers.spawn(listening::keep(config.felix.clone(), agent.view.clone(), problems.clone()));
    if let Some(installer) = Installer::of(&config) {
        servers.spawn(installer.keep(agent.not_ready.clone(), problems));
    }

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failure = agent.failed() => Err(failure),
    };
    servers.shutdown().await;
    tracing::info!("stopping; the kernel keeps forwarding, and peers are asked to keep our routes");
    agent.stop().await;
    ended
}

fn open_socket(path: &std::path::Path) -> Result<tokio::net::UnixListener, String> {
    listen(path).map_err(|error| format!("cannot listen on {}: {error}", path.display()))
}

async fn open_doors(config: &Config) -> Result<Doors, String> {
    let kernel = LinuxKernel::open().map_err(|error| error.to_string())?;
    Ok(Doors {
        store: store::open_remembering(config).await?,
        kernel: Arc::new(kernel),
        transport: Arc::new(Tcp),
        wall_clock: SystemTime::now,
        seed: seed(),
    })
}

/// Different on every start and node; nothing secret depends on it.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}
