//! Who gets which address: choose, claim, release, sweep.
