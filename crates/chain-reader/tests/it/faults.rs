//! Endpoints that fail, lie about sizes, or say nothing.

use std::time::Duration;

use chain_reader::{
    Address, Availability, BlockTag, ChainError, ChainReader, Config, EndpointError, MatureModel, Policy,
    Receipt, RpcUrl, Signer, SubmitConfig, SubmitError, U256, set_mature_model,
};
use manifest::Blame;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::scripted::{Answer, Scripted};
use crate::{digest, everything_shown, policy};

const GENESIS: &str = "0x0000000000000000000000000000000000000000000000000000000000000000";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

/// This moment, as blocks have it.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{:#x}", since.unwrap().as_secs())
}

/// What a healthy endpoint says.
pub(crate) fn healthy(method: &str, params: &Value) -> Answer {
    match method {
        "eth_chainId" => Answer::Result(json!("0x1")),
        "eth_getBlockByNumber" if params[0] == "0x0" => {
            Answer::Result(json!({"hash": GENESIS, "number": "0x0", "timestamp": "0x0"}))
        }
        "eth_getBlockByNumber" => {
            Answer::Result(json!({"hash": HASH, "number": "0x10", "timestamp": now(), "extra": {}}))
        }
        "eth_getCode" => Answer::Result(json!("0x00")),
        "eth_call" => Answer::Result(json!(returned(&digest().to_string()))),
        other => panic!("unexpected {other}"),
    }
}

/// The ABI encoding of (text, 0).
pub(crate) fn returned(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let padding = "0".repeat(hex.len().next_multiple_of(64) - hex.len());
    format!("0x{:064x}{:064x}{:064x}{hex}{padding}", 64, 0, text.len())
}

pub(crate) fn reader(rpc_url: RpcUrl, policy: Policy) -> ChainReader {
    let config = Config::new(rpc_url, Address::from_bytes([7; 20]));
    ChainReader::new(config.with_policy(policy).with_block_tag(BlockTag::Finalized)).unwrap()
}

pub(crate) async fn read(scripted: &Scripted) -> Result<MatureModel, ChainError> {
    reader(scripted.url.clone(), policy()).mature_model().await
}

/// Reads from an endpoint that answers `eth_call` like this for ever, and returns the error and how often it came up.
pub(crate) async fn read_with_call(
    mut answer: impl FnMut() -> Answer + Send + 'static,
) -> (EndpointError, usize) {
    let script = move |method: &str, params: &Value| {
        if method == "eth_call" { answer() } else { healthy(method, params) }
    };
    let scripted = Scripted::start(script).await;
    let error = read(&scripted).await.unwrap_err();
    let calls = scripted.asked().iter().filter(|method| *method == "eth_call").count();
    let shown = everything_shown(&error);
    assert!(shown.contains(&scripted.url.to_string()) && !shown.contains("secretkey"), "{shown}");
    let ChainError::Endpoint(error) = error else { panic!("{error:?}") };
    (error, calls)
}

#[tokio::test]
async fn a_healthy_script_reads_and_pins_its_block() {
    let scripted = Scripted::start(|method, params| {
        if method == "eth_call" {
            assert_eq!(params[1], json!({"blockHash": HASH, "requireCanonical": true}));
        }
        healthy(method, params)
    });
    let scripted = scripted.await;
    let model = read(&scripted).await.unwrap();
    assert_eq!((model.manifest, model.chain_id, model.block_number), (digest(), 1, 16));
    assert_eq!(scripted.asked().len(), 4);
}

#[tokio::test]
async fn faults_that_pass_are_asked_again() {
    let mut faults = vec![
        Answer::Error(-32005, "limit exceeded"),
        Answer::Close,
        Answer::Http(503, String::new()),
        Answer::Http(500, String::new()),
        Answer::Http(429, String::new()),
    ];
    let script = move |method: &str, params: &Value| match method {
        "eth_call" => faults.pop().unwrap_or_else(|| healthy(method, params)),
        _ => healthy(method, params),
    };
    let scripted = Scripted::start(script).await;
    let patient = policy().with_attempts(6);
    let model = reader(scripted.url.clone(), patient).mature_model().await.unwrap();
    assert_eq!(model.manifest, digest());
}

#[tokio::test]
async fn faults_that_stay_end_after_the_last_attempt() {
    for status in [500, 502, 429, 400, 402, 403, 425] {
        let (error, calls) = read_with_call(move || Answer::Http(status, "no secretkey".to_owned())).await;
        assert!(matches!(error, EndpointError::Status { status: found, .. } if found == status), "{error:?}");
        assert_eq!((calls, error.blame(), error.availability()), (4, Blame::Network, Availability::NotNow));
    }
    let (error, calls) = read_with_call(|| Answer::Close).await;
    assert!(matches!(error, EndpointError::Broken { .. }), "{error:?}");
    assert_eq!((calls, error.availability()), (4, Availability::NotNow));
}

#[tokio::test]
async fn answers_that_are_wrong_are_not_asked_again() {
    for body in [
        "<html>secretkey</html>",
        "",
        "[]",
        "{}",
        r#"{"jsonrpc":"2.0","id":0,"result":5}"#,
        &"[".repeat(100_000),
    ] {
        let body = body.to_owned();
        let (error, calls) = read_with_call(move || Answer::Http(200, body.clone())).await;
        assert!(matches!(error, EndpointError::Nonsense { .. }), "{error:?}");
        assert_eq!((calls, error.blame()), (1, Blame::Peer));
    }
    for status in [301, 401, 404] {
        let (error, calls) = read_with_call(move || Answer::Http(status, "bad secretkey".to_owned())).await;
        assert!(matches!(error, EndpointError::Status { .. }), "{error:?}");
        assert_eq!((calls, error.blame(), error.availability()), (1, Blame::Peer, Availability::Never));
    }
    let (error, calls) = read_with_call(|| Answer::Error(-32601, "no such method, secretkey")).await;
    assert!(matches!(error, EndpointError::Rpc { code: -32601, .. }), "{error:?}");
    assert_eq!((calls, error.availability()), (1, Availability::Never));
}

#[tokio::test]
async fn a_long_answer_is_cut_off() {
    let (error, calls) = read_with_call(|| Answer::Endless).await;
    assert!(matches!(error, EndpointError::TooLong { max_bytes: 2_097_152, .. }), "{error:?}");
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn a_long_string_is_an_alarm_like_any_other() {
    let script = |method: &str, params: &Value| match method {
        "eth_call" => Answer::Result(json!(returned(&"x".repeat(500_000)))),
        _ => healthy(method, params),
    };
    let scripted = Scripted::start(script).await;
    let error = read(&scripted).await.unwrap_err();
    assert!(matches!(error, ChainError::NotADigest { found_bytes: 500_000, .. }));
    assert!(everything_shown(&error).len() < 2_000);
}

#[tokio::test]
async fn a_silent_endpoint_times_out() {
    let scripted = Scripted::start(|_, _| Answer::Silence).await;
    let hasty = policy().with_request_timeout(Duration::from_millis(50)).with_attempts(2);
    let error = reader(scripted.url.clone(), hasty).mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::Endpoint(EndpointError::Timeout { .. })), "{error:?}");
    assert_eq!((error.blame(), error.availability()), (Blame::Network, Availability::NotNow));
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("http://user:password1@{}/v3/secretkey", free.local_addr().unwrap());
    drop(free);
    let error = reader(crate::url(&text), policy()).mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::Endpoint(EndpointError::Unreachable { .. })), "{error:?}");
    let shown = everything_shown(&error);
    assert!(!shown.contains("secretkey") && !shown.contains("password1"), "{shown}");
}

#[tokio::test]
async fn an_https_endpoint_is_spoken_to_in_tls() {
    const HANDSHAKE: u8 = 22;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let https = crate::url(&format!("https://{}/v3/secretkey", listener.local_addr().unwrap()));
    let reader = reader(https, policy().with_attempts(1));
    // Reads the first byte, hangs up, and so ends the requests that are made at once.
    let first_bytes = async {
        for _ in 0..3 {
            assert_eq!(listener.accept().await.unwrap().0.read_u8().await.unwrap(), HANDSHAKE);
        }
    };
    let (read, ()) = tokio::join!(reader.mature_model(), first_bytes);
    let error = read.unwrap_err();
    assert_eq!((error.blame(), error.availability()), (Blame::Network, Availability::NotNow), "{error:?}");
    assert!(!everything_shown(&error).contains("secretkey"));
}

#[tokio::test]
async fn a_node_without_the_pinned_block_is_asked_anew() {
    let mut lacking = 2;
    let script = move |method: &str, params: &Value| match method {
        "eth_call" if lacking > 0 => {
            lacking -= 1;
            Answer::Error(-32000, "header not found")
        }
        _ => healthy(method, params),
    };
    let scripted = Scripted::start(script).await;
    assert_eq!(read(&scripted).await.unwrap().manifest, digest());
    let asked = |wanted: &str| scripted.asked().iter().filter(|method| *method == wanted).count();
    assert_eq!((asked("eth_call"), asked("eth_chainId")), (3, 1));
}

#[tokio::test]
async fn a_chain_without_a_finalized_block_says_so() {
    let script = |method: &str, params: &Value| match method {
        "eth_getBlockByNumber" if params[0] == "finalized" => Answer::Result(Value::Null),
        _ => healthy(method, params),
    };
    let error = read(&Scripted::start(script).await).await.unwrap_err();
    assert!(matches!(error, ChainError::NoBlock { tag: BlockTag::Finalized, .. }), "{error:?}");
    assert_eq!(error.availability(), Availability::NotNow);
}

/// What a healthy endpoint says to somebody who is about to send a transaction.
fn ready(method: &str, params: &Value) -> Answer {
    match method {
        "eth_getTransactionCount" => Answer::Result(json!("0x1")),
        "eth_estimateGas" => Answer::Result(json!("0xffff")),
        "eth_gasPrice" => Answer::Result(json!("0x1")),
        "eth_blockNumber" => Answer::Result(json!("0x20")),
        // No model is named yet.
        "eth_call" => Answer::Result(json!("0x")),
        "eth_getBalance" => Answer::Result(json!("0xffffffffff")),
        // Some blocks beyond the one that the transaction is in.
        "eth_getBlockByNumber" if params[0] == "latest" => {
            Answer::Result(json!({"hash": HASH, "number": "0x20", "timestamp": "0x1"}))
        }
        "eth_getBlockByNumber" => {
            Answer::Result(json!({"hash": HASH, "number": params[0], "timestamp": "0x1"}))
        }
        _ => healthy(method, params),
    }
}

async fn submit(scripted: &Scripted) -> Result<Receipt, SubmitError> {
    let config = SubmitConfig::new(scripted.url.clone(), Address::from_bytes([7; 20]));
    let config = config.with_policy(policy());
    let signer = Signer::from_private_key(&"1".repeat(64)).unwrap();
    set_mature_model(&config, &signer, digest(), U256::ZERO).await.map(crate::mined)
}

#[tokio::test]
async fn a_lost_answer_to_a_sent_transaction_is_not_a_failure() {
    let mut sent = 0;
    let script = move |method: &str, params: &Value| match method {
        "eth_sendRawTransaction" if sent == 0 => {
            sent += 1;
            Answer::Close
        }
        "eth_sendRawTransaction" => Answer::Error(-32000, "already known"),
        "eth_getTransactionByHash" => Answer::Result(json!({"hash": HASH})),
        "eth_getTransactionReceipt" => Answer::Result(
            json!({"status": "0x1", "blockNumber": "0x11", "blockHash": HASH, "gasUsed": "0xffff"}),
        ),
        _ => ready(method, params),
    };
    let scripted = Scripted::start(script).await;
    let receipt = submit(&scripted).await.unwrap();
    assert_eq!((receipt.block_number, receipt.gas_used), (0x11, Some(0xffff)));
    assert_eq!(scripted.asked().iter().filter(|method| *method == "eth_sendRawTransaction").count(), 2);
}

#[tokio::test]
async fn a_transaction_that_is_not_taken_is_named_with_the_reason() {
    let script = |method: &str, params: &Value| match method {
        "eth_sendRawTransaction" => Answer::Error(-32000, "fee too low, secretkey"),
        "eth_getTransactionByHash" => Answer::Result(Value::Null),
        _ => ready(method, params),
    };
    let error = submit(&Scripted::start(script).await).await.unwrap_err();
    assert!(matches!(error, SubmitError::NotTaken { .. }), "{error:?}");
    let shown = everything_shown(&error);
    assert!(shown.contains("fee too low, ***") && !shown.contains("secretkey"), "{shown}");
}
