//! A condition in the status of a Node. Conditions are known by their types, and the others belong to others.

use jiff::Timestamp;
use manx_datastore::{Condition, Error};
use manx_model::Object;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::refusal::Refusal;
use crate::request::{Call, path};

/// [`manx_datastore::Datastore::set_condition`].
pub(crate) async fn set(
    connection: &Connection,
    object: &Object,
    condition: &Condition,
) -> Result<(), Error> {
    let path = path(object.kind, &object.key()).ok_or_else(|| Error::gone(object))?;
    let patch = patch(condition, Timestamp::now()).to_string().into_bytes();
    let call = Call::patch_members(format!("{path}/status"), patch);
    let answer = connection.call(Some(object.kind), &call).await?;
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(Refusal::read(object.kind, &answer).about(object)),
    }
}

/// Whoever asks for it has seen that the condition is another: the time of its change is now.
fn patch(condition: &Condition, now: Timestamp) -> Value {
    let now = format!("{now:.0}");
    let condition = json!({
        "type": condition.r#type,
        "status": if condition.status { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    json!({"status": {"conditions": [condition]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_its_type_and_the_times_that_kubernetes_takes() {
        let condition = Condition {
            r#type: "NetworkUnavailable".into(),
            status: false,
            reason: "ManxIsUp".into(),
            message: "m".into(),
        };
        let patch = patch(&condition, Timestamp::UNIX_EPOCH);
        let said = &patch["status"]["conditions"][0];
        assert_eq!((&said["type"], &said["status"]), (&json!("NetworkUnavailable"), &json!("False")));
        assert_eq!(said["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }
}
