//! The endpoints themselves, in front of a real node.

use std::sync::atomic::{AtomicBool, Ordering};

use chain_reader::U256;
use serde_json::json;

use super::http::{Connection, Node, header};
use super::*;

/// The endpoint's answer; `None` when it closes the connection.
async fn ask(rpc: &Rpc, method: &str, params: Value) -> Option<Value> {
    let address = rpc.url().strip_prefix("http://").unwrap();
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let answer = Node { address, growing: &Growing::default(), connection: &mut None }.ask(&request).await?;
    assert_eq!(answer["id"], 7);
    Some(answer)
}

async fn result(rpc: &Rpc, method: &str, params: Value) -> Value {
    ask(rpc, method, params).await.unwrap()["result"].take()
}

/// What the contract says, as text, at this block.
async fn named(chain: &Chain, rpc: &Rpc, block: &Value) -> String {
    let call = json!({"to": chain.contract(), "data": "0x86ced9fa"});
    let returned = ask(rpc, "eth_call", json!([call, block])).await.unwrap();
    let Some(words) = returned["result"].as_str() else { return returned["error"]["message"].to_string() };
    let bytes = (2..words.len()).step_by(2).map(|at| u8::from_str_radix(&words[at..at + 2], 16).unwrap());
    String::from_utf8(bytes.filter(u8::is_ascii_graphic).collect()).unwrap()
}

/// A chain whose contract names `old` and then, from block 7 on, `newest`.
async fn chain() -> Chain {
    let chain = Chain::start().await;
    chain.set("old").await;
    chain.mine(2).await;
    chain.set("newest").await;
    assert_eq!(chain.height().await, 9);
    chain
}

#[tokio::test]
async fn one_that_lags_has_nothing_of_newer_blocks() {
    let chain = chain().await;
    let rpc = Rpc::honest(&chain).await;
    let owner = json!("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
    let newer = result(&rpc, "eth_getBlockByNumber", json!(["0x7", false])).await;
    let transaction = newer["transactions"][0].clone();
    let nonce = result(&rpc, "eth_getTransactionCount", json!([owner, "latest"])).await;
    assert!(named(&chain, &rpc, &json!("latest")).await.contains("newest"));

    for mood in [Mood::Lagging(3), Mood::At(6)] {
        rpc.set(mood);
        assert_eq!(result(&rpc, "eth_blockNumber", json!([])).await, "0x6");
        for (tag, height) in [("latest", "0x6"), ("safe", "0x5"), ("finalized", "0x4"), ("0x5", "0x5")] {
            let block = result(&rpc, "eth_getBlockByNumber", json!([tag, false])).await;
            assert_eq!(block["number"], height, "{tag}");
            assert!(named(&chain, &rpc, &tag.into()).await.contains("old"), "{tag}");
        }
        for (method, params) in [
            ("eth_getBlockByNumber", json!(["0x7", false])),
            ("eth_getBlockByHash", json!([newer["hash"], false])),
            ("eth_getTransactionReceipt", json!([transaction])),
            ("eth_getTransactionByHash", json!([transaction])),
        ] {
            assert_eq!(result(&rpc, method, params).await, Value::Null, "{method}");
        }
        let pinned = json!({"blockHash": newer["hash"], "requireCanonical": true});
        assert_eq!(named(&chain, &rpc, &pinned).await, "\"header not found\"");
        assert_ne!(result(&rpc, "eth_getTransactionCount", json!([owner, "pending"])).await, nonce);
    }
    chain.mine(1).await;
    assert_eq!(result(&rpc, "eth_blockNumber", json!([])).await, "0x6", "it is frozen");

    rpc.set(Mood::Stuck { tags: &["finalized"], height: 3 });
    for (block, height) in [("finalized", "0x3"), ("latest", "0xa"), ("0xa", "0xa")] {
        let block = result(&rpc, "eth_getBlockByNumber", json!([block, false])).await;
        assert_eq!(block["number"], height);
    }
}

#[tokio::test]
async fn one_on_another_branch_knows_its_own_blocks_only() {
    let chain = chain().await;
    let rpc = Rpc::honest(&chain).await;
    let block =
        async |at: u64| result(&rpc, "eth_getBlockByNumber", json!([format!("{at:#x}"), false])).await;
    let honest = [block(5).await, block(6).await, block(7).await];
    rpc.set(Mood::Branch(6));
    let other = [block(5).await, block(6).await, block(7).await];
    assert_eq!(other[0]["hash"], honest[0]["hash"]);
    assert_eq!(other[1]["parentHash"], honest[0]["hash"]);
    assert_ne!(other[1]["hash"], honest[1]["hash"]);
    assert_eq!(other[2]["parentHash"], other[1]["hash"]);
    let at = |block: &Value| json!({"blockHash": block["hash"]});
    assert!(named(&chain, &rpc, &at(&other[2])).await.contains("newest"));
    assert!(named(&chain, &rpc, &at(&honest[0])).await.contains("old"));
    assert_eq!(named(&chain, &rpc, &at(&honest[2])).await, "\"header not found\"");
    let by_hash = async |of: &Value| result(&rpc, "eth_getBlockByHash", json!([of["hash"], false])).await;
    assert_eq!((by_hash(&other[2]).await, by_hash(&honest[2]).await), (other[2].clone(), Value::Null));
}

#[tokio::test]
async fn a_lie_is_as_long_as_it_likes_and_a_boast_as_high() {
    let chain = Chain::start().await;
    chain.devnet().set_text(&"ab".repeat(32), U256::from(0x61)).await.unwrap();
    let rpc = Rpc::lying(&chain, "abab", "short").await;
    // The price stays.
    assert_eq!(named(&chain, &rpc, &json!("latest")).await, "@ashort");
    rpc.set(Mood::naming(&"cd".repeat(100)));
    assert!(named(&chain, &rpc, &json!("latest")).await.ends_with(&"cd".repeat(100)));
    rpc.set(Mood::naming("to{target}"));
    assert!(named(&chain, &rpc, &json!("latest")).await.ends_with("to/"));
    rpc.set(Mood::Lying { truth: "something else".to_owned(), lie: "lie".to_owned() });
    assert!(named(&chain, &rpc, &json!("latest")).await.ends_with(&"ab".repeat(32)));
    rpc.set(Mood::Boasting(1_000_000_000));
    assert_eq!(result(&rpc, "eth_blockNumber", json!([])).await, "0x3b9aca00");
    let finalized = result(&rpc, "eth_getBlockByNumber", json!(["finalized", false])).await;
    assert_eq!(finalized["number"], "0x3b9aca00");
}

#[tokio::test]
async fn what_is_lost_was_done_and_only_the_first_answer_is() {
    let chain = Chain::start().await;
    let rpc = Rpc::honest(&chain).await;
    rpc.set(Mood::Losing.on(&["anvil_mine"]));
    let before = chain.height().await;
    assert_eq!(ask(&rpc, "anvil_mine", json!(["0x1"])).await, None);
    assert!(ask(&rpc, "eth_blockNumber", json!([])).await.is_some(), "another method");
    assert!(ask(&rpc, "anvil_mine", json!(["0x1"])).await.is_some());
    assert_eq!(chain.height().await, before + 2);
    rpc.asked("anvil_mine", 2).await;
    assert_eq!((rpc.count("anvil_mine"), rpc.count("eth_call")), (2, 0));
}

#[tokio::test]
async fn faults_are_as_told_for_the_methods_that_are_told_and_repeat_keys() {
    let chain = Chain::start().await;
    let rpc = Rpc::honest(&chain).await;
    rpc.set(Mood::all([
        Mood::Closing.on(&["a"]),
        Mood::error(-32005, "so: {request}").on(&["b"]),
        Mood::Huge(3 << 20).on(&["c"]),
        Mood::result(json!([1])).on(&["d"]),
        Mood::Status { status: 429, retry_after_s: Some(3), text: "later, {request}".to_owned() }.on(&["e"]),
    ]));
    assert_eq!(ask(&rpc, "a", json!([])).await, None);
    assert_eq!(ask(&rpc, "b", json!([])).await.unwrap()["error"]["code"], -32005);
    assert_eq!(ask(&rpc, "d", json!([])).await.unwrap()["result"], json!([1]));
    assert_eq!(result(&rpc, "eth_chainId", json!([])).await, "0x7a69");

    let address = rpc.url().strip_prefix("http://").unwrap();
    let mut connection = Connection::new(TcpStream::connect(address).await.unwrap());
    let ask = async |connection: &mut Connection, method: &str| {
        connection.ask_raw("/v3/a%2Fb?key=x", "authorization: Basic dTpw\r\n", method).await;
        connection.receive().await.unwrap()
    };
    assert!(ask(&mut connection, "c").await.body.len() > 3 << 20);
    let refused = ask(&mut connection, "e").await;
    assert!(refused.head.starts_with("HTTP/1.1 429 "), "{}", refused.head);
    assert_eq!(header(&refused.head, "Retry-After"), Some("3"));
    let text = String::from_utf8(refused.body).unwrap();
    assert!(
        text.contains("/v3/a%2Fb?key=x") && text.contains("/v3/a/b?key=x") && text.contains("u:p"),
        "{text}"
    );

    // Silence lasts, whatever the mood becomes; the others go on.
    rpc.set(Mood::Silent);
    connection.ask_raw("/", "", "f").await;
    rpc.asked("f", 1).await;
    rpc.set(Mood::Honest);
    let next = connection.receive();
    tokio::select! {
        _ = next => panic!("it was to be silent"),
        answer = self::ask(&rpc, "eth_chainId", json!([])) => assert!(answer.is_some()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_being_made_is_seen_by_nobody_who_asks_for_the_one_before() {
    let chain = Chain::start().await;
    let rpcs = [Rpc::honest(&chain).await, Rpc::honest(&chain).await, Rpc::honest(&chain).await];
    let is_over = AtomicBool::new(false);
    let grow = async {
        for number in 0..200 {
            chain.name(&format!("{number:064}")).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let read = async |rpc: &Rpc| {
        while !is_over.load(Ordering::Relaxed) {
            let block = result(rpc, "eth_getBlockByNumber", json!(["latest", false])).await;
            let at = json!({"blockHash": block["hash"]});
            let first = named(&chain, rpc, &at).await;
            let again = named(&chain, rpc, &at).await;
            assert_eq!(first, again, "at {}", block["number"]);
        }
    };
    tokio::join!(grow, read(&rpcs[0]), read(&rpcs[1]), read(&rpcs[2]));
}
