//! A libp2p swarm that fetches and serves byte ranges of blobs.
//!
//! [`start`] runs a node: one task owns the swarm, each inbound stream is served by a task of its own, and each
//! [`RangeSession`] has one. A [`Client`] connects to peers and opens a [`Session`] with one; what it fetches is *not*
//! verified here. What is served comes from a [`Store`].
//!
//! The bytes on the wire are those of `docs/protocol.md`.
#![forbid(unsafe_code)]

mod address;
mod admit;
mod behaviour;
mod client;
mod config;
mod dht;
mod error;
mod handler;
mod holders;
mod identity;
mod lan;
mod limit;
mod listen;
mod private;
mod progress;
mod reach;
mod record;
mod serve;
mod session;
mod store;
mod swarm;
mod task;
mod transport;
mod wire;

pub use address::{is_dialable, split_peer};
pub use client::{Client, Fetching, PeerEvent, Task, source_id, start};
pub use config::{Config, Limits, Versions};
pub use dht::DhtMode;
pub use error::{ConnectError, FetchError, IdentityError, StartError};
pub use identity::Identity;
pub use private::{NetworkKey, NetworkKeyError};
pub use record::Contact;
pub use session::{BlobBody, BlobSession, GetRequest, RangeSession, Session, blob_size, read_blob};
pub use store::{Blob, ReadOutcome, Store};
pub use wire::{FramingError, MAX_RANGE_BYTES};

pub use libp2p::{Multiaddr, PeerId};
