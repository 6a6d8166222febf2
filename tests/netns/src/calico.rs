//! Nodes as Calico has them, without Calico: for the tests of a cluster that holds both.
//!
//! [`Bird`] is BIRD 1.6, of which Calico's is a fork, with the configuration that Calico's templates come to.
//! [`Ipam`] takes addresses from the objects in the steps and spelling of Calico's library up to 3.30. [`Workload`] is a
//! pod attached as its plugin does it, with plain `ip`. All of it is written from what these programs do, and shares no
//! code with ours, so that a mistake is not made on both sides.

mod api;
mod bird;
mod ipam;
mod workload;

pub use api::{Api, Write};
pub use bird::Bird;
pub use ipam::Ipam;
pub use workload::Workload;
