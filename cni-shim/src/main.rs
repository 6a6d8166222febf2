//! The CNI plugin of Manx.
fn main() {}
