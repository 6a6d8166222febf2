//! Packets that flow all the time while something is done to the cluster, and are counted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{KubeCluster, KubePod, slowness};

const PATIENCE: Duration = Duration::from_secs(60);
/// In the emulated guest a ping every 10 ms is more than there is time for.
const PACE: Duration = Duration::from_millis(10);

/// Does something to the cluster while a ping and a stream go to and fro between two pods on two nodes.
pub(crate) fn during(
    cluster: &mut KubeCluster,
    pods: &[KubePod],
    what: &str,
    disturb: impl FnOnce(&mut KubeCluster) -> Result<()>,
) -> Result<()> {
    let [one, other] = pods else { anyhow::bail!("two pods are needed") };
    let pace = PACE * if slowness() > 1 { 20 } else { 1 };
    let ping = cluster.ping(one, other, pace)?;
    let stream = cluster.stream(other, one, pace)?;
    ping.wait_for_answers(PATIENCE, 20)?;
    disturb(cluster).with_context(|| what.to_owned())?;
    ping.wait_for_more(PATIENCE, 20)?;
    let report = ping.stop()?;
    ensure!(report.lost.is_empty(), "{what}: of {} pings {:?} were lost", report.sent, report.lost);
    let stream = stream.stop().with_context(|| what.to_owned())?;
    println!(
        "{what}: {} pings, none lost; {} pieces of a stream, {:?} apart at most",
        report.sent, stream.pieces, stream.longest_gap
    );
    Ok(())
}
