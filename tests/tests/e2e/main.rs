//! The real binary, against a real EVM node, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod access;
mod chain;
mod cli;
mod demo;
mod discovery;
mod doors;
mod faults;
mod fetch;
mod folder;
mod follow;
mod from_shards;
mod heal;
mod integrity;
mod kills;
mod liars;
mod limits;
mod listening;
mod money;
mod places;
mod publish;
mod python;
mod quorum;
mod real;
mod resume;
mod secrets;
mod sharing;
mod single_blob;
mod soak;
mod space;
mod subset;
mod tensors;
mod units;
mod update;
mod victims;
mod wheel;
