//! For tests: the contract that every datastore keeps, and a datastore that fails on purpose.

mod contract;
mod faulty;
mod random;

pub use contract::contract;
pub use faulty::{Faults, Faulty};
pub use random::{Random, yield_now};
