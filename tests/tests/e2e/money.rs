//! What `publish` says about money is true, whatever its endpoint does.

use e2e::{Chain, Home, Mood, Outcome, Process, Rpc, put};
use serde_json::{Value, json};

/// What shows where a transaction is.
const LOOKS: &[&str] = &["eth_getTransactionReceipt", "eth_getTransactionByHash"];

/// A command that publishes the same file at the same price, as the owner, through this endpoint.
fn publishing(home: &Home, chain: &Chain, rpc: &Rpc, more: &[&str]) -> Process {
    put(&home.path("model"), b"weights");
    let mut command =
        home.command(["--json", "publish", "model", "--model-kind", "simplenet", "--price", "7"]);
    command.args(["--contract", &chain.contract(), "--rpc-url", rpc.url()]).args(more);
    command.args(["--private-key-env", "THE_KEY"]).env("THE_KEY", chain.devnet().owner_key());
    Process::start(command)
}

async fn publish(home: &Home, chain: &Chain, rpc: &Rpc, more: &[&str]) -> Outcome {
    publishing(home, chain, rpc, more).outcome().await
}

/// How many transactions the owner has in blocks, the deployment included.
async fn paid(chain: &Chain) -> Value {
    let accounts = chain.devnet().request("eth_accounts", ()).await.unwrap();
    chain.devnet().request("eth_getTransactionCount", (&accounts[0], "latest")).await.unwrap()
}

async fn fresh() -> (Chain, Home, Rpc) {
    let chain = Chain::start().await;
    let rpc = Rpc::honest(&chain).await;
    (chain, Home::new(), rpc)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lags_does_not_have_it_paid_twice() {
    // One that lags in all, and one that counts the transaction and does not show it.
    for mood in [Mood::At(1), Mood::result(Value::Null).on(LOOKS)] {
        let (chain, home, rpc) = fresh().await;
        rpc.set(mood);
        let publishing = publishing(&home, &chain, &rpc, &[]);
        rpc.asked("eth_getTransactionReceipt", 6).await;
        rpc.set(Mood::Honest);
        let published = publishing.outcome().await.answer();
        assert_eq!(published["transaction"]["block_number"], 2);
        let again = publish(&home, &chain, &rpc, &[]).await.answer();
        assert_eq!((&again["transaction"], &again["already_set"]["block_number"]), (&Value::Null, &json!(2)));
        assert_eq!(paid(&chain).await, "0x2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_worth_a_retry_that_does_not_pay() {
    let (chain, home, rpc) = fresh().await;
    rpc.set(Mood::At(1));
    let failed = publish(&home, &chain, &rpc, &["--tx-timeout", "1s"]).await.expect(4);
    let shown = &failed.stderr;
    assert!(
        shown.contains("may still come, or have come") && shown.contains("may be set on chain"),
        "{shown}"
    );
    assert!(!shown.contains("never come"), "{shown}");
    rpc.set(Mood::Honest);
    publish(&home, &chain, &rpc, &[]).await.expect(0);
    assert_eq!(paid(&chain).await, "0x2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_into() {
    let (chain, home, rpc) = fresh().await;
    rpc.set(Mood::Losing.on(&["eth_sendRawTransaction"]));
    let published = publish(&home, &chain, &rpc, &[]).await.answer();
    assert_eq!((&published["transaction"]["block_number"], paid(&chain).await), (&json!(2), json!("0x2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_block_is_said_to_be_there() {
    let (chain, home, rpc) = fresh().await;
    rpc.set(Mood::Stuck { tags: &["finalized"], height: 1 });
    let more = ["--wait-final", "--tx-timeout", "1s"];
    let failed = publish(&home, &chain, &rpc, &more).await.expect(4);
    assert!(failed.stderr.contains("is in block 2") && failed.stderr.contains("once it is finalized"));

    let (chain, home, rpc) = fresh().await;
    let hash = async |height: &str| {
        chain.devnet().request("eth_getBlockByNumber", (height, false)).await.unwrap()["hash"].clone()
    };
    rpc.set(Mood::Closing.on(LOOKS));
    let publishing = publishing(&home, &chain, &rpc, &[]);
    rpc.asked("eth_getTransactionReceipt", 1).await;
    // As from before Byzantium.
    rpc.set(
        Mood::result(json!({"blockNumber": "0x2", "blockHash": hash("0x2").await, "root": "0x11"}))
            .on(&["eth_getTransactionReceipt"]),
    );
    let published = publishing.outcome().await.answer();
    let transaction = &published["transaction"];
    assert_eq!((&transaction["block_number"], &transaction["gas_used"]), (&json!(2), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_reverts_without_data_will_again() {
    for (code, words) in [(-32000, "execution reverted"), (-32015, "VM execution error.")] {
        for methods in [&["eth_call"] as &[&str], &["eth_estimateGas"]] {
            let (chain, home, rpc) = fresh().await;
            rpc.set(Mood::error(code, words).on(methods));
            let failed = publish(&home, &chain, &rpc, &[]).await.expect(1);
            let shown = &failed.stderr;
            assert!(
                shown.contains("refuses setMatureModel") && shown.contains("nothing was sent"),
                "{shown}"
            );
            assert_eq!(paid(&chain).await, "0x1");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_node_will_do() {
    let (chain, home, rpc) = fresh().await;
    rpc.set(Mood::error(-32601, "no such method").on(&["eth_maxPriorityFeePerGas", "eth_gasPrice"]));
    publish(&home, &chain, &rpc, &[]).await.expect(0);
    assert_eq!(paid(&chain).await, "0x2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_governors_proposal_carries_the_call() {
    let (chain, home, rpc) = fresh().await;
    put(&home.path("model"), b"weights");
    let contract = chain.contract();
    let words = |more: &str| {
        let line = format!("publish model --model-kind simplenet --price 7 {more}");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let governor = format!("--calldata=governor --contract {contract}");
    let published = home.run(words(&governor)).await.answer();
    let call = home.run(words("--calldata")).await.answer();
    let (proposal, digest) = (&published["proposal"], published["manifest"].as_str().unwrap());
    assert_eq!((&proposal["targets"], &proposal["values"]), (&json!([contract]), &json!(["0"])));
    assert_eq!((&proposal["calldatas"], &call["proposal"]), (&json!([call["calldata"]]), &Value::Null));
    assert!(proposal["description"].as_str().unwrap().contains(digest));
    assert!(proposal["propose"].as_str().unwrap().starts_with("0x7d5e81e2"));
    // What it carries is what the contract takes from its owner.
    let owner = chain.devnet().request("eth_accounts", ()).await.unwrap()[0].clone();
    let carried = json!({"from": owner, "to": proposal["targets"][0], "data": proposal["calldatas"][0]});
    chain.devnet().request("eth_sendTransaction", (carried,)).await.unwrap();
    let set = publish(&home, &chain, &rpc, &[]).await.answer();
    assert_eq!(set["already_set"]["block_number"], 2);

    let plain = home.plain(words(&governor)).await.expect(0).stdout;
    for part in [format!("targets      [\"{contract}\"]"), "values       [0]".to_owned()] {
        assert!(plain.contains(&part), "{plain}");
    }
    assert!(home.run(words("--calldata=governor")).await.failure(2).contains("--contract"));
    assert!(home.run(words("--calldata=dao")).await.expect(2).stderr.contains("call, governor"));
}
