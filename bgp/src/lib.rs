//! BGP-4 as pure state machines: wire, session, RIB, speaker.
