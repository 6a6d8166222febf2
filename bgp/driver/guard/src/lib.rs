//! Options of TCP sockets that keep forged segments out: signatures with a shared key (TCP_MD5SIG, RFC 2385), and the
//! least TTL of what is received (IP_MINTTL, RFC 5082) together with that of the SYN which began a connection
//! (TCP_SAVED_SYN).
//!
//! No maintained crate wraps them (socket2, rustix and nix do not), and setsockopt(2) and getsockopt(2) with values of one's own
//! cannot be had without `unsafe`. So there is this crate, which consists of these calls; no other crate of the workspace may
//! contain `unsafe`. The structures are put together and taken apart as octets, which is safe.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, SockRef};

/// The longest key that the kernel takes, in octets (TCP_MD5SIG_MAXKEYLEN).
pub const MOST_KEY: usize = 80;
/// `sizeof(struct tcp_md5sig)`: an address storage; flags, prefix length, key length, interface; the key.
const MD5SIG: usize = ADDRESS + 8 + MOST_KEY;
/// `sizeof(struct __kernel_sockaddr_storage)`.
const ADDRESS: usize = 128;

/// Signs what goes between the socket and the peer, and takes nothing else from it. Without a key nothing is signed any more, and
/// signed segments are not taken.
///
/// On a socket that listens it counts for connections to come, each peer having a key of its own; on a connection at once.
/// Errors: `InvalidInput` for a key that is longer than [`MOST_KEY`] or for an IPv6 peer of an IPv4 socket; what the
/// kernel says, as ENOPROTOOPT where it has no signatures.
pub fn set_md5_key(socket: impl AsFd, peer: IpAddr, key: Option<&[u8]>) -> io::Result<()> {
    let socket = socket.as_fd();
    let value = md5sig(SockRef::from(&socket).local_addr()?.domain(), peer, key.unwrap_or_default())?;
    match set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &value) {
        // There was none to take away.
        Err(error) if key.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Drops what arrives with a smaller TTL; 0 takes everything.
pub fn set_least_ttl(socket: impl AsFd, least: u8) -> io::Result<()> {
    let socket = socket.as_fd();
    let value = c_int::from(least).to_ne_bytes();
    if SockRef::from(&socket).local_addr()?.domain() == Domain::IPV6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &value)?;
    }
    // On an IPv6 socket for a peer with a mapped IPv4 address.
    set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &value)
}

/// Has a socket that listens keep the SYNs of its connections, for [`syn_ttl`].
pub fn keep_syns(listener: impl AsFd) -> io::Result<()> {
    set(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &c_int::from(1u8).to_ne_bytes())
}

/// The TTL with which the SYN of an accepted connection arrived; `None` when it was not kept.
///
/// The least TTL of a connection cannot be set before the connection is accepted, and by then its first words may have come.
pub fn syn_ttl(connection: impl AsFd) -> io::Result<Option<u8>> {
    let mut headers = [0; 256];
    let length = get(connection.as_fd(), libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut headers)?;
    Ok(match headers.get(..length) {
        Some([first, rest @ ..]) if first >> 4 == 4 => rest.get(7).copied(),
        Some([first, rest @ ..]) if first >> 4 == 6 => rest.get(6).copied(),
        _ => None,
    })
}

/// `struct tcp_md5sig` of linux/tcp.h.
fn md5sig(domain: Domain, peer: IpAddr, key: &[u8]) -> io::Result<[u8; MD5SIG]> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if key.len() > MOST_KEY {
        return invalid("the key is longer than 80 octets");
    }
    let mut value = [0; MD5SIG];
    match (domain, peer.to_canonical()) {
        (Domain::IPV4, IpAddr::V4(peer)) => {
            value[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            value[4..8].copy_from_slice(&peer.octets());
        }
        (Domain::IPV4, IpAddr::V6(_)) => return invalid("an IPv4 socket has no IPv6 peer"),
        (_, peer) => {
            let peer = match peer {
                IpAddr::V4(peer) => peer.to_ipv6_mapped(),
                IpAddr::V6(peer) => peer,
            };
            value[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            value[8..24].copy_from_slice(&peer.octets());
        }
    }
    let length = (key.len() as u16).to_ne_bytes();
    value[ADDRESS + 2..ADDRESS + 4].copy_from_slice(&length);
    value[ADDRESS + 8..][..key.len()].copy_from_slice(key);
    Ok(value)
}

#[expect(unsafe_code, reason = "setsockopt(2) with a value that no safe wrapper knows")]
fn set(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; the kernel only reads, and no more than `length` octets, which are
    // those of `value`, from an address that it does not keep.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many octets the kernel wrote.
#[expect(unsafe_code, reason = "getsockopt(2) of a value that no safe wrapper knows")]
fn get(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &mut [u8]) -> io::Result<usize> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes no more than `length` octets to `value`, which is
    // that long and of which any octets are valid, and the new length to `length`; it keeps neither address.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok((length as usize).min(value.len())) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::time::Duration;

    use socket2::{Socket, Type};

    /// A listener that knows a key for 127.0.0.1, and a connection to it under another; whether they meet.
    fn meets(listen: SocketAddr, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> bool {
        let peer = IpAddr::from(Ipv4Addr::LOCALHOST);
        let listener = TcpListener::bind(listen).unwrap();
        set_md5_key(&listener, peer, Some(b"before")).unwrap();
        set_md5_key(&listener, peer, ours).unwrap();
        let to = SocketAddr::new(peer, listener.local_addr().unwrap().port());
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        set_md5_key(&socket, to.ip(), theirs).unwrap();
        socket.connect_timeout(&to.into(), Duration::from_millis(400)).is_ok()
    }

    #[test]
    fn only_who_has_the_key_gets_through() {
        for listen in ["127.0.0.1:0", "[::]:0"] {
            let listen = listen.parse().unwrap();
            assert!(meets(listen, Some(b"key"), Some(b"key")), "{listen}");
            assert!(meets(listen, None, None), "{listen}");
            assert!(!meets(listen, Some(b"key"), Some(b"other")), "{listen}");
            assert!(!meets(listen, Some(b"key"), None), "{listen}");
            assert!(!meets(listen, None, Some(b"key")), "{listen}");
        }
    }

    #[test]
    fn what_has_come_too_far_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_least_ttl(&listener, 255).unwrap();
        let to = listener.local_addr().unwrap().into();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(socket.connect_timeout(&to, Duration::from_millis(400)).is_err(), "64 at most");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_ttl_v4(255).unwrap();
        assert!(socket.connect_timeout(&to, Duration::from_secs(5)).is_ok());
        set_least_ttl(TcpListener::bind("[::1]:0").unwrap(), 255).unwrap();
    }

    #[test]
    fn the_syn_of_a_connection_is_kept_with_its_ttl() {
        for (listen, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let listener = TcpListener::bind(listen).unwrap();
            let to = SocketAddr::new(to.parse().unwrap(), listener.local_addr().unwrap().port());
            let dial = || Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            let plain = dial();
            plain.connect(&to.into()).unwrap();
            assert_eq!(syn_ttl(listener.accept().unwrap().0).unwrap(), None, "{listen}");
            keep_syns(&listener).unwrap();
            let socket = dial();
            if to.is_ipv4() { socket.set_ttl_v4(77) } else { socket.set_unicast_hops_v6(77) }.unwrap();
            socket.connect(&to.into()).unwrap();
            assert_eq!(syn_ttl(listener.accept().unwrap().0).unwrap(), Some(77), "{listen}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_set_is_refused() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused =
            |peer: &str, key: &[u8]| set_md5_key(&socket, peer.parse().unwrap(), Some(key)).is_err();
        assert!(refused("127.0.0.1", &[1; 81]) && refused("::1", b"key") && !refused("127.0.0.1", &[1; 80]));
        assert!(set_md5_key(&socket, "127.0.0.9".parse().unwrap(), None).is_ok(), "nothing to remove");
    }
}
