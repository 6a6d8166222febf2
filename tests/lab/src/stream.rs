//! A TCP connection that goes on for as long as something else is done to the network below it, and counts what arrives.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{netns, slowness};

/// How long a piece may be on its way.
const STALL: Duration = Duration::from_secs(10);
/// A piece is a number of eight bytes, so that one that is missing or comes twice shows.
const PIECE: usize = 8;

/// A running stream.
#[derive(Debug)]
pub struct Stream {
    ended: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<(u64, Duration)>>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReport {
    /// How many pieces were sent, and arrived in order.
    pub pieces: u64,
    /// The longest time between two of them: a lost packet is sent again after 200 ms.
    pub longest_gap: Duration,
}

impl Stream {
    /// Sends a piece every `interval` from one namespace (full name) to an address in another.
    pub(crate) fn start(from: &str, to: &str, address: Ipv4Addr, interval: Duration) -> Result<Stream> {
        let listener = netns::within(to, || TcpListener::bind((address, 0)))?
            .with_context(|| format!("cannot listen on {address} in {to}"))?;
        let target = listener.local_addr()?;
        let connect = || TcpStream::connect_timeout(&target, STALL * slowness());
        let stream = netns::within(from, connect)?
            .with_context(|| format!("cannot connect from {from} to {target}"))?;
        let (receiver, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL * slowness()))?;
        receiver.set_read_timeout(Some(STALL * slowness()))?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        Ok(Stream {
            ended,
            sender: std::thread::spawn(move || send(stream, interval, &end)),
            receiver: std::thread::spawn(move || receive(receiver)),
        })
    }

    /// Ends it; an error if the connection broke, or a piece was lost.
    pub fn stop(self) -> Result<StreamReport> {
        self.ended.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow!("a thread of the stream panicked");
        let sent = self.sender.join().map_err(panicked)?.context("sending")?;
        let (pieces, longest_gap) = self.receiver.join().map_err(panicked)?.context("receiving")?;
        ensure!(sent == pieces, "{pieces} of {sent} pieces arrived");
        Ok(StreamReport { pieces, longest_gap })
    }
}

fn send(mut stream: TcpStream, interval: Duration, ended: &AtomicBool) -> Result<u64> {
    let mut number: u64 = 0;
    while !ended.load(Ordering::Relaxed) {
        stream.write_all(&number.to_be_bytes()).with_context(|| format!("it broke at piece {number}"))?;
        number += 1;
        pace(interval);
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(number)
}

fn receive(mut stream: TcpStream) -> Result<(u64, Duration)> {
    let (mut expected, mut longest, mut last) = (0_u64, Duration::ZERO, Instant::now());
    let mut piece = [0; PIECE];
    loop {
        match stream.read_exact(&mut piece) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok((expected, longest)),
            other => other.with_context(|| format!("it stalled after piece {expected}"))?,
        }
        ensure!(u64::from_be_bytes(piece) == expected, "piece {expected} is {}", u64::from_be_bytes(piece));
        expected += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
}

#[allow(clippy::disallowed_methods, reason = "it is the pace of the stream, and not a wait for anything")]
fn pace(interval: Duration) {
    std::thread::sleep(interval);
}
