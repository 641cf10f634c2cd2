//! A libp2p swarm that fetches and serves byte ranges of blobs.
//!
//! [`start`] runs a node: one task owns the swarm, each inbound stream is served by a task of its own, and each
//! [`RangeSession`] has one. A [`Client`] connects to peers and opens a [`Session`] with one; what it fetches is *not*
//! verified here. What is served comes from a [`Store`].
//!
//! The bytes on the wire are those of `docs/protocol.md`.
#![forbid(unsafe_code)]

mod admit;
mod capability;
mod client;
mod config;
mod discovery;
mod error;
mod identity;
mod limit;
mod reach;
mod serve;
mod session;
mod store;
mod swarm;
mod traffic;
mod transport;
mod wire;

pub use client::{Client, Fetching, Task, start};
#[cfg(feature = "dht")]
pub use config::DhtMode;
pub use config::{Config, Limits, Versions};
pub use discovery::address::{is_dialable, split_peer};
pub use discovery::record::Contact;
pub use error::{ConnectError, FetchError, IdentityError, StartError};
pub use identity::{Identity, source_id};
pub use session::{BlobBody, BlobSession, GetRequest, RangeSession, Session, blob_size, read_blob};
pub use store::{Blob, ReadOutcome, Store};
pub use swarm::handler::Connection;
pub use swarm::listen::is_free;
pub use swarm::task::PeerEvent;
pub use traffic::{ConnectedPeer, Introduction, Traffic, Transport};
pub use transport::private::{NetworkKey, NetworkKeyError};
pub use wire::{FramingError, MAX_RANGE_BYTES};

pub use libp2p::{Multiaddr, PeerId};
