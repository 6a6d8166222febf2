//! A bulk transfer over one TCP connection, with whatever segment size the path allows.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{netns, slowness};

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(10);
/// Prime, so that no power of two hides a repeated or missing piece.
const PATTERN: usize = 251;

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpReport {
    /// How many bytes arrived, all of them as they were sent.
    pub bytes: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// The segment size that the sender used at the end, in bytes: the path's MTU less 40 and TCP's options.
    pub segment: u32,
}

/// Sends `bytes` bytes from one namespace to an address in another.
pub(crate) fn transfer(from: &str, to: &str, address: Ipv4Addr, bytes: usize) -> Result<TcpReport> {
    let listener = netns::within(to, || TcpListener::bind((address, 0)))?
        .with_context(|| format!("cannot listen on {address} in {to}"))?;
    let target = listener.local_addr()?;
    let start = Instant::now();
    let connect = || TcpStream::connect_timeout(&target, STALL * slowness());
    let stream =
        netns::within(from, connect)?.with_context(|| format!("cannot connect from {from} to {target}"))?;
    // The handshake is done by the kernels, so that accept has something to take.
    let (receiver, _) = listener.accept()?;
    for socket in [&stream, &receiver] {
        socket.set_read_timeout(Some(STALL * slowness()))?;
        socket.set_write_timeout(Some(STALL * slowness()))?;
    }
    let reading = std::thread::spawn(move || receive(receiver));
    let sent = send(stream, bytes);
    let received = reading.join().map_err(|_| anyhow!("the receiver panicked"))?;
    let segment = sent.with_context(|| format!("sending from {from} to {target}"))?;
    let received = received.with_context(|| format!("receiving in {to}"))?;
    ensure!(received == bytes, "{received} of {bytes} bytes arrived in {to}");
    Ok(TcpReport { bytes, elapsed: start.elapsed(), segment })
}

fn send(mut stream: TcpStream, bytes: usize) -> Result<u32> {
    let pattern: Vec<u8> = (0..PATTERN * 256).map(byte_at).collect();
    let mut sent = 0;
    while sent < bytes {
        // Every piece begins at a multiple of the pattern's length.
        let piece = pattern.len().min(bytes - sent);
        stream.write_all(&pattern[..piece]).with_context(|| format!("it stalled after {sent} bytes"))?;
        sent += piece;
    }
    let segment = socket2::SockRef::from(&stream).tcp_mss()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(segment)
}

fn receive(mut stream: TcpStream) -> Result<usize> {
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    loop {
        let count = stream.read(&mut buffer).with_context(|| format!("it stalled after {received} bytes"))?;
        if count == 0 {
            return Ok(received);
        }
        let wrong = buffer[..count].iter().enumerate().find(|(at, byte)| **byte != byte_at(received + at));
        if let Some((at, _)) = wrong {
            return Err(anyhow!("byte {} is not the one that was sent", received + at));
        }
        received += count;
    }
}

/// The byte at an offset of the stream, below [`PATTERN`] and so within 8 bits.
fn byte_at(offset: usize) -> u8 {
    u8::try_from(offset % PATTERN).unwrap_or_default()
}
