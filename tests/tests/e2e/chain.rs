//! What a fetch says of every state that the chain can be in. None of these asks a peer.

use e2e::{Chain, Home};

/// Fetches what the chain names, with these further arguments, and returns what the failure says.
async fn failure(chain: &Chain, more: &[&str], status: i32) -> String {
    let line = ["fetch".to_owned()].into_iter().chain(chain.flags());
    Home::new().run(line.chain(more.iter().map(|word| (*word).to_owned()))).await.failure(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_contract_yet_no_model_yet_and_not_final_yet() {
    let chain = Chain::start().await;
    let message = failure(&chain, &[], 4).await;
    assert!(message.contains(&chain.contract()) && message.contains("not yet finalized"), "{message}");
    chain.mine(2).await;
    let message = failure(&chain, &[], 4).await;
    assert!(message.contains(&chain.contract()) && message.contains("no model yet"), "{message}");
    let model = "ab".repeat(32);
    chain.set(&model).await;
    // Now only a peer is missing.
    assert!(failure(&chain, &["--wait", "1ms"], 4).await.contains(&model));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_at_the_address() {
    let (chain, nobody) = (Chain::start().await, "0x1111111111111111111111111111111111111111");
    let [_, _, flag, url] = chain.flags();
    let message = Home::new().run(["fetch", "--contract", nobody, &flag, &url]).await.failure(4);
    assert!(message.contains(nobody) && message.contains("no contract"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_that_is_no_digest() {
    let chain = Chain::start().await;
    chain.set("ipfs://weights").await;
    let message = failure(&chain, &[], 3).await;
    assert!(message.contains("ipfs://weights") && message.contains("64 lower-case"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_than_the_one_expected() {
    let message = failure(&Chain::start().await, &["--chain-id", "1"], 1).await;
    assert!(message.contains("31337") && message.contains("expected chain 1"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down() {
    let chain = Chain::start().await;
    let line: Vec<_> = ["fetch".to_owned()].into_iter().chain(chain.flags()).collect();
    let endpoint = chain.devnet().rpc_url().to_string();
    drop(chain);
    let message = Home::new().run(line).await.failure(4);
    assert!(message.contains("cannot reach") && message.contains(&endpoint), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_to_read_must_be_said() {
    let home = Home::new();
    let message = home.run(["fetch"]).await.failure(2);
    assert!(message.contains("--contract") && message.contains("DIGEST"), "{message}");
    let contract = "0x0000000000000000000000000000000000000009";
    let message = home.run(["fetch", "--contract", contract]).await.failure(2);
    assert!(message.contains("--rpc-url"), "{message}");
}

#[test]
fn the_contract_of_the_documentation_is_the_one_that_is_tested() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/contract.md")).unwrap();
    let source = std::fs::read_to_string(root.join("contracts/RPB.sol")).unwrap();
    assert!(
        page.contains(&format!("```solidity\n{source}```")),
        "docs/contract.md and tests/contracts/RPB.sol differ"
    );
}
