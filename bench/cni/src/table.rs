//! The report.

use std::fmt::Write as _;
use std::time::Duration;

use crate::bare;
use crate::cell::{Cell, Cells};
use crate::cpu::{AGENT, API_SERVER};
use crate::goals::{self, Goal, Goals};
use crate::plugin::{DUAL_STACK, MANX, PTP};
use crate::store::Datastore;

/// The tables, one for each number at once.
pub(crate) fn render(datastore: Datastore, tables: &[(usize, Cells)]) -> String {
    let goals = Goals::of(datastore);
    let mut text = format!("ADD and DEL, datastore {datastore}, in turns with {PTP}\n");
    for (at_once, cells) in tables {
        let alone = *at_once == 1;
        let heading = if alone { "one at a time".to_owned() } else { format!("{at_once} at once") };
        let _ = writeln!(text, "\n{heading:<34}{MANX:>10}{PTP:>20}{:>12}   goal", "ratio");
        for (verb, p50) in [("ADD", goals.add), ("DEL", goals.del)] {
            let rate = (verb == "ADD" && !alone).then_some(goals.adds);
            compare(&mut text, verb, cells, alone.then_some(p50), rate);
            processors(&mut text, verb, cells, (verb == "ADD" && !alone).then_some(goals.api_server));
        }
        dual_stack(&mut text, cells, alone.then_some(goals::DUAL_STACK));
        bare(&mut text, cells, goals.cpu);
    }
    text
}

fn judge(goal: Option<Goal>, found: f64) -> String {
    goal.map(|goal| format!("   {}", goal.judge(found))).unwrap_or_default()
}

/// A verb of both plugins, line by line.
fn compare(text: &mut String, verb: &str, cells: &Cells, p50: Option<Goal>, rate: Option<Goal>) {
    let (Some(ours), Some(theirs)) = (cells.get(MANX, verb), cells.get(PTP, verb)) else { return };
    let mut line = |what: &str, goal: Option<Goal>, figure: &dyn Fn(&Cell) -> f64| {
        let (ours, theirs) = (figure(ours), figure(theirs));
        let ratio = ours / theirs;
        let goal = judge(goal, ratio);
        let _ = writeln!(text, "{verb} {what:<30}{ours:>10.2}{theirs:>20.2}{ratio:>10.2} x{goal}");
    };
    line("p50, ms", p50, &|cell| millis(cell.quantile(0.5)));
    line("p99, ms", None, &|cell| millis(cell.quantile(0.99)));
    line("per second", rate, &Cell::rate);
    line("CPU of plugin and agent, ms", None, &|cell| cell.plugin() + cell.watched(AGENT));
}

/// Who has taken the processor time.
fn processors(text: &mut String, verb: &str, cells: &Cells, api_server: Option<Goal>) {
    let (Some(ours), Some(theirs)) = (cells.get(MANX, verb), cells.get(PTP, verb)) else { return };
    let _ =
        writeln!(text, "{verb} {:<30}{:>10.2}{:>20.2}", "  of the plugin", ours.plugin(), theirs.plugin());
    for name in ours.watched_names() {
        let taken = ours.watched(name);
        let goal = judge(api_server.filter(|_| name == API_SERVER), taken);
        let space = if goal.is_empty() { 0 } else { 32 };
        let _ = writeln!(text, "{verb} {:<30}{taken:>10.2}{:space$}{goal}", format!("  of {name}"), "");
    }
}

/// What the second address costs.
fn dual_stack(text: &mut String, cells: &Cells, goal: Option<Goal>) {
    let _ = writeln!(text, "\n{:<34}{:>10}{:>20}", "", "two", "one address");
    for verb in ["ADD", "DEL"] {
        let (Some(two), Some(one)) = (cells.get(DUAL_STACK, verb), cells.get(MANX, verb)) else { continue };
        let (two, one) = (millis(two.quantile(0.5)), millis(one.quantile(0.5)));
        let ratio = two / one;
        let goal = judge(goal, ratio);
        let _ =
            writeln!(text, "{verb} {:<30}{two:>10.2}{one:>20.2}{ratio:>10.2} x{goal}", "dual stack p50, ms");
    }
}

/// The bare calls, and what the plugin and the agent add to them.
fn bare(text: &mut String, cells: &Cells, goal: Goal) {
    let found = [("ADD", bare::KERNEL), ("DEL", bare::KERNEL), ("VERSION", bare::START)]
        .map(|(verb, name)| cells.get(name, verb));
    let [Some(add), Some(del), Some(start)] = found else { return };
    let _ = writeln!(text, "\nthe bare calls                          p50, ms    CPU, ms");
    for (what, cell, cpu) in [
        ("ADD, the kernel's part", add, add.own()),
        ("DEL, the kernel's part", del, del.own()),
        ("a start of the plugin (VERSION)", start, start.plugin()),
    ] {
        let _ = writeln!(text, "{what:<34}{:>13.2}{cpu:>11.2}", millis(cell.quantile(0.5)));
    }
    for (verb, kernel, goal) in [("ADD", add, Some(goal)), ("DEL", del, None)] {
        let Some(ours) = cells.get(MANX, verb) else { continue };
        let floor = kernel.own() + start.plugin();
        let ratio = (ours.plugin() + ours.watched(AGENT)) / floor;
        let goal = judge(goal, ratio);
        let _ = writeln!(
            text,
            "{verb}: CPU of plugin and agent is {ratio:.2} x kernel and start, {floor:.2} ms{goal}"
        );
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
