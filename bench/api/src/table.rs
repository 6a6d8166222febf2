//! The report.

use std::fmt::Write as _;

use crate::Bgp;
use crate::figures::Figures;

/// A kubelet says that it lives every five minutes where nothing else changes (`nodeStatusReportFrequency`).
const HEARTBEATS_PER_MINUTE: f64 = 0.2;

/// The table: a line for each figure, a column for each fleet.
pub fn render(all: &[Figures]) -> String {
    let mut text = String::new();
    let heads = all.iter().map(|figures| match figures.nodes {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    });
    line(&mut text, "", "goal", heads);
    line(
        &mut text,
        "BGP between the nodes",
        "",
        all.iter().map(|figures| match figures.bgp {
            Bgp::Mesh => "mesh".to_owned(),
            Bgp::None => "none".to_owned(),
        }),
    );
    let mut row = |what: &str, goal: &str, decimals: usize, figure: &dyn Fn(&Figures) -> Option<f64>| {
        let cells = all.iter().map(|figures| match figure(figures) {
            Some(figure) => format!("{figure:.decimals$}"),
            None => "-".to_owned(),
        });
        line(&mut text, what, goal, cells);
    };
    row("node start: calls", "30", 0, &|all| Some(all.start.calls as f64));
    // A node that is alone leads, and has one more, of policies.
    row("node start: watches, kept", "12", 0, &|all| Some(all.start.watches as f64));
    row("node start: KiB told to watches", "", 1, &|all| Some(all.start.bytes as f64 / 1024.0));
    row("first ADD of a node: calls", "", 0, &|all| Some(all.first_add as f64));
    row("ADD alone: calls", "4", 2, &|all| Some(all.alone.add));
    row("ADD, 32 at once: calls", "2.2", 2, &|all| Some(all.burst.add));
    row("  block writes", "< 1", 2, &|all| Some(all.burst.block_writes));
    row("DEL alone: calls", "3", 2, &|all| Some(all.alone.del));
    row("DEL, 32 at once: calls", "3", 2, &|all| Some(all.burst.del));
    row("ADD alone: API server CPU, ms", "", 1, &|all| Some(all.alone.api_server_add));
    row("ADD, 32 at once: API server CPU, ms", "8", 1, &|all| Some(all.burst.api_server_add));
    row("DEL, 32 at once: API server CPU, ms", "", 1, &|all| Some(all.burst.api_server_del));
    row("other nodes, 200 ADDs + DELs: calls", "0", 0, &|all| Some(all.elsewhere.as_ref()?.calls as f64));
    row("  events told", "0", 0, &|all| Some(all.elsewhere.as_ref()?.news as f64));
    row("  CPU on each, us per ADD + DEL", "0", 2, &|all| Some(all.elsewhere.as_ref()?.cpu));
    row("at rest, a minute: calls of a node", "", 2, &|all| Some(all.rest.calls));
    row("  bytes told to a node's watches", "", 0, &|all| Some(all.rest.bytes));
    row("  CPU of a node's agent, ms", "", 2, &|all| all.rest.cpu);
    row("  CPU of the API server, s", "", 2, &|all| Some(all.rest.api_server));
    row("heartbeat of another node: bytes", "", 0, &|all| all.heartbeat);
    row("  of all others, KiB a minute", "", 1, &|all| {
        Some(all.heartbeat? * HEARTBEATS_PER_MINUTE * (all.nodes - 1) as f64 / 1024.0)
    });
    text
}

fn line(text: &mut String, what: &str, goal: &str, cells: impl Iterator<Item = String>) {
    let _ = write!(text, "{what:<38}{goal:>6}");
    for cell in cells {
        let _ = write!(text, "{cell:>12}");
    }
    text.push('\n');
}
