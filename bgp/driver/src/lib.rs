//! Sockets and timers for manx-bgp.
