//! What the suite reports (Ginkgo's JSON), as a table.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tests by name, with the outcomes of all runs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    tests: BTreeMap<String, Vec<Outcome>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Outcome {
    passed: bool,
    seconds: f64,
    /// What the suite said, of one that failed.
    words: String,
}

impl Table {
    /// Adds the tests of a report that were run.
    pub(crate) fn add(&mut self, report: &str) {
        let report: Value = serde_json::from_str(report).unwrap_or_default();
        let specs = report.as_array().into_iter().flatten();
        let specs = specs.flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten());
        for spec in specs.filter(|spec| spec["LeafNodeType"] == "It") {
            let state = spec["State"].as_str().unwrap_or_default();
            if ["skipped", "pending", ""].contains(&state) {
                continue;
            }
            let words = spec["Failure"]["Message"].as_str().unwrap_or_default().to_owned();
            // Ginkgo counts in nanoseconds.
            let seconds = spec["RunTime"].as_f64().unwrap_or_default() / 1e9;
            let outcome = Outcome { passed: state == "passed", seconds, words };
            self.tests.entry(name(spec)).or_default().push(outcome);
        }
    }

    /// How many tests were run.
    pub(crate) fn tests(&self) -> usize {
        self.tests.len()
    }

    /// How many of them failed, in one run or more.
    pub(crate) fn failed(&self) -> usize {
        self.tests.values().filter(|outcomes| !passed(outcomes)).count()
    }

    /// Every test, with how it went over both networks; below what passes over the other one and not always here.
    pub(crate) fn beside(&self, own: &str, other: &Table, name: &str) -> String {
        let mut text = format!("{own:10}  {name:10}  longest\n");
        for (test, outcomes) in &self.tests {
            let there = other.tests.get(test).map_or("not run".to_owned(), |outcomes| verdict(outcomes));
            text += &format!("{}  {there:10}  {}\n", verdict(outcomes), row(test, outcomes));
        }
        for test in other.tests.keys().filter(|test| !self.tests.contains_key(*test)) {
            text += &format!("not run     {}           {test}\n", verdict(&other.tests[test]));
        }
        let passes_there = |test: &String| other.tests.get(test).is_some_and(|outcomes| passed(outcomes));
        let lost: Vec<&String> = self
            .tests
            .iter()
            .filter(|(test, outcomes)| !passed(outcomes) && passes_there(test))
            .map(|(test, _)| test)
            .chain(other.tests.keys().filter(|test| !self.tests.contains_key(*test) && passes_there(test)))
            .collect();
        match lost[..] {
            [] => {
                text + &format!(
                    "\nEvery test that passes over {name} ({}) passes over {own}.",
                    other.tests() - other.failed()
                )
            }
            _ => lost.iter().fold(
                text + &format!(
                    "\n{} tests pass over {name}, and not, or not always, over {own}:",
                    lost.len()
                ),
                |text, test| format!("{text}\n  {test}"),
            ),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcomes) in &self.tests {
            writeln!(out, "{}  {}", verdict(outcomes), row(name, outcomes))?;
            for outcome in outcomes.iter().filter(|outcome| !outcome.passed) {
                writeln!(out, "               {}", outcome.words.lines().next().unwrap_or_default())?;
            }
        }
        let total = self.tests();
        writeln!(out, "\n{} of {total} tests passed", total - self.failed())
    }
}

/// How a test went: `passed 3/3`, `FLAKY  2/3` or `FAILED 0/3`.
fn verdict(outcomes: &[Outcome]) -> String {
    let good = outcomes.iter().filter(|outcome| outcome.passed).count();
    let word = match good {
        0 => "FAILED",
        _ if good < outcomes.len() => "FLAKY ",
        _ => "passed",
    };
    format!("{word} {good}/{}", outcomes.len())
}

/// Its longest time, and its name.
fn row(name: &str, outcomes: &[Outcome]) -> String {
    let longest = outcomes.iter().map(|outcome| outcome.seconds).fold(0.0, f64::max);
    format!("{longest:6.1} s  {name}")
}

/// The tests that have ended, from what the suite has written so far: it names a test when it begins it, and says at its
/// end how it went, as `• [13.780 seconds]` or `• [FAILED] [2.001 seconds]`.
pub(crate) fn ended(output: &str) -> Vec<String> {
    let (mut current, mut ended) = ("", Vec::new());
    for line in output.lines() {
        match line.strip_prefix("• ") {
            Some(verdict) => ended.push(format!("{verdict} {current}")),
            None if line.starts_with("[sig-") => current = line,
            None => {}
        }
    }
    ended
}

fn passed(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| outcome.passed)
}

/// Its containers' texts and its own, as the suite prints it.
fn name(spec: &Value) -> String {
    let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let words: Vec<&str> = containers.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"[{"SpecReports": [
        {"LeafNodeType": "It", "State": "passed", "RunTime": 1500000000,
         "ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeText": "answers"},
        {"LeafNodeType": "It", "State": "failed", "RunTime": 2000000000, "Failure": {"Message": "no\nanswer"},
         "ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeText": "serve"},
        {"LeafNodeType": "It", "State": "skipped", "LeafNodeText": "else"},
        {"LeafNodeType": "ReportAfterSuite", "State": "passed"}]}]"#;

    #[test]
    fn a_test_that_fails_once_has_failed_and_what_was_skipped_is_no_test() {
        let mut table = Table::default();
        table.add(REPORT);
        table.add(&REPORT.replace("failed", "passed"));
        let text = table.to_string();
        assert!(text.contains("passed 2/2     1.5 s  [sig-network] DNS answers\n"), "{text}");
        assert!(
            text.contains("FLAKY  1/2     2.0 s  [sig-network] Services serve\n               no\n"),
            "{text}"
        );
        assert!(text.ends_with("\n1 of 2 tests passed\n"), "{text}");
    }

    #[test]
    fn what_has_ended_is_told_with_its_name() {
        let output = "[sig-network] DNS answers\n  STEP: look up\n• [1.500 seconds]\n-----\n[sig-network] Services serve\n";
        assert_eq!(ended(output), ["[1.500 seconds] [sig-network] DNS answers"]);
    }

    #[test]
    fn what_passes_elsewhere_and_fails_here_is_named() {
        let (mut here, mut there) = (Table::default(), Table::default());
        here.add(REPORT);
        there.add(&REPORT.replace("failed", "passed"));
        let beside = here.beside("manx", &there, "ptp");
        assert!(
            beside.contains("FAILED 0/1  passed 1/1     2.0 s  [sig-network] Services serve\n"),
            "{beside}"
        );
        assert!(beside.ends_with("over manx:\n  [sig-network] Services serve"), "{beside}");
        assert!(there.beside("ptp", &here, "manx").ends_with("(1) passes over ptp."));
        let nothing = Table::default().beside("manx", &here, "ptp");
        assert!(nothing.ends_with("over manx:\n  [sig-network] DNS answers"), "{nothing}");
    }
}
