//! One control plane for the tests of a program, one after the other.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::{ControlPlane, Options};

static SHARED: Mutex<Option<ControlPlane>> = Mutex::new(None);

/// The control plane that the tests of this program share, lent to one of them: the next gets it when this goes.
#[derive(Debug)]
pub struct Shared(MutexGuard<'static, Option<ControlPlane>>);

impl ControlPlane {
    /// The control plane of this test program, started by the first test that asks. It holds what earlier tests have
    /// left in it: a test begins by deleting the kinds that it counts on. One that the last test left paused or killed
    /// is brought back.
    pub fn shared() -> Result<Shared> {
        // A test that failed while it had it has done it no harm.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.as_mut() {
            Some(control_plane) => control_plane.bring_back()?,
            None => *shared = Some(ControlPlane::start(Options::new())?),
        }
        Ok(Shared(shared))
    }
}

impl Deref for Shared {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        self.0.as_ref().expect("`shared` has started it")
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut ControlPlane {
        self.0.as_mut().expect("`shared` has started it")
    }
}
