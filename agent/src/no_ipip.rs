//! A kernel without ipip, where a pool asks for it: its node says so, with the remedy, and all else goes on.

use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Datastore, Error, Report};
use manx_felix::KernelError;
use manx_model::{Kind, NodeName};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::node_loop::NodeReport;

/// What is wrong, and what helps.
pub const REMEDY: &str = "this kernel has no ipip, so no packet takes the tunnel to or from this node: set \
    CALICO_IPV4POOL_IPIP: Never, or load ipip (modprobe ipip); pools that do not ask for IP-in-IP work";

/// The kernel does not have what it is asked for.
const EOPNOTSUPP: i32 = 95;
/// After a failed call the next try waits this long.
const RETRY: Duration = Duration::from_secs(30);

/// Whether this is why a tunnel could not be made.
pub fn is_why(error: &KernelError) -> bool {
    error.errno == Some(EOPNOTSUPP)
}

/// Says it in an Event on the Node: once in the life of an agent.
pub async fn tell(store: Arc<dyn Datastore>, node: NodeName, mut report: watch::Receiver<NodeReport>) {
    loop {
        if report.wait_for(|report| report.no_ipip).await.is_err() {
            return;
        }
        match say(&*store, &node).await {
            Ok(()) => return std::future::pending().await,
            Err(error) => tracing::debug!("Node {node}: not told that there is no ipip: {error}"),
        }
        sleep(RETRY).await;
    }
}

async fn say(store: &dyn Datastore, node: &NodeName) -> Result<(), Error> {
    let Some(object) = store.get(Kind::Node, node.as_str()).await? else { return Ok(()) };
    let report = Report { warning: true, reason: "NoIPIP".to_owned(), message: REMEDY.to_owned() };
    store.report(&object, &report).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};
    use manx_model::Object;
    use serde_json::Value;

    #[tokio::test(start_paused = true)]
    async fn a_node_without_a_tunnel_says_once_what_helps() {
        let memory = Memory::new();
        memory.create(Object::new(Kind::Node, "n1", &Value::Null)).await.unwrap();
        let store = Faulty::new(memory.clone(), 1, Faults::default());
        let (sender, report) = watch::channel(NodeReport::default());
        tokio::spawn(tell(Arc::new(store.clone()), "n1".parse().unwrap(), report));
        sleep(RETRY).await;
        assert!(memory.reports().is_empty(), "it has one, or needs none");
        store.down();
        sender.send_modify(|report| report.no_ipip = true);
        sleep(RETRY * 2).await;
        store.up();
        for no_ipip in [true, false, true] {
            sender.send_modify(|report| report.no_ipip = no_ipip);
            sleep(RETRY * 2).await;
        }
        let [(object, said)] = &memory.reports()[..] else { panic!("{:?}", memory.reports()) };
        assert_eq!((object.kind, object.name(), said.reason.as_str()), (Kind::Node, "n1", "NoIPIP"));
        assert!(said.message.contains("CALICO_IPV4POOL_IPIP: Never, or load ipip"), "{}", said.message);
    }
}
