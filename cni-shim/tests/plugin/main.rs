//! The real binary, run as a container runtime runs it, against an agent that says what the test wants.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod properties;
mod support;
mod verbs;
