//! Nodes on real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod connect;
mod errors;
mod fetch;
mod peers;
mod serving;
mod shutdown;
