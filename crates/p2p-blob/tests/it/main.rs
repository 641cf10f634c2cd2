//! Nodes on real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod connect;
mod errors;
mod fetch;
mod found;
mod peers;
mod serving;
mod shutdown;
