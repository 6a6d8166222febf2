//! The report.

use std::fmt::Write as _;
use std::time::Duration;

use crate::bare;
use crate::cell::{Cell, Cells};

/// The tables, one for each number at once.
pub(crate) fn render(datastore: &str, tables: &[(usize, Cells)]) -> String {
    let mut text = format!("ADD and DEL, datastore {datastore}, in turns with ptp + host-local\n");
    for (at_once, cells) in tables {
        let _ = writeln!(
            text,
            "\n{:<34}{:>10}{:>20}{:>12}",
            heading(*at_once),
            "manx",
            "ptp + host-local",
            "ratio"
        );
        for verb in ["ADD", "DEL"] {
            compare(&mut text, verb, cells);
        }
        bare(&mut text, cells);
    }
    text
}

fn heading(at_once: usize) -> String {
    if at_once == 1 { "one at a time".to_owned() } else { format!("{at_once} at once") }
}

/// A verb of both plugins, line by line.
fn compare(text: &mut String, verb: &str, cells: &Cells) {
    let (Some(ours), Some(theirs)) = (cells.get("manx", verb), cells.get("ptp", verb)) else { return };
    let mut line = |what: &str, figure: &dyn Fn(&Cell) -> f64| {
        let (ours, theirs) = (figure(ours), figure(theirs));
        let _ = writeln!(text, "{verb} {what:<30}{ours:>10.2}{theirs:>20.2}{:>10.2} x", ours / theirs);
    };
    line("p50, ms", &|cell| millis(cell.quantile(0.5)));
    line("p99, ms", &|cell| millis(cell.quantile(0.99)));
    line("per second", &Cell::rate);
    line("CPU of plugin and agent, ms", &|cell| cell.plugin() + cell.watched("agent"));
    let _ =
        writeln!(text, "{verb} {:<30}{:>10.2}{:>20.2}", "  of the plugin", ours.plugin(), theirs.plugin());
    for name in ours.watched_names() {
        let _ = writeln!(text, "{verb} {:<30}{:>10.2}", format!("  of {name}"), ours.watched(name));
    }
}

/// The bare calls, and what the plugin and the agent add to them.
fn bare(text: &mut String, cells: &Cells) {
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
    for (verb, kernel) in [("ADD", add), ("DEL", del)] {
        let Some(ours) = cells.get("manx", verb) else { continue };
        let floor = kernel.own() + start.plugin();
        let ratio = (ours.plugin() + ours.watched("agent")) / floor;
        let _ =
            writeln!(text, "{verb}: CPU of plugin and agent is {ratio:.2} x kernel and start, {floor:.2} ms");
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
