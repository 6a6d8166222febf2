//! Faults that a real API server cannot be made to produce, by one that answers as the test says.

mod calls;
mod fake;
mod watches;

use std::time::Duration;

use manx_datastore::{Datastore as _, Error, Event, Only};
use manx_model::{Kind, Object};
use serde_json::{Value, json};

use fake::{Asked, Fake};
