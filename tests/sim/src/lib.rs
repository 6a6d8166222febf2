//! A whole cluster under a virtual clock.
