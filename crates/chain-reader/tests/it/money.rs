//! What is said of a transaction is true, whatever the endpoint does: a real chain behind an endpoint with faults.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chain_reader::{
    Availability, BlockTag, Devnet, Done, Settled, Signer, Step, SubmitConfig, SubmitError, U256, send,
    set_mature_model,
};
use serde_json::{Value, json};

use crate::honest::{answers, pass, port, twisted};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest, mined, prepare, submit_config};

/// What asks where a transaction is.
const LOOKS: [&str; 2] = ["eth_getTransactionReceipt", "eth_getTransactionByHash"];

fn owner(devnet: &Devnet) -> Signer {
    Signer::from_private_key(devnet.owner_key()).unwrap()
}

/// Through this endpoint, for at most so long.
fn through(devnet: &Devnet, endpoint: &Scripted, timeout: Duration) -> SubmitConfig {
    submit_config(devnet).with_rpc_url(endpoint.url.clone()).with_timeout(timeout)
}

async fn set(config: &SubmitConfig, devnet: &Devnet) -> Result<Done, SubmitError> {
    set_mature_model(config, &owner(devnet), digest(), U256::ZERO).await
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(600);

/// How many transactions the owner has in blocks, the deployment included: that is what was paid for.
async fn paid(devnet: &Devnet) -> Value {
    let from = owner(devnet).address().to_string();
    devnet.request("eth_getTransactionCount", (from, "latest")).await.unwrap()
}

/// Says for so many requests of these methods that there is nothing.
async fn blind(devnet: &Devnet, methods: &'static [&'static str], mut requests: u32) -> Scripted {
    twisted(devnet, move |method, params| {
        // Full blocks only: what the head is must be known.
        let is_it = methods.contains(&method) && (method != "eth_getBlockByNumber" || params[1] == true);
        if !is_it || requests == 0 {
            return None;
        }
        requests -= 1;
        Some(Answer::Result(Value::Null))
    })
    .await
}

#[tokio::test]
async fn one_that_a_lagging_node_does_not_show_is_not_called_replaced() {
    let devnet = devnet().await;
    let endpoint = blind(&devnet, &LOOKS, 14).await;
    let receipt = mined(set(&through(&devnet, &endpoint, LONG), &devnet).await.unwrap());
    assert_eq!((receipt.block_number, paid(&devnet).await), (2, json!("0x2")));
}

#[tokio::test]
async fn one_that_only_its_block_shows_is_in_that_block() {
    let devnet = devnet().await;
    let endpoint = blind(&devnet, &LOOKS, u32::MAX).await;
    let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
    assert!(matches!(error, SubmitError::NotSettled { block_number: 2, .. }), "{error:?}");
    assert_eq!(error.availability(), Availability::NotNow);
}

#[tokio::test]
async fn without_evidence_it_may_still_come_and_is_not_paid_for_again() {
    let devnet = devnet().await;
    let endpoint = blind(
        &devnet,
        &["eth_getTransactionReceipt", "eth_getTransactionByHash", "eth_getBlockByNumber"],
        u32::MAX,
    )
    .await;
    let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
    assert!(matches!(error, SubmitError::NotMined { .. }), "{error:?}");
    assert_eq!(error.availability(), Availability::NotNow);
    let again = set(&submit_config(&devnet), &devnet).await.unwrap();
    assert!(matches!(again, Done::AlreadySet(set) if set.block_number == 2), "{again:?}");
    assert_eq!(paid(&devnet).await, "0x2");
}

/// Sends through `endpoint`, and has another transaction of the same nonce take its place. Returns that one, too.
async fn displaced(
    devnet: &Devnet,
    config: &SubmitConfig,
    more_blocks: u64,
) -> (Result<chain_reader::Receipt, SubmitError>, Value) {
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let (owner, sent) = (owner(devnet), tokio::sync::Notify::new());
    let call = prepare(config, owner.address(), U256::ZERO).await.unwrap();
    let on_step = |step| {
        if matches!(step, Step::Sent { .. }) {
            sent.notify_one();
        }
    };
    let taking_its_place = async {
        sent.notified().await;
        let (from, price) = (owner.address().to_string(), "0x174876e800");
        let other = json!({"from": from, "to": from, "nonce": "0x1", "maxFeePerGas": price,
            "maxPriorityFeePerGas": price});
        let hash = devnet.request("eth_sendTransaction", (other,)).await.unwrap();
        devnet.mine(1 + more_blocks).await.unwrap();
        hash
    };
    tokio::join!(send(config, &call, &owner, &on_step), taking_its_place)
}

#[tokio::test]
async fn the_one_that_took_its_place_is_named_with_or_without_old_states() {
    for has_states in [true, false] {
        let devnet = devnet().await;
        // What was counted at block 1, where it was prepared, is the only state that there is.
        let endpoint = twisted(&devnet, move |method, params| {
            let is_old = method == "eth_getTransactionCount"
                && params[1].as_str().is_some_and(|block| block.starts_with("0x") && block != "0x1");
            (is_old && !has_states).then(|| Answer::Error(-32000, "missing trie node"))
        })
        .await;
        let (sent, hash) = displaced(&devnet, &through(&devnet, &endpoint, LONG), 5).await;
        let error = sent.unwrap_err();
        let SubmitError::Replaced { by, block_number, nonce: 1, .. } = error else { panic!("{error:?}") };
        assert_eq!((json!(by.to_string()), block_number), (hash, 2));
        assert!(error.to_string().contains(&by.to_string()), "{error}");
        assert_eq!(error.availability(), Availability::Never);
    }
}

#[tokio::test]
async fn one_whose_place_is_taken_in_a_block_that_may_still_go_may_come_back() {
    let devnet = devnet().await;
    let settled = Some(Settled::Confirmations(3));
    let config = submit_config(&devnet).with_settled(settled).with_timeout(SHORT);
    let (sent, hash) = displaced(&devnet, &config, 1).await;
    let error = sent.unwrap_err();
    let SubmitError::Displaced { by, block_number: 2, .. } = error else { panic!("{error:?}") };
    assert_eq!((json!(by.to_string()), error.availability()), (hash, Availability::NotNow));
}

/// Loses the answers to the first transactions that are sent.
async fn losing(devnet: &Devnet, mut answers: u32) -> Scripted {
    let port = port(devnet);
    twisted(devnet, move |method, params| {
        if method != "eth_sendRawTransaction" || answers == 0 {
            return None;
        }
        answers -= 1;
        Some(Answer::Lost { port, method: method.to_owned(), params: params.clone() })
    })
    .await
}

#[tokio::test]
async fn one_whose_answer_was_lost_is_followed() {
    for (lost, automine) in [(1, true), (1, false), (9, true), (9, false)] {
        let devnet = devnet().await;
        devnet.request("evm_setAutomine", (automine,)).await.unwrap();
        let (endpoint, owner) = (losing(&devnet, lost).await, owner(&devnet));
        let config = through(&devnet, &endpoint, LONG);
        let call = prepare(&config, owner.address(), U256::ZERO).await.unwrap();
        let (steps, sent) = (Mutex::new(Vec::new()), tokio::sync::Notify::new());
        let on_step = |step| {
            steps.lock().unwrap().push(step);
            sent.notify_one();
        };
        let mining = async {
            sent.notified().await;
            if !automine {
                devnet.mine(1).await.unwrap();
            }
        };
        let (receipt, ()) = tokio::join!(send(&config, &call, &owner, &on_step), mining);
        assert_eq!((receipt.unwrap().block_number, paid(&devnet).await), (2, json!("0x2")));
        assert!(matches!(steps.lock().unwrap()[0], Step::MaybeSent { .. }), "{steps:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_already_knows_it_is_believed_even_where_it_does_not_show_it_yet() {
    for words in [
        "already known",
        "ALREADY_EXISTS: already known",
        "AlreadyKnown",
        "known transaction: 12",
        "nonce too low",
        "OldNonce",
        "replacement transaction underpriced",
    ] {
        let devnet = devnet().await;
        let (port, mut sent, mut shown) = (port(&devnet), 0, 0);
        let endpoint = twisted(&devnet, move |method, params| match method {
            "eth_sendRawTransaction" => {
                sent += 1;
                let lost = Answer::Lost { port, method: method.to_owned(), params: params.clone() };
                Some(if sent == 1 { lost } else { Answer::Error(-32000, words) })
            }
            _ if LOOKS.contains(&method) && shown < 6 => {
                shown += 1;
                Some(Answer::Result(Value::Null))
            }
            _ => None,
        })
        .await;
        let done = set(&through(&devnet, &endpoint, LONG), &devnet).await;
        assert_eq!((mined(done.unwrap()).block_number, paid(&devnet).await), (2, json!("0x2")), "{words}");
    }
}

#[tokio::test]
async fn one_that_may_be_out_there_is_never_said_not_to_be() {
    let unclear: [fn() -> Answer; 5] = [
        || Answer::Close,
        || Answer::Http(502, "bad gateway".to_owned()),
        || Answer::Http(200, "<html>".to_owned()),
        || Answer::Result(Value::Null),
        || Answer::Error(-32000, "already known"),
    ];
    for answer in unclear {
        let devnet = devnet().await;
        let endpoint = answers(&devnet, "eth_sendRawTransaction", answer).await;
        let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
        assert!(matches!(error, SubmitError::NotMined { .. }), "{error:?}");
        assert_eq!(error.availability(), Availability::NotNow);
    }
}

#[tokio::test]
async fn one_that_was_refused_and_is_nowhere_was_not_sent() {
    let refused: [fn() -> Answer; 3] = [
        || Answer::Error(-32000, "insufficient funds for gas * price + value"),
        || Answer::Error(-32003, "intrinsic gas too low"),
        || Answer::Http(403, "no".to_owned()),
    ];
    for answer in refused {
        let devnet = devnet().await;
        let endpoint = answers(&devnet, "eth_sendRawTransaction", answer).await;
        let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
        assert!(matches!(error, SubmitError::NotTaken { .. }), "{error:?}");
        assert!(!error.may_be_set() && error.to_string().contains("was not sent"), "{error}");
    }
}

#[tokio::test]
async fn one_that_was_refused_once_is_sent_again() {
    let devnet = devnet().await;
    let mut sent = 0;
    let endpoint = twisted(&devnet, move |method, _| {
        sent += u32::from(method == "eth_sendRawTransaction");
        (method == "eth_sendRawTransaction" && sent < 3).then(|| Answer::Error(-32000, "txpool is full"))
    })
    .await;
    assert_eq!(mined(set(&through(&devnet, &endpoint, LONG), &devnet).await.unwrap()).block_number, 2);
}

#[tokio::test]
async fn one_that_is_in_a_block_is_said_to_be_where_nothing_tells_what_is_final() {
    let finals: [fn() -> Answer; 5] = [
        || Answer::Error(-32602, "unknown block tag"),
        || Answer::Error(-32601, "no such method"),
        || Answer::Error(-32000, "finalized block not found"),
        || Answer::Http(500, String::new()),
        || Answer::Result(Value::Null),
    ];
    for answer in finals {
        let devnet = devnet().await;
        let endpoint = twisted(&devnet, move |_, params| (params[0] == "finalized").then(answer)).await;
        let settled = Some(Settled::Tag(BlockTag::Finalized));
        let config = through(&devnet, &endpoint, SHORT).with_settled(settled);
        let error = set(&config, &devnet).await.unwrap_err();
        assert!(matches!(error, SubmitError::NotSettled { block_number: 2, .. }), "{error:?}");
        assert!(error.to_string().contains("once it is finalized"), "{error}");
        assert_eq!(error.availability(), Availability::NotNow);
        // The same command goes on waiting, and does not pay again.
        let error = set(&config, &devnet).await.unwrap_err();
        assert!(matches!(error, SubmitError::SetNotSettled { block_number: 2, .. }), "{error:?}");
        devnet.mine(2).await.unwrap();
        let config = submit_config(&devnet).with_settled(settled);
        assert!(matches!(set(&config, &devnet).await.unwrap(), Done::AlreadySet(_)));
        assert_eq!(paid(&devnet).await, "0x2");
    }
}

#[tokio::test]
async fn receipts_that_lack_fields_still_tell() {
    let changes: [fn(&mut Value); 7] = [
        |receipt| drop(receipt.as_object_mut().unwrap().remove("status")),
        |receipt| receipt["status"] = Value::Null,
        |receipt| receipt["status"] = json!({"ok": true}),
        |receipt| drop(receipt.as_object_mut().unwrap().remove("gasUsed")),
        |receipt| receipt["gasUsed"] = json!("many"),
        |receipt| receipt["blockNumber"] = Value::Null,
        |receipt| drop(receipt.as_object_mut().unwrap().remove("blockHash")),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let devnet = devnet().await;
        let port = port(&devnet);
        let endpoint = twisted(&devnet, move |method, params| {
            let change = move |receipt: &mut Value| {
                // Before it is in a block there is nothing to change.
                if receipt.is_object() {
                    change(receipt);
                }
            };
            (method == "eth_getTransactionReceipt").then(|| pass(port, method, params, change))
        })
        .await;
        let receipt = mined(set(&through(&devnet, &endpoint, LONG), &devnet).await.unwrap());
        assert_eq!(
            (receipt.block_number, receipt.gas_used.is_none()),
            (2, [3, 4].contains(&index)),
            "{index}"
        );
    }
}

#[tokio::test]
async fn one_whose_receipt_cannot_be_read_is_in_its_block() {
    let unreadable: [fn() -> Answer; 4] = [
        || Answer::Result(json!("a receipt")),
        || Answer::Error(-32601, "no such method"),
        || Answer::Error(-32000, "transaction indexing is in progress"),
        || Answer::Result(Value::Null),
    ];
    for answer in unreadable {
        let devnet = devnet().await;
        let endpoint = answers(&devnet, "eth_getTransactionReceipt", answer).await;
        let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
        assert!(matches!(error, SubmitError::NotSettled { block_number: 2, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_call_that_reverts_is_refused_however_the_node_says_it() {
    let devnet = devnet().await;
    for (code, words) in [
        (3, "execution reverted"),
        (-32000, "execution reverted"),
        (-32603, "Execution reverted"),
        (-32015, "VM execution error."),
        (-32000, "VM Exception while processing transaction: revert"),
        (-32000, "always failing transaction"),
    ] {
        for wanted in ["eth_call", "eth_estimateGas"] {
            // What only reads names nothing yet.
            let endpoint = twisted(&devnet, move |method, params| {
                let is_it = method == wanted && params[0].get("from").is_some();
                is_it.then(|| Answer::Error(code, words))
            })
            .await;
            let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
            assert!(matches!(error, SubmitError::Refused { .. }), "{error:?}");
            assert_eq!(error.availability(), Availability::Never);
        }
    }
    // Some send their errors with an HTTP status.
    for status in [400, 500] {
        let said = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"execution reverted"}}"#;
        let endpoint = answers(&devnet, "eth_call", move || Answer::Http(status, said.to_owned())).await;
        let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
        assert!(matches!(error, SubmitError::Refused { .. }), "{error:?}");
    }
    assert_eq!(paid(&devnet).await, "0x1");
}

#[tokio::test]
async fn a_node_without_the_newer_methods_and_tags_is_enough() {
    let lacks: [fn() -> Answer; 5] = [
        || Answer::Error(-32601, "no such method"),
        || Answer::Error(-32600, "no"),
        || Answer::Error(-32000, "not supported"),
        || Answer::Http(404, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#.to_owned()),
        || Answer::Result(Value::Null),
    ];
    for answer in lacks {
        for methods in [&["eth_maxPriorityFeePerGas"][..], &["eth_maxPriorityFeePerGas", "eth_gasPrice"], &[]]
        {
            let devnet = devnet().await;
            let endpoint = twisted(&devnet, move |method, params| {
                let lacks_tag = methods.is_empty() && params[1] == "pending";
                (lacks_tag || methods.contains(&method)).then(answer)
            })
            .await;
            let receipt = mined(set(&through(&devnet, &endpoint, LONG), &devnet).await.unwrap());
            assert_eq!(receipt.block_number, 2);
        }
    }
}

#[tokio::test]
async fn what_is_set_already_is_not_paid_for_again_and_another_price_is() {
    let devnet = devnet().await;
    let config = submit_config(&devnet);
    mined(set(&config, &devnet).await.unwrap());
    assert!(matches!(set(&config, &devnet).await.unwrap(), Done::AlreadySet(set) if set.block_number == 2));
    assert_eq!(paid(&devnet).await, "0x2");
    mined(set_mature_model(&config, &owner(&devnet), digest(), U256::from(1)).await.unwrap());
    assert_eq!(paid(&devnet).await, "0x3");
    // And that one is another one again.
    mined(set(&config, &devnet).await.unwrap());
}

#[tokio::test]
async fn the_same_call_that_waits_already_is_followed_and_not_sent_again() {
    let devnet = devnet().await;
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let first = submit_config(&devnet).with_timeout(SHORT);
    let error = set(&first, &devnet).await.unwrap_err();
    let SubmitError::NotMined { tx_hash, .. } = error else { panic!("{error:?}") };
    let (config, owner) = (submit_config(&devnet), owner(&devnet));
    let call = prepare(&config, owner.address(), U256::ZERO).await.unwrap();
    assert_eq!((call.waiting, call.nonce, call.waits_for), (Some(tx_hash), 1, 0));
    let found = tokio::sync::Notify::new();
    let on_step = |step| {
        if step == (Step::Waiting { tx_hash }) {
            found.notify_one();
        }
    };
    let mining = async {
        found.notified().await;
        devnet.mine(1).await.unwrap();
    };
    let (receipt, ()) = tokio::join!(send(&config, &call, &owner, &on_step), mining);
    assert_eq!((receipt.unwrap().tx_hash, paid(&devnet).await), (tx_hash, json!("0x2")));
}

#[tokio::test]
async fn nothing_is_sent_behind_transactions_that_cannot_be_seen() {
    let devnet = devnet().await;
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let from = owner(&devnet).address().to_string();
    devnet.request("eth_sendTransaction", (json!({"from": from, "to": from}),)).await.unwrap();
    // A pool that cannot be seen, although its transactions are counted.
    let endpoint = twisted(&devnet, |method, params| {
        let shows = method.starts_with("txpool") || params[0] == "pending";
        shows.then(|| Answer::Error(-32601, "no such method"))
    })
    .await;
    let error = set(&through(&devnet, &endpoint, SHORT), &devnet).await.unwrap_err();
    assert!(matches!(error, SubmitError::Unseen { waits_for: 1, .. }), "{error:?}");
    assert_eq!(error.availability(), Availability::NotNow);
    assert!(!endpoint.asked().iter().any(|method| method == "eth_sendRawTransaction"));
}

#[tokio::test]
async fn a_head_that_lags_is_waited_for_rather_than_paid_for_twice() {
    let devnet = devnet().await;
    mined(set(&submit_config(&devnet), &devnet).await.unwrap());
    // Its head is the block before; only the count of what waits comes from a node that has all.
    let (port, heads) = (port(&devnet), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&heads);
    let endpoint = twisted(&devnet, move |method, params| {
        let is_head = method == "eth_getBlockByNumber" && params[0] == "latest";
        let lags = is_head && counted.fetch_add(1, Ordering::Relaxed) < 2;
        lags.then(|| pass(port, method, &json!(["0x1", false]), |_| ()))
    })
    .await;
    let done = set(&through(&devnet, &endpoint, LONG), &devnet).await.unwrap();
    assert!(matches!(done, Done::AlreadySet(set) if set.block_number == 2), "{done:?}");
    assert_eq!(paid(&devnet).await, "0x2");
    assert!(heads.load(Ordering::Relaxed) > 2);
}
