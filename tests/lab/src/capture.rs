//! Packets on a device, by tcpdump: one line per packet, the inner header of an IPIP packet behind the outer one.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::{Process, Program, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
}

/// A captured IPv4 packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source and destination of each IPv4 header, from the outside in: one pair for a bare packet, two for IPIP
    /// (protocol 4).
    pub headers: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// What tcpdump says of the payload, for instance `ICMP echo request, id 1, seq 1, length 64`.
    pub payload: String,
    /// The whole line.
    pub line: String,
}

impl Packet {
    /// Whether it is an IPv4 packet within an IPv4 packet (protocol 4).
    pub fn is_ipip(&self) -> bool {
        self.headers.len() == 2
    }

    /// Reads a line of `tcpdump -n`; other lines (ARP, IPv6, messages) are `None`.
    pub fn parse(line: &str) -> Option<Packet> {
        let (time, mut rest) = line.split_once(' ')?;
        if !time.starts_with(|letter: char| letter.is_ascii_digit()) {
            return None;
        }
        let mut headers = Vec::new();
        while let Some((addresses, payload)) = rest.strip_prefix("IP ").and_then(|rest| rest.split_once(": "))
        {
            let (source, destination) = addresses.split_once(" > ")?;
            headers.push((address(source)?, address(destination)?));
            rest = payload;
        }
        (!headers.is_empty()).then(|| Packet { headers, payload: rest.to_owned(), line: line.to_owned() })
    }
}

/// `192.168.1.2` or, with a port behind it, `192.168.1.2.4711`.
fn address(text: &str) -> Option<Ipv4Addr> {
    let end = text.match_indices('.').nth(3).map_or(text.len(), |(index, _)| index);
    text[..end].parse().ok()
}

impl Capture {
    pub(crate) fn start(namespace: &str, device: &str, filter: &str, log: PathBuf) -> Result<Capture> {
        // -Z root: dropping privileges would need a user that not every machine has.
        let args = ["-n", "-l", "--immediate-mode", "-Z", "root", "-i", device];
        let program = Program::new("tcpdump").args(args).args(filter.split_whitespace());
        let mut process =
            Process::start(namespace, program, log).context("captures need the Debian package tcpdump")?;
        process.wait_for_log(PATIENCE, "listening on")?;
        Ok(Capture { process })
    }

    /// The packets so far, as tcpdump's lines.
    pub fn lines(&self) -> Vec<String> {
        let packet =
            |line: &&str| line.starts_with(|letter: char| letter.is_ascii_digit()) && line.contains(':');
        let log = self.process.log();
        // tcpdump's closing words begin with a count: `3 packets captured`.
        log.lines().filter(packet).filter(|line| line.contains(' ')).map(str::to_owned).collect()
    }

    /// The IPv4 packets so far.
    pub fn packets(&self) -> Vec<Packet> {
        self.lines().iter().filter_map(|line| Packet::parse(line)).collect()
    }

    /// Waits for a packet for which `wanted` holds.
    pub fn wait_for(
        &self,
        timeout: Duration,
        what: &str,
        wanted: impl Fn(&Packet) -> bool,
    ) -> Result<Packet> {
        eventually(timeout, what, || {
            let packets = self.packets();
            let count = packets.len();
            packets
                .into_iter()
                .find(&wanted)
                .with_context(|| format!("none of {count} captured packets is it"))
        })
    }

    /// Ends the capture; the packets that were seen.
    pub fn stop(mut self) -> Result<Vec<Packet>> {
        self.process.finish(Signal::INT, PATIENCE)?;
        Ok(self.packets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_and_inner_headers_are_read_from_the_outside_in() {
        let line = "12:00:00.000001 IP 172.171.5.95 > 172.171.6.95: IP 192.168.1.2 > 192.168.2.3: \
                    ICMP echo request, id 7, seq 1, length 64";
        let packet = Packet::parse(line).unwrap();
        assert!(packet.is_ipip());
        assert_eq!(packet.headers[1], ("192.168.1.2".parse().unwrap(), "192.168.2.3".parse().unwrap()));
        assert_eq!(packet.payload, "ICMP echo request, id 7, seq 1, length 64");
    }

    #[test]
    fn a_bare_packet_has_one_header_and_its_ports_are_no_part_of_the_address() {
        let line = "12:00:00.000001 IP 192.168.1.2.40000 > 10.99.0.10.80: Flags [S], seq 1, length 0";
        let packet = Packet::parse(line).unwrap();
        assert!(!packet.is_ipip());
        assert_eq!(packet.headers, [("192.168.1.2".parse().unwrap(), "10.99.0.10".parse().unwrap())]);
    }

    #[test]
    fn what_is_no_ipv4_packet_is_passed_over() {
        for line in ["listening on eth0", "3 packets captured", "12:00:00.1 ARP, Request who-has 1.2.3.4", ""]
        {
            assert_eq!(Packet::parse(line), None, "{line}");
        }
    }
}
