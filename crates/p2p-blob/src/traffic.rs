//! What a node has sent, by what it ran on, and how busy it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// What a connection runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, with TLS or Noise.
    Tcp,
    /// QUIC, over UDP.
    Quic,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Quic];

    /// Its name in numbers and texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }

    /// That of a connection with this address at its other end.
    pub(crate) fn of(remote: &Multiaddr) -> Self {
        let is_quic = |part| matches!(part, Protocol::Quic | Protocol::QuicV1);
        if remote.iter().any(is_quic) { Self::Quic } else { Self::Tcp }
    }
}

/// A peer that is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectedPeer {
    /// Which.
    pub peer: PeerId,
    /// What its newest connection runs on.
    pub transport: Transport,
    /// Whether this node has dialed it, at an address that others may be told of.
    pub is_dialed: bool,
}

/// What a connected peer has told of itself. It is not to be trusted, and of a few KiB at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Introduction {
    /// Which program it says that it is.
    pub agent: String,
    /// Whether it speaks a version of the blob protocol.
    pub has_blobs: bool,
    /// All protocols that it speaks.
    pub protocols: Vec<String>,
    /// What its newest connection runs on.
    pub transport: Transport,
    /// Whether that is secured with TLS; else it is with noise.
    pub is_tls: bool,
    /// The last time to an answer (ping).
    pub round_trip: Option<Duration>,
}

/// What a node has served so far, and is serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    sent_bytes: [u64; 2],
    /// Answers "busy" that it gave.
    pub busy_answers_given: u64,
    /// Answers "busy" that it got.
    pub busy_answers_got: u64,
    /// Requests that wait for an upload slot.
    pub queued_requests: usize,
    /// Answers that are being sent.
    pub answers_under_way: usize,
}

impl Traffic {
    /// Bytes of blobs that were sent over this transport.
    pub fn sent_bytes(&self, transport: Transport) -> u64 {
        self.sent_bytes[transport as usize]
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent_bytes: [AtomicU64; 2],
    busy_given: AtomicU64,
    busy_got: AtomicU64,
}

impl Counters {
    pub(crate) fn sent(&self, transport: Transport, bytes: u64) {
        self.sent_bytes[transport as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn busy_given(&self) {
        self.busy_given.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn busy_got(&self) {
        self.busy_got.fetch_add(1, Ordering::Relaxed);
    }

    /// All bytes sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn traffic(&self, queued_requests: usize, answers_under_way: usize) -> Traffic {
        Traffic {
            sent_bytes: [0, 1].map(|at: usize| self.sent_bytes[at].load(Ordering::Relaxed)),
            busy_answers_given: self.busy_given.load(Ordering::Relaxed),
            busy_answers_got: self.busy_got.load(Ordering::Relaxed),
            queued_requests,
            answers_under_way,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_told_by_the_address() {
        for (address, transport) in [
            ("/ip4/192.0.2.1/tcp/4201", Transport::Tcp),
            ("/ip6/::1/udp/4201/quic-v1", Transport::Quic),
            (
                "/ip4/192.0.2.1/udp/1/quic-v1/p2p/12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7",
                Transport::Quic,
            ),
        ] {
            assert_eq!(Transport::of(&address.parse().unwrap()), transport, "{address}");
        }
    }

    #[test]
    fn bytes_are_counted_by_transport() {
        let counters = Counters::default();
        counters.sent(Transport::Tcp, 3);
        counters.sent(Transport::Quic, 5);
        counters.sent(Transport::Quic, 1);
        let traffic = counters.traffic(2, 1);
        assert_eq!(Transport::ALL.map(|transport| traffic.sent_bytes(transport)), [3, 6]);
        assert_eq!((counters.sent_bytes(), traffic.queued_requests), (9, 2));
    }
}
