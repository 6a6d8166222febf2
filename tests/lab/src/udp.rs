//! Numbered datagrams there and back: what was lost, what came twice, and the longest silence.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::{netns, slowness};

/// After this time an echo that has not come no longer holds back the next datagram.
const OVERDUE: Duration = Duration::from_millis(500);
/// How long the end waits for echoes that are on their way.
const DRAIN: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);

/// How fast datagrams are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpPace {
    /// One per interval, whatever comes back.
    Every(Duration),
    /// As fast as they come back, with at most this many on their way, so that no buffer overflows.
    Window(usize),
}

/// A running probe.
#[derive(Debug)]
pub struct UdpProbe {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<UdpReport>>,
    /// Ends after the sender, for the sake of what is still on its way.
    stop_echo: Arc<AtomicBool>,
    echo: Option<JoinHandle<()>>,
}

/// What became of the datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UdpReport {
    /// How many were sent. One that the kernel refused (no route) counts as sent and lost.
    pub sent: u64,
    /// The numbers (from 0) of those that never came back.
    pub lost: Vec<u64>,
    /// How many came back more than once.
    pub duplicates: u64,
    /// The longest time without an echo.
    pub longest_gap: Duration,
}

impl UdpProbe {
    pub(crate) fn start(from: &str, to: &str, address: Ipv4Addr, pace: UdpPace) -> Result<UdpProbe> {
        let bind = |namespace: &str, address: Ipv4Addr| -> Result<UdpSocket> {
            let socket = netns::within(namespace, || UdpSocket::bind((address, 0)))?
                .with_context(|| format!("cannot bind {address} in {namespace}"))?;
            socket.set_read_timeout(Some(TICK))?;
            Ok(socket)
        };
        let responder = bind(to, address)?;
        let socket = bind(from, Ipv4Addr::UNSPECIFIED)?;
        let target = responder.local_addr()?;
        let (stop, stop_echo) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&stop_echo);
        let echo = std::thread::spawn(move || echo(&responder, &until));
        let until = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            Sender::new(pace).run(
                &until,
                |packet| socket.send_to(packet, target).is_ok(),
                || receive(&socket),
            )
        });
        Ok(UdpProbe { stop, sender: Some(sender), stop_echo, echo: Some(echo) })
    }

    /// Ends the probe, after the echoes on their way have had a second to come.
    pub fn stop(mut self) -> Result<UdpReport> {
        self.stop.store(true, Ordering::Relaxed);
        let sender = self.sender.take().context("the probe has ended already")?;
        sender.join().map_err(|_| anyhow!("the sender of the probe panicked"))
    }
}

impl Drop for UdpProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
        self.stop_echo.store(true, Ordering::Relaxed);
        if let Some(echo) = self.echo.take() {
            let _ = echo.join();
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

fn receive(socket: &UdpSocket) -> Option<u64> {
    let mut buffer = [0; 8];
    match socket.recv(&mut buffer) {
        Ok(8) => Some(u64::from_be_bytes(buffer)),
        _ => None,
    }
}

/// The bookkeeping of the sending side.
#[derive(Debug)]
struct Sender {
    pace: UdpPace,
    next: u64,
    due: Instant,
    /// Those that still hold back the next one.
    waiting: VecDeque<(u64, Instant)>,
    /// How often each number has come back.
    echoes: BTreeMap<u64, u32>,
    last_echo: Instant,
    longest_gap: Duration,
}

impl Sender {
    fn new(pace: UdpPace) -> Sender {
        let now = Instant::now();
        let (waiting, echoes) = (VecDeque::new(), BTreeMap::new());
        Sender { pace, next: 0, due: now, waiting, echoes, last_echo: now, longest_gap: Duration::ZERO }
    }

    fn run(
        mut self,
        stop: &AtomicBool,
        mut send: impl FnMut(&[u8]) -> bool,
        mut receive: impl FnMut() -> Option<u64>,
    ) -> UdpReport {
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while self.waiting.front().is_some_and(|(_, sent)| now - *sent > OVERDUE * slowness()) {
                self.waiting.pop_front();
            }
            if self.may_send(now) {
                if send(&self.next.to_be_bytes()) {
                    self.waiting.push_back((self.next, now));
                }
                self.next += 1;
            } else if let Some(number) = receive() {
                self.came_back(number);
            }
        }
        self.close_gap();
        let end = Instant::now() + DRAIN * slowness();
        while Instant::now() < end && self.echoes.len() as u64 != self.next {
            if let Some(number) = receive() {
                self.came_back(number);
            }
        }
        self.report()
    }

    fn may_send(&mut self, now: Instant) -> bool {
        match self.pace {
            UdpPace::Window(size) => self.waiting.len() < size.max(1),
            UdpPace::Every(_) if now < self.due => false,
            UdpPace::Every(interval) => {
                self.due = now + interval;
                true
            }
        }
    }

    fn came_back(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
        *self.echoes.entry(number).or_default() += 1;
        self.close_gap();
        self.last_echo = Instant::now();
    }

    fn close_gap(&mut self) {
        self.longest_gap = self.longest_gap.max(self.last_echo.elapsed());
    }

    fn report(&self) -> UdpReport {
        let lost = (0..self.next).filter(|number| !self.echoes.contains_key(number)).collect();
        let duplicates = self.echoes.values().map(|count| u64::from(count - 1)).sum();
        UdpReport { sent: self.next, lost, duplicates, longest_gap: self.longest_gap }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn what_never_comes_back_is_lost_and_what_comes_twice_is_a_duplicate() {
        let stop = AtomicBool::new(false);
        let wire: RefCell<VecDeque<u64>> = RefCell::default();
        let number = |packet: &[u8]| u64::from_be_bytes(packet.try_into().unwrap());
        let refused = Cell::new(false);
        let send = |packet: &[u8]| {
            match number(packet) {
                3 => {}
                5 => wire.borrow_mut().extend([5, 5]),
                7 => refused.set(true),
                other => wire.borrow_mut().push_back(other),
            }
            stop.store(number(packet) == 9, Ordering::Relaxed);
            number(packet) != 7
        };
        let report = Sender::new(UdpPace::Window(2)).run(&stop, send, || wire.borrow_mut().pop_front());
        assert!(refused.get());
        assert_eq!((report.sent, report.lost, report.duplicates), (10, vec![3, 7], 1));
    }
}
