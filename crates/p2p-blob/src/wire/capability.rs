//! `/autonet/capability/1.0.0`: what a node of the existing network says of itself, and of which we tell and hear only the
//! blobs.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId};
use manifest::Digest;
use serde::Deserialize;
use serde_json::json;

/// Its name in stream negotiation.
pub(crate) const NAME: &str = "/autonet/capability/1.0.0";
/// The most blobs that are told: some 300 KiB.
pub(crate) const MAX_BLOBS: usize = 4096;
/// The longest text that is read.
pub(crate) const MAX_TOLD_BYTES: u32 = 512 << 10;
/// The most blobs that are remembered of a text; existing peers tell 50.
pub(crate) const MAX_TOLD_BLOBS: usize = 256;
/// Listen addresses that are told.
const MAX_ADDRS: usize = 16;
/// What a blob's digest is preceded by among the modules.
const BLOB: &str = "blob:";

/// A text with its length: exactly the fields that every version of the existing peers knows, as they refuse others.
pub(crate) fn encode(peer: PeerId, blobs: &[Digest], addrs: &[Multiaddr], now: SystemTime) -> Vec<u8> {
    let modules: Vec<_> = blobs.iter().take(MAX_BLOBS).map(|digest| format!("{BLOB}{digest}")).collect();
    let addrs: Vec<_> = addrs.iter().take(MAX_ADDRS).map(ToString::to_string).collect();
    let text = json!({
        "peer_id": peer.to_string(),
        "node_id": peer.to_string(),
        "roles": [],
        "gpu_type": "",
        "gpu_memory_mb": 0,
        "bandwidth_mbps": 0.0,
        "modules_hosted": modules,
        "listen_addrs": addrs,
        "timestamp": now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
    });
    let text = text.to_string();
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// The blobs that a text of any kind names: none if it is not understood.
pub(crate) fn blobs_in(text: &[u8]) -> HashSet<Digest> {
    #[derive(Deserialize)]
    struct Told {
        modules_hosted: Vec<String>,
    }
    let told: Option<Told> = serde_json::from_slice(text).ok();
    let modules = told.iter().flat_map(|told| &told.modules_hosted);
    let digests = modules.filter_map(|module| module.strip_prefix(BLOB)?.parse().ok());
    // They repeat themselves: what counts is how many are different.
    let mut blobs = HashSet::new();
    for digest in digests {
        if blobs.len() == MAX_TOLD_BLOBS {
            break;
        }
        blobs.insert(digest);
    }
    blobs
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn digests(count: usize) -> Vec<Digest> {
        (0..count).map(|number| Digest::of(&number.to_be_bytes())).collect()
    }

    fn text(frame: &[u8]) -> &[u8] {
        let (length, text) = frame.split_first_chunk().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, text.len());
        text
    }

    #[test]
    fn a_text_has_exactly_the_fields_that_all_versions_know() {
        let (peer, blobs) = (PeerId::random(), digests(2));
        let addrs = ["/ip4/192.0.2.7/tcp/4201".parse().unwrap()];
        let frame = encode(peer, &blobs, &addrs, UNIX_EPOCH + Duration::from_millis(1500));
        let told: serde_json::Value = serde_json::from_slice(text(&frame)).unwrap();
        let wanted = json!({
            "peer_id": peer.to_string(), "node_id": peer.to_string(), "roles": [], "gpu_type": "", "gpu_memory_mb": 0,
            "bandwidth_mbps": 0.0, "modules_hosted": [format!("blob:{}", blobs[0]), format!("blob:{}", blobs[1])],
            "listen_addrs": ["/ip4/192.0.2.7/tcp/4201"], "timestamp": 1.5,
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_is_told_and_heard_is_bounded() {
        let frame = encode(PeerId::random(), &digests(MAX_BLOBS + 1), &[], UNIX_EPOCH);
        assert!(frame.len() < MAX_TOLD_BYTES as usize, "what is told is heard");
        let told: serde_json::Value = serde_json::from_slice(text(&frame)).unwrap();
        assert_eq!(told["modules_hosted"].as_array().unwrap().len(), MAX_BLOBS);
        assert_eq!(blobs_in(text(&frame)).len(), MAX_TOLD_BLOBS);
    }

    #[test]
    fn others_of_the_network_are_understood_and_odd_texts_name_nothing() {
        let digest = digests(1)[0];
        let theirs = format!(
            r#"{{"agents": [{{"name": "x"}}], "modules_hosted": ["encoder", "blob:{digest}", "blob:{digest}", "blob:no"],
            "peer_id": "16Uiu2", "timestamp": 1.5, "model_state": {{}}}}"#
        );
        assert_eq!(blobs_in(theirs.as_bytes()), [digest].into());
        for odd in
            ["", "{", "[]", "null", "{}", r#"{"modules_hosted": 7}"#, r#"{"modules_hosted": [1]}"#, "\u{0}"]
        {
            assert!(blobs_in(odd.as_bytes()).is_empty(), "{odd:?}");
        }
        let deep = "[".repeat(MAX_TOLD_BYTES as usize);
        assert!(blobs_in(deep.as_bytes()).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_text(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            blobs_in(&bytes);
        }

        #[test]
        fn what_is_told_is_what_is_heard(count in 0usize..MAX_TOLD_BLOBS) {
            let blobs = digests(count);
            let frame = encode(PeerId::random(), &blobs, &[], SystemTime::now());
            prop_assert_eq!(blobs_in(text(&frame)), blobs.into_iter().collect());
        }
    }
}
