//! Questions over TCP and HTTP between namespaces of the lab, without a process.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{netns, slowness};

/// How long a silent server is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// The body of the answer to GET `path`, asked from the namespace (full name); any status but 200 is an error.
pub(crate) fn get(namespace: &str, server: SocketAddr, path: &str) -> Result<String> {
    let timeout = PATIENCE * slowness();
    let mut stream = netns::within(namespace, || TcpStream::connect_timeout(&server, timeout))?
        .with_context(|| format!("{namespace} cannot connect to {server}"))?;
    stream.set_read_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("asking {server} from {namespace}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "{server} answers {namespace} with {status}");
    Ok(body.trim().to_owned())
}

/// From which address a connection from one namespace comes, as it is seen in another (full names), at its `address`.
pub(crate) fn source_seen(from: &str, to: &str, address: Ipv4Addr) -> Result<Ipv4Addr> {
    let listener = netns::within(to, || TcpListener::bind((address, 0)))?
        .with_context(|| format!("cannot listen on {address} in {to}"))?;
    let target = listener.local_addr()?;
    let connect = || TcpStream::connect_timeout(&target, PATIENCE * slowness());
    let _stream = netns::within(from, connect)?
        .with_context(|| format!("{from} cannot connect to {target} in {to}"))?;
    match listener.accept()?.1.ip() {
        IpAddr::V4(seen) => Ok(seen),
        IpAddr::V6(seen) => bail!("{to} is reached from {seen}"),
    }
}
