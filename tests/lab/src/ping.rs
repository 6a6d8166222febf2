//! A continuous ping whose losses are counted by sequence number.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{Lab, Process, Program, eventually, slowness};

const PATIENCE: Duration = Duration::from_secs(5);
/// How long [`Ping::stop`] waits for an answer to a packet sent after it was called.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// One echo request, and the wait for its answer.
pub(crate) fn once(lab: &Lab, namespace: &str, target: Ipv4Addr) -> Result<()> {
    let wait = (2 * slowness()).to_string();
    lab.exec(namespace, &["ping", "-n", "-c", "1", "-W", &wait, &target.to_string()]).map(|_| ())
}

/// A running ping.
#[derive(Debug)]
pub struct Ping {
    process: Process,
}

/// What became of a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingReport {
    /// How many requests were sent and had their chance to be answered.
    pub sent: u64,
    /// The sequence numbers (from 1, not wrapped) that were never answered.
    pub lost: Vec<u64>,
    /// How many answers came more than once.
    pub duplicates: u64,
}

impl Ping {
    pub(crate) fn start(namespace: &str, target: Ipv4Addr, interval: Duration, log: PathBuf) -> Result<Ping> {
        let interval = format!("{:.3}", interval.as_secs_f64());
        let program = Program::new("ping").args(["-n", "-i", &interval, &target.to_string()]);
        let process =
            Process::start(namespace, program, log).context("needs the Debian package iputils-ping")?;
        Ok(Ping { process })
    }

    /// How many requests have been answered so far.
    pub fn answers(&self) -> usize {
        Answers::read(&self.process.log()).seen.len()
    }

    /// Waits until `count` answers have come.
    pub fn wait_for_answers(&self, timeout: Duration, count: usize) -> Result<()> {
        eventually(timeout, &format!("{count} answers to ping"), || {
            let found = self.answers();
            ensure!(found >= count, "{found} came");
            Ok(())
        })
    }

    /// Waits until `count` more answers have come than there are now.
    pub fn wait_for_more(&self, timeout: Duration, count: usize) -> Result<()> {
        let now = Answers::read(&self.process.log()).seen.len();
        self.wait_for_answers(timeout, now + count)
    }

    /// Ends it. A request that was still on its way is not counted as sent: it waits for one more answer first, and
    /// when none comes all that are unanswered are lost.
    pub fn stop(mut self) -> Result<PingReport> {
        let last = Answers::read(&self.process.log()).last();
        // The second new answer: the first may belong to a request that was sent before the call.
        let alive = eventually(LAST_ANSWER, "one more answer", || {
            let now = Answers::read(&self.process.log()).last();
            ensure!(now >= last + 2, "the last is number {now}");
            Ok(())
        });
        self.process.finish(Signal::INT, PATIENCE)?;
        report(&self.process.log(), alive.is_ok())
    }
}

/// The answers in the output of ping.
#[derive(Debug, Default)]
struct Answers {
    seen: BTreeSet<u64>,
    duplicates: u64,
}

impl Answers {
    fn read(log: &str) -> Answers {
        let mut answers = Answers::default();
        for sequence in log.lines().filter(|line| line.contains("bytes from")).filter_map(sequence) {
            let number = unwrap(sequence, answers.last());
            if !answers.seen.insert(number) {
                answers.duplicates += 1;
            }
        }
        answers
    }

    fn last(&self) -> u64 {
        self.seen.last().copied().unwrap_or(0)
    }
}

/// The number on the wire has 16 bits; the one nearest to the last answer is meant.
fn unwrap(sequence: u64, last: u64) -> u64 {
    const ROUND: u64 = 1 << 16;
    let number = last - last % ROUND + sequence;
    if number + ROUND / 2 < last { number + ROUND } else { number }
}

fn sequence(line: &str) -> Option<u64> {
    line.split_once("icmp_seq=")?.1.split_whitespace().next()?.parse().ok()
}

fn report(log: &str, alive: bool) -> Result<PingReport> {
    let answers = Answers::read(log);
    let summary = log.lines().find(|line| line.contains("packets transmitted"));
    let transmitted = summary
        .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .with_context(|| format!("ping gave no summary: {}", log.trim()))?;
    let sent = if alive { answers.last() } else { transmitted };
    let lost = (1..=sent).filter(|number| !answers.seen.contains(number)).collect();
    Ok(PingReport { sent, lost, duplicates: answers.duplicates })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
        64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.1 ms\n\
        64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.1 ms\n\
        64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.1 ms (DUP!)\n\
        From 10.0.0.2 icmp_seq=4 Destination Host Unreachable\n\
        64 bytes from 10.0.0.1: icmp_seq=5 ttl=64 time=0.1 ms\n\
        --- 10.0.0.1 ping statistics ---\n\
        6 packets transmitted, 3 received, +1 duplicates, 50% packet loss, time 5ms\n";

    #[test]
    fn a_gap_in_the_sequence_numbers_is_a_loss_and_an_error_message_is_no_answer() {
        let report = report(LOG, true).unwrap();
        assert_eq!(report, PingReport { sent: 5, lost: vec![2, 4], duplicates: 1 });
    }

    #[test]
    fn when_answers_have_ceased_the_unanswered_at_the_end_are_lost_too() {
        assert_eq!(report(LOG, false).unwrap().lost, [2, 4, 6]);
    }

    #[test]
    fn sequence_numbers_go_on_after_65535() {
        assert_eq!(unwrap(1, 65535), 65537);
        assert_eq!(unwrap(65535, 65534), 65535);
        assert_eq!(unwrap(5, 65537), 65541);
    }
}
