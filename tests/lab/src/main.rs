//! Small clusters in network namespaces.
fn main() {}
