//! What can go wrong, and who is at fault for it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::DialError;
use manifest::{Blame, ByteRange, Digest, SourceId};

use crate::limit::stall::Halt;
use crate::wire::FramingError;

/// Why a fetch from a peer failed. Cheap to clone: what ends a stream fails every request on it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The peer says that it does not have the blob.
    #[error("peer {peer} does not have blob {blob}")]
    NotFound {
        /// Who was asked.
        peer: SourceId,
        /// For what.
        blob: Digest,
    },
    /// The peer has the blob, but not these bytes of it.
    #[error("peer {peer} does not hold {range} of blob {blob}")]
    NotHeld {
        /// Who was asked.
        peer: SourceId,
        /// For which blob.
        blob: Digest,
        /// For which of its bytes.
        range: ByteRange,
    },
    /// The peer has no free upload slot.
    #[error("peer {peer} is busy, ask again in {retry_after:?}")]
    Busy {
        /// Who was asked.
        peer: SourceId,
        /// When to ask again, as the peer says.
        retry_after: Duration,
    },
    /// The peer refused the request as wrong, for instance as out of the blob's bounds.
    #[error("peer {peer} refused the request for {blob} as wrong: {reason:?}")]
    BadRequest {
        /// Who was asked.
        peer: SourceId,
        /// For which blob or manifest.
        blob: Digest,
        /// What the peer said: at most 256 bytes, not to be trusted.
        reason: String,
    },
    /// The peer's answer does not have the length that was asked for.
    #[error("peer {peer} answered with {got_bytes} bytes for blob {blob} instead of {expected_bytes}")]
    WrongLength {
        /// Who answered.
        peer: SourceId,
        /// Which blob was asked for.
        blob: Digest,
        /// The length asked for.
        expected_bytes: u64,
        /// The length of the answer.
        got_bytes: u64,
    },
    /// The peer says that the blob has another size than it must have.
    #[error("peer {peer} says that blob {blob} has {got_bytes} bytes, it must have {expected_bytes}")]
    WrongSize {
        /// Who answered.
        peer: SourceId,
        /// Which blob was asked for.
        blob: Digest,
        /// The size that the caller knows.
        expected_bytes: u64,
        /// The size that the peer claims.
        got_bytes: u64,
    },
    /// The blob is larger than the caller allows, if the peer is to be believed.
    #[error("peer {peer} says that blob {blob} has {got_bytes} bytes, over the limit of {max_bytes}")]
    TooLarge {
        /// Who answered.
        peer: SourceId,
        /// Which blob was asked for.
        blob: Digest,
        /// The size that the peer claims.
        got_bytes: u64,
        /// The caller's limit.
        max_bytes: u64,
    },
    /// The peer's bytes are not an answer of the protocol. The stream is closed.
    #[error("peer {peer} broke the protocol")]
    BrokenFraming {
        /// Who sent them.
        peer: SourceId,
        /// What was found.
        #[source]
        source: FramingError,
    },
    /// No byte was received or sent for a whole progress timeout. The stream is closed.
    #[error("peer {peer} made no progress for {after:?}")]
    Stalled {
        /// Who stalled.
        peer: SourceId,
        /// For how long.
        after: Duration,
    },
    /// The stream or its connection has ended. A new one may work.
    #[error("the stream to peer {peer} is closed")]
    Closed {
        /// The peer at the other end.
        peer: SourceId,
        /// What the transport says, if it says anything.
        #[source]
        source: Option<Arc<io::Error>>,
    },
    /// There is no connection to the peer: [`crate::Client::connect`] makes one.
    #[error("not connected to peer {peer}")]
    Unreachable {
        /// The peer.
        peer: SourceId,
    },
    /// The peer speaks no version of the blob protocol that this node speaks.
    #[error("peer {peer} speaks none of {offered}")]
    UnsupportedProtocol {
        /// The peer.
        peer: SourceId,
        /// The protocol names that were offered to it.
        offered: String,
    },
    /// The caller's range or buffer is no good. Nothing was sent.
    #[error(
        "cannot ask for {range} of blob {blob} into a buffer of {buf_bytes} bytes: \
             a range has 1 to {max_bytes} bytes and its buffer as many"
    )]
    BadRange {
        /// Which blob.
        blob: Digest,
        /// The range asked for.
        range: ByteRange,
        /// The length of the buffer given.
        buf_bytes: usize,
        /// The longest range of one request.
        max_bytes: u32,
    },
    /// The caller reads past the end of a blob.
    #[error("cannot read {buf_bytes} bytes of blob {blob}: {left_bytes} are left")]
    PastEnd {
        /// Which blob.
        blob: Digest,
        /// The length of the buffer given.
        buf_bytes: usize,
        /// How many bytes of the blob were not read yet.
        left_bytes: u64,
    },
    /// The network task has ended.
    #[error("the network task has stopped")]
    Stopped,
}

impl FetchError {
    /// The error for a stream that halted.
    pub(crate) fn halted(peer: &SourceId, limit: Duration, halt: Halt) -> Self {
        match halt {
            Halt::Stalled => Self::Stalled { peer: peer.clone(), after: limit },
            Halt::Closed(source) => Self::Closed { peer: peer.clone(), source: source.map(Arc::new) },
        }
    }

    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::WrongLength { .. } | Self::WrongSize { .. } | Self::BrokenFraming { .. } => Blame::Peer,
            // A size over the caller's limit may well be true: the caller named a large blob.
            Self::TooLarge { .. }
            | Self::NotFound { .. }
            | Self::NotHeld { .. }
            | Self::Busy { .. }
            | Self::BadRequest { .. }
            | Self::Stalled { .. }
            | Self::Closed { .. }
            | Self::Unreachable { .. }
            | Self::UnsupportedProtocol { .. } => Blame::Network,
            Self::BadRange { .. } | Self::PastEnd { .. } => Blame::Caller,
            Self::Stopped => Blame::Us,
        }
    }
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answered, or not as a libp2p node; the cause lists what was tried.
    #[error("cannot connect to {addr}")]
    Dial {
        /// The address as given.
        addr: Multiaddr,
        /// What the transports said.
        #[source]
        source: Box<DialError>,
    },
    /// The name in the address has no address of the IP version that was asked for.
    #[error(
        "cannot connect to {addr}: no {family} address was found for the name; /dns/… looks for both kinds"
    )]
    Unresolved {
        /// The address as given.
        addr: Multiaddr,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// What the transports said.
        #[source]
        source: Box<DialError>,
    },
    /// The address names no transport that this node has.
    #[error(
        "cannot connect to {addr}: expected /ip4/…, /ip6/… or /dns/…, then /tcp/… or /udp/…/quic-v1, then perhaps /p2p/…"
    )]
    UnsupportedAddress {
        /// The address as given.
        addr: Multiaddr,
    },
    /// Another peer is at the address.
    #[error("expected peer {expected} at {addr}, found {found}")]
    WrongPeer {
        /// The address as given.
        addr: Multiaddr,
        /// The peer id in the address.
        expected: SourceId,
        /// Who answered.
        found: SourceId,
    },
    /// The address is this node's own.
    #[error("{addr} is this node itself")]
    OwnAddress {
        /// The address as given.
        addr: Multiaddr,
    },
    /// No connection was established in time.
    #[error("no connection to {addr} within {after:?}")]
    TimedOut {
        /// The address as given.
        addr: Multiaddr,
        /// The time limit.
        after: Duration,
    },
    /// The network task has ended.
    #[error("the network task has stopped")]
    Stopped,
}

impl ConnectError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Dial { .. } | Self::Unresolved { .. } | Self::WrongPeer { .. } | Self::TimedOut { .. } => {
                Blame::Network
            }
            Self::UnsupportedAddress { .. } | Self::OwnAddress { .. } => Blame::Caller,
            Self::Stopped => Blame::Us,
        }
    }
}

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// [`crate::start`] was called outside of a tokio runtime.
    #[error("the network task needs a tokio runtime and there is none here")]
    NoRuntime,
    /// TLS counts the seconds since 1970, and panics where there are none.
    #[error(
        "the clock of this machine stands at a time before 1970: set it, connections cannot be encrypted before that"
    )]
    Clock,
    /// A transport could not be set up.
    #[error("cannot set up {transport}")]
    Transport {
        /// Which one.
        transport: &'static str,
        /// Its reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address as configured.
        addr: Multiaddr,
        /// What the transport says.
        #[source]
        source: libp2p::TransportError<io::Error>,
    },
}

impl StartError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NoRuntime | Self::Listen { .. } => Blame::Caller,
            Self::Clock | Self::Transport { .. } => Blame::Us,
        }
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The key file cannot be read, created or locked.
    #[error("cannot {action} the identity {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no key file.
    #[error("there is no identity {}: a node that runs with this cache makes one", path.display())]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// Others than its owner may read the key file.
    #[error("identity {} has mode {mode:04o}, expected 0600: others may have read the key", path.display())]
    TooOpen {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no Ed25519 key.
    #[error(
        "identity {} is not an Ed25519 key in libp2p's protobuf form: put the right file there, or remove it, and the node \
         gets another name",
        path.display()
    )]
    Invalid {
        /// The key file.
        path: PathBuf,
        /// Why it does not decode.
        #[source]
        source: libp2p::identity::DecodingError,
    },
}

impl IdentityError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Io { .. } | Self::Missing { .. } | Self::Invalid { .. } => Blame::Us,
            Self::TooOpen { .. } => Blame::Caller,
        }
    }
}
