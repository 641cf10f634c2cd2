//! Nodes on real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod capability;
mod closed;
mod common;
mod connect;
mod errors;
mod fetch;
mod found;
mod limits;
mod peers;
#[cfg(feature = "nat")]
mod relayed;
mod serving;
mod shutdown;
mod told;
