//! What the CNI plugin `manx-cni` and the agent say to each other, and how the plugin reads its caller.
//!
//! A container runtime executes the plugin once per verb: parameters in the environment, the network configuration on
//! stdin, the answer or an error as JSON on stdout. The plugin decides nothing. It checks what it was given, sends one
//! [`Request`] over a unix socket to the agent, and prints what comes back in the CNI version that was asked for.
//!
//! ```text
//!   runtime --env, stdin--> environment, config --> Request --wire--> agent
//!   runtime <----stdout---- result, error       <-- Reply   <--wire-- agent
//!                                      spool <-- a DEL that no agent took
//! ```
//!
//! [`wire`] and [`client`] own the socket, [`spool`] owns a directory; all other modules are pure.
//! The crate holds no credentials, and knows neither Kubernetes nor the kernel's routes.

pub mod client;
pub mod config;
pub mod environment;
pub mod error;
pub mod handle;
pub mod previous;
pub mod protocol;
pub mod result;
pub mod settings;
pub mod spool;
pub mod version;
pub mod wire;

pub use config::Conf;
pub use environment::Verb;
pub use error::{CniError, Code};
pub use protocol::{Attached, Command, Container, Mac, Reply, Request};
pub use settings::Settings;
pub use version::CniVersion;
