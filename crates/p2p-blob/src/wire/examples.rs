//! Checks the examples of `docs/protocol.md`.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::core::{PeerRecord, SignedEnvelope};
use manifest::{Digest, Have, HaveChange, PieceSet};

use super::v2::{GetHead, Refusal, Request};
use super::{have, peers, v1};

const PAGE: &str = include_str!("../../../../docs/protocol.md");

/// The fenced blocks of type `hex`, by name.
fn examples() -> HashMap<&'static str, Vec<u8>> {
    let mut examples = HashMap::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let block = lines.by_ref().take_while(|line| *line != "```");
        let bytes = block.flat_map(|line| line.split('#').next().unwrap().split_whitespace());
        let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert!(examples.insert(name, bytes).is_none(), "{name} stands twice");
    }
    examples
}

#[test]
fn every_example_of_the_page_is_what_the_code_reads_and_writes() {
    let (blob, manifest) = (Digest::of(b"abc"), Digest::of(b""));
    let mut examples = examples();
    let mut example = |name: &str| examples.remove(name).unwrap_or_else(|| panic!("no example {name}"));

    let request: [u8; v1::REQUEST_BYTES] = example("v1-request").try_into().unwrap();
    assert_eq!(v1::decode_request(&request), Ok(blob));
    assert_eq!(v1::encode_request(&blob), request);
    assert_eq!(example("v1-found"), [&v1::encode_size(Some(3))[..], b"abc"].concat());
    assert_eq!(example("v1-not-found"), v1::encode_size(None));

    for (name, request) in [
        ("get-whole", Request::Get { manifest: None, blob, offset: 0, length: 3 }),
        ("get-shard", Request::Get { manifest: Some(manifest), blob, offset: 5 << 30, length: 1 << 20 }),
        ("have", Request::Have { manifest, since: 0 }),
        ("peers", Request::Peers { manifest }),
    ] {
        let frame = example(name);
        assert_eq!(Request::decode(&frame[4..]), Ok(request), "{name}");
        assert_eq!(request.encode(), frame, "{name}");
    }

    let frame = example("get-held");
    let head = GetHead { size_bytes: 3, length: 3 };
    assert_eq!(GetHead::decode(frame[5..17].try_into().unwrap()), head);
    assert_eq!([&head.encode()[..], b"abc"].concat(), frame);

    let mut pieces = PieceSet::none(10);
    pieces.insert(0);
    pieces.insert(9);
    let shards = vec![PieceSet::all(4), PieceSet::none(4), pieces, PieceSet::none(1)];
    let have = Have { version: 7, change: HaveChange::Holds(shards) };
    let frame = example("have-held");
    assert_eq!(have::encode(&have), frame);
    assert_eq!(have::decode(&frame[5..], &[4, 4, 10, 1]), Ok(have));

    let frame = example("peers-known");
    let records = peers::decode(&frame[5..]).unwrap();
    assert_eq!(peers::encode(&records), frame);
    let [record] = records.try_into().unwrap();
    let envelope = SignedEnvelope::from_protobuf_encoding(record).unwrap();
    let record = PeerRecord::from_signed_envelope(envelope.clone())
        .or_else(|_| PeerRecord::from_signed_envelope_interop(envelope))
        .unwrap();
    assert_eq!(record.peer_id().to_string(), "12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7");
    assert_eq!(record.addresses(), ["/ip4/192.0.2.7/tcp/4201".parse().unwrap()]);

    for (name, refusal) in [
        ("not-found", Refusal::NotFound),
        ("busy", Refusal::Busy { retry_after: Duration::from_millis(500) }),
        ("not-held", Refusal::NotHeld),
        ("bad-request", Refusal::BadRequest { reason: "unknown request type 0x09".to_owned() }),
    ] {
        let frame = example(name);
        assert_eq!(Refusal::decode(frame[4], &frame[5..]), Ok(refusal.clone()), "{name}");
        assert_eq!(refusal.encode(), frame, "{name}");
    }
    assert!(examples.is_empty(), "examples without a test: {examples:?}");
}
