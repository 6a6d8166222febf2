//! A whole cluster under a virtual clock: the real agents, with everything around them made of memory.
//!
//! One process, one thread, paused time. The agents are those of the crate `manx`, started with other doors: the
//! kernels are [`machine::Machine`]s, the datastore is `Memory` behind `Faulty`, connections are pipes in memory. So a run
//! depends on its seed and nothing else, a year of timers costs nothing, and the whole cluster can be looked at after
//! every single step.
//!
//! ```text
//!  kubelet --CNI--> agent --------> FakeKernel --> Machine <--+
//!                    |  |                                     | trace: does the packet arrive?
//!                    |  +--BGP----> Network (over the tables) +--- World: record, guard
//!                    +--objects---> Faulty --> Memory <-------+
//!                                                             +-- oracle: is everything as it should be?
//! ```

pub mod chaos;
pub mod cluster;
pub mod gentle;
pub mod kernel;
pub mod kubelet;
pub mod machine;
pub mod network;
pub mod oracle;
pub mod tor;
pub mod trace;
pub mod world;
