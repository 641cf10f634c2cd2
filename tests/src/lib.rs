//! What the end-to-end tests are made of: the real binary, a real EVM node, real sockets, and peers that misbehave as a
//! test wants.
//!
//! A failure here is a failed test: helpers panic, and say what they saw. Nothing sleeps; what must happen is waited for,
//! at most [`DEADLINE`].
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod answer;
mod attack;
mod chain;
mod confined;
mod disk;
mod gate;
mod home;
mod http;
mod killer;
mod liars;
mod line;
mod lure;
mod model;
mod network;
mod parrot;
mod peer;
mod process;
mod rpc;
mod seeder;
mod terminal;
mod tools;
mod tree;

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

pub use answer::{Fetched, Source};
pub use attack::{Attack, Way};
pub use chain::Chain;
pub use confined::{as_user, before_1970, limited, read_only, with_umask};
pub use disk::{Disk, FileSystem, Overlay};
pub use gate::Gate;
pub use home::Home;
pub use http::{Http, Reply};
pub use killer::{Killed, Killer};
pub use liars::Liars;
pub use line::Line;
pub use lure::{Lure, Reached};
pub use model::{Model, PIECE_BYTES, Recipe, made_up};
pub use network::Network;
pub use parrot::Parrot;
pub use peer::{Conduct, Peer};
pub use process::{Outcome, Process, Usage};
pub use rpc::{ANYTHING, Keys, Mood, Rpc};
pub use seeder::Seeder;
pub use terminal::Terminal;
pub use tools::{anvil, browser, demo, python_peer, real_inputs, sharder, wheel_script};
pub use tree::Tree;

/// What is waited for comes in milliseconds; a loaded machine gets this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// An address on this machine, at a port that is free.
pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";
/// The same for QUIC.
pub const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Waits for what must happen.
///
/// # Panics
/// When it does not happen before [`DEADLINE`].
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Makes a file.
///
/// # Panics
/// When that fails.
pub fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

/// Makes a file that only its owner can read, as files of secrets must be.
///
/// # Panics
/// When that fails.
pub fn put_private(path: &Path, bytes: &[u8]) {
    put(path, b"");
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    put(path, bytes);
}
