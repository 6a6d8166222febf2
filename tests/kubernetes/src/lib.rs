//! A real kube-apiserver with its etcd, and a real kubectl, for the tests and the demo.
//!
//! A [`ControlPlane`] is ready some three seconds after its start and takes 300 MiB. Of the rest of Kubernetes there
//! is nothing, unless [`Options::whole`] asks for controllers and scheduler: no controller deletes the pods of a namespace, makes a service account or puts a pod onto a node, and
//! no kubelet confirms that a pod has ended (`kubectl delete --force`). Several run side by side, each on a loopback
//! address of its own; tests that get along with one take turns on the one that [`ControlPlane::shared`] lends them.
//!
//! ```text
//!   test ── kubectl, get ──┐
//!                          ├──> kube-apiserver ──> etcd
//!   agents ── kubeconfig ──┘          │
//!                                  audit.log ──> Audit: who asked for what, since when
//! ```
//!
//! The programs are those that `make kubernetes` builds into `target/kubernetes/bin`. Needs root only to run them in a
//! network namespace. They end with the test, even one that is killed: see [`daemon`].

mod audit;
mod control_plane;
mod controllers;
mod daemon;
mod folder;
mod http;
mod options;
mod pki;
mod shared;
mod tool;
mod users;

pub use audit::{Audit, Mark, Request, Requests};
pub use control_plane::{ControlPlane, Cpu};
pub use http::{Answer, Client};
pub use options::Options;
pub use shared::Shared;
