//! The node agent of Manx.
fn main() {}
