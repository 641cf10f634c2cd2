//! Reading a manifest: what is refused, and in which words.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use common::{ROWS, list, plain, uniform};
use manifest::{Blame, Codec, Digest, MAX_MANIFEST_BYTES, Manifest, ManifestError};
use proptest::prelude::*;

/// `uniform` as JSON with the first `from` replaced; an empty `from` appends.
fn edited(from: &str, to: &str) -> String {
    let json = String::from_utf8(uniform().to_json()).unwrap();
    assert!(json.contains(from), "{from}");
    if from.is_empty() { json + to } else { json.replacen(from, to, 1) }
}

/// The message of an error, and those of its causes.
fn message(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", message(source)),
        None => error.to_string(),
    }
}

fn refusal(json: &[u8]) -> String {
    let error = Manifest::parse(json).unwrap_err();
    assert_eq!(error.blame(), Blame::Caller);
    message(&error)
}

#[test]
fn what_does_not_matter_is_ignored() {
    let ours = uniform();
    for (from, to) in [
        ("{\"erasure\"", "{\"new\": [null, -1, 1.5, {\"new\": {}}], \"new\": 2, \"erasure\""),
        ("{\"codec\"", "{\"data2\": null, \"codec\""),
        ("{\"hash\"", "{\"note\": {\"hash\": 1}, \"hash\""),
        ("{\"index\"", "{\"note\": 1.0, \"index\""),
        (", ", ",\r\n\t"),
        ("{\"erasure\"", " {\"\\u0065rasure\""),
        ("", "\n"),
    ] {
        assert_eq!(Manifest::parse(edited(from, to).as_bytes()).unwrap(), ours, "{to}");
    }
    // Any kind loads.
    let other = Manifest::parse(edited("vl-jepa", "a kind of 2031").as_bytes()).unwrap();
    assert_eq!(other.model_kind(), "a kind of 2031");
    // Without pieces it is complete.
    let json = edited("\"pieces\"", "\"other\"");
    assert_eq!(Manifest::parse(json.as_bytes()).unwrap().pieces(), None);
}

#[test]
fn a_field_of_the_wrong_type_is_refused() {
    for (from, to, expected) in [
        ("10,", "null,", "`total_size` is null, expected an integer of 0 or more"),
        ("10,", "true,", "`total_size` is true, expected an integer of 0 or more"),
        ("10,", "-10,", "`total_size` is the number -10, expected an integer of 0 or more"),
        ("10,", "10.0,", "`total_size` is the floating-point number 10.0, expected an integer of 0 or more"),
        ("10,", "1e1,", "`total_size` is the floating-point number 10.0, expected an integer of 0 or more"),
        ("10,", "-0,", "`total_size` is the floating-point number -0.0, expected an integer of 0 or more"),
        (
            "10,",
            "18446744073709551616,",
            "`total_size` is the floating-point number 1.8446744073709552e19, expected an integer of 0 or more",
        ),
        ("10,", "\"10\",", "`total_size` is the text \"10\", expected an integer of 0 or more"),
        ("10,", "[10],", "`total_size` is a list, expected an integer of 0 or more"),
        ("10,", "{},", "`total_size` is an object, expected an integer of 0 or more"),
        (
            "\"version\": 1",
            "\"version\": 1.0",
            "`version` is the floating-point number 1.0, expected an integer of 0 or more",
        ),
        ("\"version\": 1", "\"version\": true", "`version` is true, expected an integer of 0 or more"),
        ("\"vl-jepa\"", "1", "`model_kind` is the number 1, expected a text"),
        ("\"rs\"", "null", "`erasure.codec` is null, expected a text, \"replica\" or \"rs\""),
        ("\"parity\": 2", "\"parity\": false", "`erasure.parity` is false, expected an integer of 0 or more"),
        ("false", "0", "`shards[0].is_parity` is the number 0, expected true or false"),
        ("true", "\"true\"", "`shards[3].is_parity` is the text \"true\", expected true or false"),
        ("\"pieces\": {", "\"pieces\": null, \"other\": {", "`pieces` is null, expected an object"),
        ("\"pieces\": {", "\"pieces\": [], \"other\": {", "`pieces` is a list, expected an object"),
        ("{\"codec\"", "[], \"other\": {\"codec\"", "`erasure` is a list, expected an object"),
        ("[{", "{}, \"other\": [{", "`shards` is an object, expected a list of objects"),
        ("[{", "[[], {", "`shards[0]` is a list, expected an object"),
        ("[{", "[null, {", "`shards[0]` is null, expected an object"),
    ] {
        assert_eq!(refusal(edited(from, to).as_bytes()), expected);
    }
    for (json, found) in
        [("[]", "a list"), ("null", "null"), ("1", "the number 1"), ("\"\"", "the text \"\"")]
    {
        assert_eq!(refusal(json.as_bytes()), format!("`the manifest` is {found}, expected an object"));
    }
}

#[test]
fn a_text_that_is_not_a_digest_is_refused() {
    let hash = Digest::of(ROWS[0]).to_string();
    for bad in [hash.to_uppercase(), hash[1..].to_owned(), format!("{hash}0"), String::new(), "g".repeat(64)]
    {
        assert_eq!(
            refusal(edited(&hash, &bad).as_bytes()),
            format!(
                "`shards[0].hash` is not a digest: {bad:?} is not a digest: expected 64 lower-case hexadecimal \
                 characters"
            )
        );
    }
}

#[test]
fn missing_and_repeated_fields_are_refused() {
    for (key, field) in [
        ("version", "version"),
        ("model_kind", "model_kind"),
        ("total_size", "total_size"),
        ("shards", "shards"),
        ("erasure", "erasure"),
        ("merkle_root", "merkle_root"),
        ("codec", "erasure.codec"),
        ("data", "erasure.data"),
        ("parity", "erasure.parity"),
        ("hash", "shards[0].hash"),
        ("is_parity", "shards[0].is_parity"),
        ("size\": 4", "shards[0].size"),
        ("index\": 0", "shards[0].index"),
        ("size\": 1048576", "pieces.size"),
    ] {
        let json = edited(&format!("\"{key}"), &format!("\"x{key}"));
        assert_eq!(refusal(json.as_bytes()), format!("`{field}` is missing"));
    }
    for (from, to, field) in [
        ("{\"erasure\"", "{\"version\": 1, \"erasure\"", "version"),
        ("{\"erasure\"", "{\"total_size\": 10, \"erasure\"", "total_size"),
        ("{\"erasure\"", "{\"\\u0073hards\": [], \"erasure\"", "shards"),
        ("{\"erasure\"", "{\"pieces\": {\"size\": 64, \"index\": \"HASH\"}, \"erasure\"", "pieces"),
        ("{\"codec\"", "{\"codec\": \"rs\", \"codec\"", "erasure.codec"),
        ("\"index\": 1,", "\"index\": 1, \"index\": 1,", "shards[1].index"),
        ("\"size\": 1048576", "\"size\": 1048576, \"size\": 1048576", "pieces.size"),
    ] {
        let json = edited(from, &to.replace("HASH", &Digest::ZERO.to_string()));
        // An empty list would be refused before the second one is read.
        let json = json.replacen("[],", &format!("[{}],", &shard_json(0)), 1);
        assert_eq!(refusal(json.as_bytes()), format!("`{field}` is there twice, expected once"));
    }
}

fn shard_json(index: u64) -> String {
    let digest = Digest::of(&index.to_be_bytes());
    format!("{{\"index\": {index}, \"hash\": \"{digest}\", \"size\": 1, \"is_parity\": false}}")
}

#[test]
fn another_version_is_named_whatever_else_it_has() {
    let expected = "`version` is 2, expected 1: this manifest needs a newer loader";
    assert_eq!(refusal(edited("\"version\": 1", "\"version\": 2").as_bytes()), expected);
    assert_eq!(refusal(b"{\"shards\": {\"a\": 1.5}, \"version\": 2}"), expected);
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (from, to, expected) in [
        ("10,", "0,", "`total_size` is 0, expected 1 to 281474976710656"),
        ("10,", "281474976710657,", "`total_size` is 281474976710657, expected 1 to 281474976710656"),
        (
            "10,",
            "18446744073709551615,",
            "`total_size` is 18446744073709551615, expected 1 to 281474976710656",
        ),
        ("\"size\": 4", "\"size\": 0", "`shards[0].size` is 0, expected 1 to 281474976710656"),
        ("\"data\": 3", "\"data\": 0", "`erasure.data` is 0, expected 1 to 256"),
        ("\"data\": 3", "\"data\": 257", "`erasure.data` is 257, expected 1 to 256"),
        ("\"data\": 3", "\"data\": 4294967299", "`erasure.data` is 4294967299, expected 1 to 256"),
        ("\"data\": 3", "\"data\": 255", "`erasure.parity` is 2, expected 0 to 1"),
        ("\"parity\": 2", "\"parity\": 254", "`erasure.parity` is 254, expected 0 to 253"),
        ("\"parity\": 2", "\"parity\": 256", "`erasure.parity` is 256, expected 0 to 255"),
        ("1048576", "0", "`pieces.size` is 0, expected 64 to 4194304"),
        ("1048576", "63", "`pieces.size` is 63, expected 64 to 4194304"),
        ("1048576", "4194368", "`pieces.size` is 4194368, expected 64 to 4194304"),
        ("1048576", "100", "`pieces.size` is 100, expected a multiple of 64"),
        ("\"index\": 1,", "\"index\": 0,", "`shards[1].index` is 0, expected 1"),
        ("\"index\": 4,", "\"index\": 5,", "`shards[4].index` is 5, expected 4"),
    ] {
        assert_eq!(refusal(edited(from, to).as_bytes()), expected);
    }
}

#[test]
fn shards_that_do_not_fit_together_are_refused() {
    for (from, to, expected) in [
        (
            "\"parity\": 2",
            "\"parity\": 1",
            "`shards[3].is_parity` is true, expected false: of 5 shards the last 1 are parity",
        ),
        (
            "\"parity\": 2",
            "\"parity\": 3",
            "`shards[2].is_parity` is false, expected true: of 5 shards the last 3 are parity",
        ),
        ("\"parity\": 2", "\"parity\": 5", "`shards` has 5 entries, expected 6 to 65536"),
        (
            "true, \"size\": 4",
            "true, \"size\": 5",
            "`shards[3].size` is 5, expected 4, the size of a row, as it is parity",
        ),
        (
            "false, \"size\": 4",
            "false, \"size\": 5",
            "the 3 data shards have 13 bytes, expected 3 shards of 4 bytes each, or shards that add up to \
             `total_size`, 10",
        ),
        (
            "\"data\": 3",
            "\"data\": 2",
            "the 3 data shards have 12 bytes, expected 2 shards of 5 bytes each, or shards that add up to \
             `total_size`, 10",
        ),
        ("\"rs\"", "\"raptor\"", "`erasure.codec` is \"raptor\", expected \"replica\" or \"rs\""),
        ("\"rs\"", "\"RS\"", "`erasure.codec` is \"RS\", expected \"replica\" or \"rs\""),
    ] {
        assert_eq!(refusal(edited(from, to).as_bytes()), expected);
    }
    let root = uniform().merkle_root().to_string();
    assert_eq!(
        refusal(edited(&root, &Digest::ZERO.to_string()).as_bytes()),
        format!("`merkle_root` is {}, expected {root} for these shards", Digest::ZERO)
    );
    let other = Digest::of(b"other").to_string();
    assert!(
        refusal(edited(&Digest::of(b"1111").to_string(), &other).as_bytes()).starts_with("`merkle_root` is")
    );
}

#[test]
fn bytes_that_are_not_one_json_text_are_refused() {
    let good = uniform().to_json();
    assert_eq!(refusal(b"\xef\xbb\xbf{}"), "the manifest begins with a byte order mark, expected `{`");
    assert!(refusal(b"{\"a\": \"\xff\"}").starts_with("the manifest is not UTF-8 text: "));
    assert!(refusal(b"").starts_with("the manifest is not JSON: EOF"));
    assert!(refusal(&good[..good.len() - 1]).starts_with("the manifest is not JSON: EOF"));
    assert!(
        refusal(edited("", "{}").as_bytes()).starts_with("the manifest is not JSON: trailing characters")
    );
    assert!(
        refusal(edited("", "\0").as_bytes()).starts_with("the manifest is not JSON: trailing characters")
    );
    assert!(refusal(edited("\"data\"", "data").as_bytes()).starts_with("the manifest is not JSON: "));
    assert!(refusal(edited("10,", "10,,").as_bytes()).starts_with("the manifest is not JSON: "));
    assert!(refusal(edited("10,", "010,").as_bytes()).starts_with("the manifest is not JSON: "));
    // Nesting is bounded by nothing but the size, and costs no stack.
    let deep = format!("{{\"a\": {}", "[".repeat(1 << 20));
    assert!(refusal(deep.as_bytes()).starts_with("the manifest is not JSON: "));
}

#[test]
fn a_manifest_has_at_most_16_mib() {
    let mut json = uniform().to_json();
    json.resize(MAX_MANIFEST_BYTES, b' ');
    assert_eq!(Manifest::parse(&json).unwrap(), uniform());
    json.push(b' ');
    let expected = "the manifest has 16777217 bytes, expected at most 16777216";
    assert_eq!(refusal(&json), expected);
    let kind = "x".repeat(MAX_MANIFEST_BYTES);
    let error = Manifest::new(kind, 1, list(&[b"x"], &[]), 1, 0, Codec::Rs, None).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { .. }), "{error}");
}

#[test]
fn a_manifest_has_at_most_65536_shards() {
    let manifest = plain(65_536, 1, &[1; 65_536]).unwrap();
    assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    let error = plain(65_537, 1, &[1; 65_537]).unwrap_err();
    let expected = "`shards` has 65537 entries, expected 1 to 65536";
    assert_eq!(error.to_string(), expected);
    let json = String::from_utf8(manifest.to_json()).unwrap();
    let more = json.replacen("}]", &format!("}}, {}]", shard_json(65_536)), 1);
    assert_eq!(refusal(more.as_bytes()), expected);
    assert_eq!(plain(1, 1, &[]).unwrap_err().to_string(), "`shards` has 0 entries, expected 1 to 65536");
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut json = uniform().to_json();
        let at = at.index(json.len());
        json[at] = byte;
        if cut {
            json.truncate(at);
        }
        let _ = Manifest::parse(&json);
    }

    #[test]
    fn any_text_is_refused(text in "[{}\\[\\]\",:0-9a-z ]{0,60}") {
        prop_assert!(Manifest::parse(text.as_bytes()).is_err());
    }
}
