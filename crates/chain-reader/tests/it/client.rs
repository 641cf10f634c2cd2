//! The HTTP that endpoints get, and the answers that they may give.

use std::io::Write as _;

use chain_reader::{ChainError, EndpointError};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use crate::faults::{healthy, read, reader, returned};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest, honest, policy};

#[tokio::test]
async fn requests_say_who_asks_and_what_is_unpacked() {
    let scripted = Scripted::start(healthy).await;
    read(&scripted).await.unwrap();
    for head in scripted.heads() {
        let head = head.to_lowercase();
        assert!(head.contains("\r\nuser-agent: loader/"), "{head}");
        let accepted =
            head.lines().find_map(|line| line.strip_prefix("accept-encoding: ")).unwrap().to_owned();
        assert!(["gzip", "deflate", "br"].iter().all(|coding| accepted.contains(coding)), "{accepted}");
        assert!(!head.contains("authorization"), "{head}");
    }
}

#[tokio::test]
async fn a_user_in_the_url_is_told_in_a_header() {
    let scripted = Scripted::start(healthy).await;
    reader(scripted.at("us%65r:p%3Ass@", "/v3"), policy()).mature_model().await.unwrap();
    for head in scripted.heads() {
        let head = head.to_lowercase();
        assert!(head.contains("\r\nauthorization: basic dxnlcjpwonnz") && !head.contains("p%3ass"), "{head}");
    }
}

/// The bytes in this coding.
fn packed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut packed = Vec::new();
            brotli::CompressorWriter::new(&mut packed, 4096, 9, 22).write_all(bytes).unwrap();
            packed
        }
    }
}

/// An endpoint that packs its answers.
async fn packing(coding: &'static str, call: Vec<u8>) -> Scripted {
    let script = move |method: &str, params: &Value| {
        let body = match healthy(method, params) {
            _ if method == "eth_call" => call.clone(),
            Answer::Result(value) => json!({"id": 1, "result": value}).to_string().into_bytes(),
            _ => panic!("no result"),
        };
        Answer::Headed(200, format!("content-encoding: {coding}\r\n"), packed(coding, &body))
    };
    Scripted::start(script).await
}

#[tokio::test]
async fn packed_answers_are_unpacked_up_to_the_limit() {
    let answer = json!({"id": 1, "result": returned(&digest().to_string())}).to_string().into_bytes();
    for coding in ["gzip", "deflate", "br"] {
        let scripted = packing(coding, answer.clone()).await;
        assert_eq!(read(&scripted).await.unwrap().manifest, digest(), "{coding}");
        // 64 MiB in 64 KiB or less, in one of them only.
        let bomb = [&b"{\"result\":\""[..], &vec![b'0'; 64 << 20], b"\"}"].concat();
        let error = read(&packing(coding, bomb).await).await.unwrap_err();
        let is_cut =
            matches!(error, ChainError::Endpoint(EndpointError::TooLong { max_bytes: 2_097_152, .. }));
        assert!(is_cut, "{coding}: {error:?}");
    }
    let broken = Scripted::start(|method, params| match method {
        "eth_call" => Answer::Headed(200, "content-encoding: gzip\r\n".to_owned(), b"no gzip".to_vec()),
        _ => healthy(method, params),
    });
    let error = read(&broken.await).await.unwrap_err();
    assert!(matches!(error, ChainError::Endpoint(EndpointError::Broken { .. })), "{error:?}");
}

#[tokio::test]
async fn answers_are_read_in_all_forms_that_endpoints_give_them() {
    let forms: [fn(Value) -> Value; 4] = [
        |result| json!({"jsonrpc": "2.0", "id": 1, "result": result, "error": null}),
        |result| json!({"id": "1", "error": null, "result": result}),
        |result| json!({"id": null, "result": result}),
        |result| json!({"result": result}),
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let script = move |method: &str, params: &Value| match healthy(method, params) {
            Answer::Result(value) => Answer::Http(200, form(value).to_string()),
            other => other,
        };
        assert_eq!(read(&Scripted::start(script).await).await.unwrap().manifest, digest(), "{number}");
    }
    let script = |method: &str, params: &Value| match method {
        "eth_call" => Answer::Http(200, r#"{"result":null,"error":{"code":3,"message":"no"}}"#.to_owned()),
        _ => healthy(method, params),
    };
    let error = read(&Scripted::start(script).await).await.unwrap_err();
    assert!(matches!(error, ChainError::Reverted { .. }), "{error:?}");
}

/// An endpoint in front of a real node that refuses some ways to name a block. Returns what was read through it, and how
/// often a state was asked for.
async fn read_without(
    refuses: fn(&Value) -> bool,
    refusal: fn() -> Answer,
    times: usize,
) -> (Result<chain_reader::MatureModel, ChainError>, usize) {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), chain_reader::U256::ZERO).await.unwrap();
    devnet.mine(2).await.unwrap();
    let scripted = honest::twisted(&devnet, move |method, params| {
        (method == "eth_call" && refuses(&params[1])).then(refusal)
    });
    let scripted = scripted.await;
    let reader = honest::reader_of(&devnet, chain_reader::BlockTag::Finalized, &[&scripted]);
    let mut read = reader.mature_model().await;
    for _ in 1..times {
        read = reader.mature_model().await;
    }
    (read, scripted.asked().iter().filter(|method| *method == "eth_call").count())
}

#[tokio::test]
async fn nodes_that_know_less_of_naming_blocks_are_asked_as_they_know() {
    let needs_canonical: fn(&Value) -> bool = |block| block.get("requireCanonical").is_some();
    let needs_hash: fn(&Value) -> bool = Value::is_object;
    let refusals: [fn() -> Answer; 4] = [
        || Answer::Error(-32602, "invalid argument 1: unknown field"),
        || Answer::Error(-32000, "json: cannot unmarshal object into Go value of type string"),
        || Answer::Error(-32600, "Invalid request"),
        || Answer::Http(400, "invalid params".to_owned()),
    ];
    for refusal in refusals {
        // It is refused once, and known from then on.
        let attempts = if matches!(refusal(), Answer::Http(..)) { 4 } else { 1 };
        let (read, calls) = read_without(needs_canonical, refusal, 3).await;
        assert_eq!((read.unwrap().manifest, calls), (digest(), attempts + 3));
        let (read, calls) = read_without(needs_hash, refusal, 3).await;
        assert_eq!((read.unwrap().manifest, calls), (digest(), 2 * attempts + 3));
    }
    // What refuses everything is told of as it was said first.
    let (read, _) = read_without(|_| true, || Answer::Error(-32602, "no such thing"), 1).await;
    let error = read.unwrap_err();
    assert!(matches!(error, ChainError::Endpoint(EndpointError::Rpc { code: -32602, .. })), "{error:?}");
}

#[tokio::test]
async fn a_block_that_is_replaced_while_it_is_read_by_height_is_no_answer() {
    const OTHER: &str = "0x2222222222222222222222222222222222222222222222222222222222222222";
    let mut is_read = false;
    let script = move |method: &str, params: &Value| match method {
        "eth_call" if params[1].is_object() => Answer::Error(-32602, "unknown field blockHash"),
        "eth_getBlockByHash" => {
            Answer::Result(json!({"hash": params[0], "number": "0x10", "timestamp": "0x10"}))
        }
        "eth_call" => {
            is_read = true;
            healthy(method, params)
        }
        "eth_getBlockByNumber" if is_read && params[0] == "0x10" => {
            Answer::Result(json!({"hash": OTHER, "number": "0x10", "timestamp": "0x10"}))
        }
        _ => healthy(method, params),
    };
    let scripted = Scripted::start(script).await;
    let error = read(&scripted).await.unwrap_err();
    assert!(matches!(error, ChainError::Endpoint(EndpointError::Rpc { code: -32602, .. })), "{error:?}");
}
