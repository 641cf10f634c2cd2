//! Nodes over real sockets and files.
#![expect(clippy::unwrap_used, reason = "test code")]

mod status;
mod swap;
