//! How a control plane is to be started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::controllers;

/// The port of an API server that has a namespace for itself.
const USUAL_PORT: u16 = 6443;
/// Below the ports that Linux gives to whoever asks for any (32768 and more): nobody gets the port of an API server
/// while that is away, and no client connects to itself.
const FIRST_PORT: u16 = 20_000;

/// How a control plane is to be started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) place: Option<(String, IpAddr)>,
    pub(crate) users: Vec<(String, Vec<String>)>,
    pub(crate) api_server_args: Vec<String>,
    pub(crate) outlives: bool,
    pub(crate) whole: bool,
}

impl Options {
    /// In the namespace of the caller, on a loopback address of its own, with a temporary folder and one user, `admin`,
    /// who may do everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps its files in `dir`, which need not exist and stays when the control plane goes.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Runs it in the network namespace of that (full) name, where it serves on port 6443 of `address`. Needs root.
    pub fn namespace(mut self, name: &str, address: IpAddr) -> Self {
        self.place = Some((name.to_owned(), address));
        self
    }

    /// Adds a user with a token: one that is nobody yet, until a role (RBAC) is bound to it or to one of its groups.
    pub fn user(mut self, name: &str, groups: &[&str]) -> Self {
        self.users.push((name.to_owned(), groups.iter().map(|&group| group.to_owned()).collect()));
        self
    }

    /// Adds an argument to those of kube-apiserver; the last one of a name wins.
    pub fn api_server_arg(mut self, arg: &str) -> Self {
        self.api_server_args.push(arg.to_owned());
        self
    }

    /// Lets it outlive this process, with its files in `dir`: only then can it be
    /// [left](crate::ControlPlane::leave) running. It is also what stays when this process is killed.
    pub fn outliving(mut self, dir: impl Into<PathBuf>) -> Self {
        self.outlives = true;
        self.dir(dir)
    }

    /// Runs the controllers and the scheduler as well, with service accounts, and makes the API server able to ask kubelets
    /// (logs, exec): what real nodes need. Only in a [namespace](Options::namespace) of its own, as their ports are fixed.
    pub fn whole(mut self) -> Self {
        self.whole = true;
        controllers::users().iter().fold(self, |options, user| options.user(user, &[]))
    }

    pub(crate) fn namespace_name(&self) -> Option<&str> {
        self.place.as_ref().map(|(name, _)| name.as_str())
    }
}

/// Where the programs of one control plane listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoints {
    pub(crate) api_server: SocketAddr,
    pub(crate) etcd: SocketAddr,
    pub(crate) etcd_peers: SocketAddr,
}

impl Endpoints {
    /// An address that follows from this process's id and ports that follow from a counter: nobody else on this machine
    /// has both, so none of them need be tried.
    pub(crate) fn choose(options: &Options) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let port = FIRST_PORT + 3 * (COUNT.fetch_add(1, Ordering::Relaxed) % 4000);
        let local = loopback(std::process::id());
        let own = |offset| SocketAddr::new(local, port + offset);
        Endpoints {
            api_server: options
                .place
                .as_ref()
                .map_or(own(0), |&(_, address)| SocketAddr::new(address, USUAL_PORT)),
            etcd: own(1),
            etcd_peers: own(2),
        }
    }
}

/// The address 127.64.0.0 plus `pid`. A process id has 22 bits at most (proc(5), `pid_max`).
fn loopback(pid: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() | (pid & 0x3f_ffff)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_planes_of_one_process_and_of_two_listen_apart() {
        let (one, two) = (Endpoints::choose(&Options::new()), Endpoints::choose(&Options::new()));
        let all = [one.api_server, one.etcd, one.etcd_peers, two.api_server, two.etcd, two.etcd_peers];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 6, "{all:?}");
        assert_eq!(loopback(4_194_303).to_string(), "127.127.255.255");
        assert_eq!(loopback(1).to_string(), "127.64.0.1");
    }

    #[test]
    fn in_a_namespace_the_api_server_has_the_address_that_was_asked_for_and_the_usual_port() {
        let options = Options::new().namespace("lab-outside", Ipv4Addr::new(10, 99, 0, 10).into());
        assert_eq!(Endpoints::choose(&options).api_server.to_string(), "10.99.0.10:6443");
    }
}
