//! The `loader` command.
fn main() {}
