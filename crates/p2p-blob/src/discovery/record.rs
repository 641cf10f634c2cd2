//! Signed peer records: a peer's own addresses. Any peer can pass one on, only the peer itself can make one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::core::{PeerRecord, SignedEnvelope};
use libp2p::{Multiaddr, PeerId};
use manifest::Digest;

use crate::discovery::address::{self, Scope};
use crate::wire::MAX_RECORD_BYTES;

/// Addresses of one peer that are used.
pub(crate) const MAX_ADDRS: usize = 16;

/// Records that are remembered as checked: some 2 MiB at most.
const MAX_KNOWN: usize = 1024;

/// A peer id and its possible addresses. Nothing of it is proven before a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Who it is.
    pub peer: PeerId,
    /// Its addresses, without `/p2p/…` at the end.
    pub addrs: Vec<Multiaddr>,
}

impl Contact {
    /// The peer at those of `addrs` that can be dialed and are its own: at most 16.
    pub(crate) fn new<'a>(peer: PeerId, addrs: impl IntoIterator<Item = &'a Multiaddr>) -> Self {
        let mut own: Vec<Multiaddr> = Vec::new();
        for addr in addrs {
            if let Some(addr) = address::passable(addr, &peer)
                && !own.contains(&addr)
            {
                own.push(addr);
            }
            if own.len() == MAX_ADDRS {
                break;
            }
        }
        Self { peer, addrs: own }
    }

    /// Its first address, with `/p2p/…` at the end.
    pub fn full_addr(&self) -> Option<Multiaddr> {
        Some(address::with_peer(self.addrs.first()?.clone(), self.peer))
    }

    /// Without the addresses whose scope is narrower than `scope`.
    pub(crate) fn within(mut self, scope: Scope) -> Self {
        self.addrs.retain(|addr| address::scope(addr).is_some_and(|one| one >= scope));
        self
    }
}

/// A record with a valid signature.
#[derive(Debug, Clone)]
pub(crate) struct SignedRecord {
    contact: Contact,
    /// The envelope in its protobuf encoding: what is passed on.
    bytes: Vec<u8>,
}

impl SignedRecord {
    /// The record in these bytes; `None` when they are none, or it is not signed by the peer that it is about.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::of(SignedEnvelope::from_protobuf_encoding(bytes).ok()?)
    }

    /// The record in the envelope, in the form of rust-libp2p or in the one of the specification (RFC 0003).
    pub(crate) fn of(envelope: SignedEnvelope) -> Option<Self> {
        let bytes = envelope.clone().into_protobuf_encoding();
        if bytes.len() > MAX_RECORD_BYTES {
            return None;
        }
        let record = PeerRecord::from_signed_envelope(envelope.clone())
            .or_else(|_| PeerRecord::from_signed_envelope_interop(envelope))
            .ok()?;
        Some(Self { contact: Contact::new(record.peer_id(), record.addresses()), bytes })
    }

    pub(crate) fn contact(&self) -> &Contact {
        &self.contact
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the record has an address that can be reached from `scope`.
    pub(crate) fn is_of_use_within(&self, scope: Scope) -> bool {
        self.contact.addrs.iter().any(|addr| address::scope(addr).is_some_and(|one| one >= scope))
    }
}

/// Records whose signatures were checked. In a crowd every peer passes on the same ones, and asks again: checking all of
/// them each time took a fifth of the CPU of sixty small fetches.
#[derive(Debug, Default)]
pub(crate) struct KnownRecords(Mutex<HashMap<Digest, SignedRecord>>);

impl KnownRecords {
    /// As [`SignedRecord::decode`].
    pub(crate) fn decode(&self, bytes: &[u8]) -> Option<SignedRecord> {
        let digest = Digest::of(bytes);
        if let Some(known) = self.known().get(&digest) {
            return Some(known.clone());
        }
        let record = SignedRecord::decode(bytes)?;
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(digest, record.clone());
        Some(record)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, SignedRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn records_of_both_forms_are_read_and_passed_on_as_they_are() {
        let key = Keypair::generate_ed25519();
        let at = addrs(&["/ip4/192.0.2.7/tcp/4201", "/ip4/10.0.0.1/udp/4201/quic-v1"]);
        for record in [PeerRecord::new(&key, at.clone()), PeerRecord::new_interop(&key, at.clone())] {
            let bytes = record.unwrap().into_signed_envelope().into_protobuf_encoding();
            let read = SignedRecord::decode(&bytes).unwrap();
            assert_eq!(*read.contact(), Contact { peer: key.public().to_peer_id(), addrs: at.clone() });
            assert_eq!(read.bytes(), bytes);
            assert!(read.is_of_use_within(Scope::World));
        }
    }

    #[test]
    fn a_record_is_known_by_all_of_its_bytes_and_only_so_many_are() {
        let (key, known) = (Keypair::generate_ed25519(), KnownRecords::default());
        let encoded = |port: usize| {
            let record = PeerRecord::new(&key, addrs(&[&format!("/ip4/192.0.2.7/tcp/{port}")])).unwrap();
            record.into_signed_envelope().into_protobuf_encoding()
        };
        let mut bytes = encoded(1);
        for _ in 0..2 {
            assert_eq!(known.decode(&bytes).unwrap().bytes(), bytes);
        }
        *bytes.last_mut().unwrap() ^= 1;
        assert!(known.decode(&bytes).is_none());
        for port in 2..MAX_KNOWN + 10 {
            known.decode(&encoded(port)).unwrap();
            assert!(known.known().len() <= MAX_KNOWN);
        }
    }

    #[test]
    fn what_another_peer_has_signed_is_none() {
        let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let record = PeerRecord::new(&key, addrs(&["/ip4/192.0.2.7/tcp/1"])).unwrap();
        let envelope = record.into_signed_envelope();
        let (payload, _) = envelope
            .payload_and_signing_key("libp2p-routing-state".to_owned(), b"/libp2p/routing-state-record")
            .unwrap();
        let stolen = SignedEnvelope::new(
            &other,
            "libp2p-routing-state".to_owned(),
            b"/libp2p/routing-state-record".to_vec(),
            payload.to_vec(),
        );
        assert!(SignedRecord::of(stolen.unwrap()).is_none());
        let mut bytes = envelope.into_protobuf_encoding();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(SignedRecord::decode(&bytes).is_none(), "byte {at}");
            bytes[at] ^= 1;
        }
        assert!(SignedRecord::decode(&bytes).is_some());
    }

    #[test]
    fn thousands_of_addresses_are_not_read_and_those_of_others_are_left_out() {
        let key = Keypair::generate_ed25519();
        let many = (1..5000u16).map(|port| format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap()).collect();
        let record = PeerRecord::new(&key, many).unwrap();
        assert!(SignedRecord::of(record.into_signed_envelope()).is_none());

        let (own, other) = (key.public().to_peer_id(), PeerId::random());
        let few = addrs(&[
            &format!("/ip4/192.0.2.7/tcp/1/p2p/{own}"),
            "/ip4/192.0.2.7/tcp/1",
            &format!("/ip4/192.0.2.7/tcp/2/p2p/{other}"),
            "/ip4/0.0.0.0/tcp/3",
            "/dnsaddr/example.org",
            "/memory/5",
        ]);
        let record = SignedRecord::of(PeerRecord::new(&key, few).unwrap().into_signed_envelope()).unwrap();
        assert_eq!(record.contact().addrs, addrs(&["/ip4/192.0.2.7/tcp/1"]));
        let many: Vec<_> =
            (1..60u16).map(|port| format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap()).collect();
        assert_eq!(Contact::new(own, &many).addrs.len(), MAX_ADDRS);
    }

    #[test]
    fn who_is_far_away_is_not_told_of_addresses_nearby() {
        let all = addrs(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/192.0.2.7/tcp/1"]);
        let contact = Contact::new(PeerId::random(), &all);
        for (scope, left) in [(Scope::Host, 3), (Scope::Site, 2), (Scope::World, 1)] {
            assert_eq!(contact.clone().within(scope).addrs, all[3 - left..]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(SignedRecord::decode(&bytes).is_none());
        }
    }
}
