//! The API server and its etcd: start, questions, outages, end.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use manx_ground::eventually;
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::folder::Folder;
use crate::http::Client;
use crate::options::Endpoints;
use crate::tool::Tool;
use crate::users::{ADMIN, TOKENS, Users};
use crate::{Audit, Options, audit, controllers, pki};

/// A start takes two to four seconds; machines that build at the same time have taken many times that.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running control plane. It goes away with the value, and with the process if that is killed.
#[derive(Debug)]
pub struct ControlPlane {
    // In the order in which they are to end: first who asks, then who is asked, then their files.
    controllers: Vec<Daemon>,
    api_server: Daemon,
    etcd: Daemon,
    folder: Folder,
    address: SocketAddr,
    users: Users,
    client: Client,
    kubectl: Tool,
    helm: Option<Tool>,
    audit: Audit,
    outlives: bool,
}

/// Processor time, of all threads in user and kernel mode, to a hundredth of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Of kube-apiserver since it was started, or started again.
    pub api_server: Duration,
    /// Of etcd since it was started.
    pub etcd: Duration,
}

impl ControlPlane {
    /// Starts one, and waits until it is ready.
    pub fn start(options: Options) -> Result<ControlPlane> {
        let endpoints = Endpoints::choose(&options);
        let folder = Folder::open(options.dir.as_deref())?;
        let dir = folder.path();
        let authority = pki::write(dir, endpoints.api_server.ip())?;
        let users = Users::write(&options, dir, endpoints.api_server)?;
        let namespace = options.namespace_name();
        let client = Client::new(endpoints.api_server, namespace, authority, users.token(ADMIN)?)?;
        let tool = |name, folders: &[&str]| {
            Tool::write(dir, name, &[inside(namespace), vec![program(name)?]].concat(), folders)
        };
        let helm = || tool("helm", &["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"]);
        let controllers = controllers::programs(&options, &users)?.into_iter();
        let mut control_plane = ControlPlane {
            controllers: controllers
                .map(|(name, args)| daemon(&options, name, args, dir))
                .collect::<Result<_>>()?,
            api_server: daemon(&options, "kube-apiserver", api_server_args(&options, &endpoints), dir)?,
            etcd: daemon(&options, "etcd", etcd_args(&endpoints), dir)?,
            address: endpoints.api_server,
            users,
            client,
            kubectl: tool("kubectl", &["KUBECACHEDIR"])?,
            helm: options.whole.then(helm).transpose()?,
            audit: Audit::write(dir)?,
            outlives: options.outlives,
            folder,
        };
        control_plane.etcd.start()?;
        control_plane.restart()?;
        control_plane.controllers.iter_mut().try_for_each(Daemon::start)?;
        Ok(control_plane)
    }

    /// The folder of its files: logs (`kube-apiserver.log`, `etcd.log`, `audit.log`), kubeconfigs, and the scripts
    /// `kubectl` and, of a whole one, `helm`, which people may use.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Where the API server listens, for instance `https://127.64.1.2:20000`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of the authority that has signed the API server's (PEM).
    pub fn authority(&self) -> PathBuf {
        self.dir().join(pki::AUTHORITY)
    }

    /// The kubeconfig of `admin` or another [user](Options::user).
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        self.users.kubeconfig(user)
    }

    /// The token of `admin` or another [user](Options::user).
    pub fn token(&self, user: &str) -> Result<&str> {
        self.users.token(user)
    }

    /// Runs the real kubectl as `admin`; its standard output. A nonzero exit code is an error with its words.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args, "")
    }

    /// Runs the real helm as `admin`, on a control plane that is [whole](Options::whole); its standard output.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.whole_helm()?.run(args, "")
    }

    /// The same, with what it says on standard error before that: of a test, what its pods have written.
    pub fn helm_aloud(&self, args: &[&str]) -> Result<String> {
        self.whole_helm()?.run_aloud(args)
    }

    fn whole_helm(&self) -> Result<&Tool> {
        self.helm.as_ref().ok_or_else(|| anyhow!("a control plane has a helm if it is whole"))
    }

    /// `kubectl apply` of manifests, as `admin`.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl.run(&["apply", "-f", "-"], manifests)
    }

    /// The body of the answer to GET `path` as `admin`, for instance of `/metrics`; a status other than 200 is an
    /// error. It costs far less than a kubectl.
    pub fn get(&self, path: &str) -> Result<String> {
        self.client.get(path)
    }

    /// Who asks as `admin`, also for what changes something: for many requests, and from many threads.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What the API server was asked, and by whom.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The processor time that its programs have taken; the difference of two readings is what lies between.
    pub fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu { api_server: self.api_server.cpu()?, etcd: self.etcd.cpu()? })
    }

    /// Stops the API server in its tracks (SIGSTOP): connections stay and nothing is answered from now on.
    pub fn pause(&self) -> Result<()> {
        self.api_server.signal(Signal::STOP)?;
        eventually(PATIENCE, "the API server to stop", || match self.api_server.has_stopped()? {
            true => Ok(()),
            false => Err(anyhow!("a thread of it still runs")),
        })
    }

    /// Lets a paused API server go on.
    pub fn resume(&self) -> Result<()> {
        self.api_server.signal(Signal::CONT)
    }

    /// Kills the API server: connections are refused. What it has stored stays.
    pub fn kill(&mut self) -> Result<()> {
        self.api_server.kill()
    }

    /// Starts a killed API server again, with the same address, data and tokens, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.api_server.start()?;
        self.wait_until_ready()
    }

    /// Leaves it running. It must have been started [`outliving`](Options::outliving) this process. Somebody else is to
    /// end it then; `lab down` ends what runs in a namespace of a lab.
    pub fn leave(mut self) -> Result<()> {
        ensure!(self.outlives, "a control plane ends with its process unless it was started `outliving` it");
        self.controllers.iter_mut().for_each(Daemon::leave);
        self.api_server.leave();
        self.etcd.leave();
        Ok(())
    }

    /// Makes it answer again, whatever was done to it.
    pub(crate) fn bring_back(&mut self) -> Result<()> {
        if !self.api_server.is_running() {
            return self.restart();
        }
        self.resume()?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        eventually(PATIENCE, "the API server to be ready", || {
            if let Err(ended) = self.api_server.check().and(self.etcd.check()) {
                return Ok(Err(ended));
            }
            // Ready is said before the default namespace is made.
            self.get("/readyz").and_then(|_| self.get("/api/v1/namespaces/default")).map(|_| Ok(()))
        })?
    }
}

fn daemon(options: &Options, name: &str, args: Vec<String>, dir: &Path) -> Result<Daemon> {
    let guard = ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned);
    let guard = if options.outlives { vec![] } else { guard.to_vec() };
    let words = [inside(options.namespace_name()), guard, vec![program(name)?], args].concat();
    Ok(Daemon::new(name, words.into_iter().map(OsString::from).collect(), dir))
}

/// What to put before a command line so that it runs in the namespace, as the same process.
fn inside(namespace: Option<&str>) -> Vec<String> {
    let enter =
        |name| vec!["nsenter".to_owned(), format!("--net={}", manx_ground::netns::path(name).display())];
    namespace.map(enter).unwrap_or_default()
}

fn program(name: &str) -> Result<String> {
    let path = manx_ground::target_dir().join("kubernetes/bin").join(name);
    ensure!(path.is_file(), "{} is not built; run `tests/kubernetes/build {name}`", path.display());
    path.into_os_string().into_string().map_err(|path| anyhow!("{} is not UTF-8", path.display()))
}

fn etcd_args(endpoints: &Endpoints) -> Vec<String> {
    let (clients, peers) = (format!("http://{}", endpoints.etcd), format!("http://{}", endpoints.etcd_peers));
    vec![
        "--data-dir=etcd".to_owned(),
        // What a machine's crash would lose is a test's.
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
    ]
}

fn api_server_args(options: &Options, endpoints: &Endpoints) -> Vec<String> {
    let address = endpoints.api_server.ip();
    let mut args = vec![
        format!("--etcd-servers=http://{}", endpoints.etcd),
        format!("--bind-address={address}"),
        format!("--secure-port={}", endpoints.api_server.port()),
        format!("--tls-cert-file={}", pki::SERVER_CERTIFICATE),
        format!("--tls-private-key-file={}", pki::SERVER_KEY),
        format!("--client-ca-file={}", pki::AUTHORITY),
        format!("--service-account-key-file={}", pki::SERVICE_ACCOUNT_PUBLIC_KEY),
        format!("--service-account-signing-key-file={}", pki::SERVICE_ACCOUNT_KEY),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range={}", pki::SERVICES),
        format!("--token-auth-file={TOKENS}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", audit::POLICY_FILE),
        format!("--audit-log-path={}", audit::LOG_FILE),
        // Megabytes: it is read as one file.
        "--audit-log-maxsize=1000000".to_owned(),
    ];
    if address.is_loopback() {
        // Endpoints of the service `kubernetes` may not be loopback addresses: there are none, and this is a dummy
        // (RFC 5737).
        args.extend(["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"].map(str::to_owned));
    }
    args.extend(controllers::api_server_args(options));
    args.extend(options.api_server_args.iter().cloned());
    args
}
