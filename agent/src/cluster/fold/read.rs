//! How an object of a kind is read.

use manx_model::{ClusterInformationSpec, EndpointSlice, Invalid, NodeStatusSpec, Object};

use crate::cluster::misplaced;
use crate::cluster::table::Read;

pub(super) fn usable<T>((value, refused): (T, Vec<Invalid>)) -> Read<T> {
    (Some(value), refused)
}

pub(super) fn strict<T>(read: Result<T, Invalid>) -> Read<T> {
    match read {
        Ok(value) => (Some(value), Vec::new()),
        Err(invalid) => (None, vec![invalid]),
    }
}

/// A mistake must not lock the datastore of a whole cluster: what was said last stays in force.
pub(super) fn information(object: &Object) -> Read<ClusterInformationSpec> {
    match ClusterInformationSpec::from_object(object) {
        (spec, refused) if refused.is_empty() => (Some(spec), refused),
        (_, refused) => (None, refused),
    }
}

pub(super) fn node_status(object: &Object) -> Read<NodeStatusSpec> {
    match NodeStatusSpec::from_object(object) {
        Ok(spec) => {
            let refused = misplaced::unknown(object, &spec.rest);
            (Some(spec), refused)
        }
        Err(invalid) => (None, vec![invalid]),
    }
}

/// One that belongs to no service is nobody's.
pub(super) fn slice(object: &Object) -> Read<EndpointSlice> {
    match EndpointSlice::from_object(object) {
        Ok(slice) => (slice, Vec::new()),
        Err(invalid) => (None, vec![invalid]),
    }
}

pub(super) fn whole(object: Object) -> Read<Object> {
    (Some(object), Vec::new())
}
