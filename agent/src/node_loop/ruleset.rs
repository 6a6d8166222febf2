//! Our table of nftables, kept as the facts say. What it cannot have never holds up the routes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use manx_felix::{Kernel, KernelError, RulesetFacts, ruleset_to_write};
use manx_model::InterfaceAddress;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::FelixEnvironment;
use crate::felix_parameters::of_ruleset;

/// How long the first refusal holds back the next attempt; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// At most this long: a module may have been loaded.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Who keeps the table.
pub struct RulesetKeeper {
    /// What the environment says.
    pub environment: FelixEnvironment,
    /// The beginning of the names of pods' interfaces.
    pub interface_prefix: String,
    /// The kernel's last refusal: when to try again, and after how long a wait.
    pub refused: Option<(Instant, Duration)>,
}

/// What one look at the table came to.
pub(super) enum Kept {
    /// It is as it should be.
    Right,
    /// The kernel refused.
    Refused(KernelError),
    /// The kernel refused before, and is left in peace for a while.
    Waiting,
}

impl RulesetKeeper {
    /// Reads the table, and writes it if it is not as it should be.
    pub(super) async fn keep(
        &mut self,
        kernel: &dyn Kernel,
        cluster: &Cluster,
        address: InterfaceAddress,
    ) -> Kept {
        if self.retry().is_some_and(|retry| Instant::now() < retry) {
            return Kept::Waiting;
        }
        match self.write(kernel, cluster, address).await {
            Ok(()) => {
                self.refused = None;
                Kept::Right
            }
            Err(error) => {
                let wait = self.refused.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LAST_RETRY));
                self.refused = Some((Instant::now() + wait, wait));
                Kept::Refused(error)
            }
        }
    }

    /// When to come back unasked.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.refused.map(|(retry, _)| retry)
    }

    async fn write(
        &self,
        kernel: &dyn Kernel,
        cluster: &Cluster,
        address: InterfaceAddress,
    ) -> Result<(), KernelError> {
        let found = kernel.ruleset().await?;
        let of_nodes = cluster.nodes.values().filter_map(|node| node.address);
        let nodes: BTreeSet<Ipv4Addr> = of_nodes.chain([address]).map(InterfaceAddress::address).collect();
        let facts = RulesetFacts {
            complete: cluster.in_sync,
            pools: &cluster.pools,
            nodes: &nodes,
            interface_prefix: &self.interface_prefix,
            parameters: &of_ruleset(&self.environment, cluster),
        };
        match ruleset_to_write(&facts, found.as_ref()) {
            Some(ruleset) => kernel.write_ruleset(Some(ruleset)).await,
            None => Ok(()),
        }
    }
}
