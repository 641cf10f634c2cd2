//! What is found out before anything is sent.

use chain_reader::{
    Availability, Fees, GasPrice, Signer, SubmitConfig, SubmitError, U256, Wei, send,
    set_mature_model_calldata,
};
use manifest::Blame;
use serde_json::{Value, json};

use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest, policy, prepare, submit_config};

fn gwei(text: &str) -> GasPrice {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_call_is_what_is_then_sent_and_costs_no_more() {
    let devnet = devnet().await;
    let (config, owner) = (submit_config(&devnet), Signer::from_private_key(devnet.owner_key()).unwrap());
    let call = prepare(&config, owner.address(), U256::from(7)).await.unwrap();
    assert_eq!((call.sender, call.contract, call.chain_id), (owner.address(), devnet.contract(), 31337));
    assert_eq!((call.manifest, call.price), (digest(), U256::from(7)));
    assert_eq!(call.calldata.to_vec(), set_mature_model_calldata(digest(), U256::from(7)));
    // The deployment was the first.
    assert_eq!((call.nonce, call.waits_for), (1, 0));
    let Fees::Dynamic { base_fee, priority_fee, max_fee } = call.fees else { panic!("{call:?}") };
    assert_eq!(max_fee.wei(), 2 * base_fee.wei() + priority_fee.wei());
    assert_eq!(call.max_cost.0, U256::from(call.gas_limit) * U256::from(max_fee.wei()));
    assert_eq!(devnet.request("eth_blockNumber", ()).await.unwrap(), "0x1", "nothing is sent yet");

    let receipt = send(&config, &call, &owner, &|_| {}).await.unwrap();
    let sent = devnet.request("eth_getTransactionByHash", (receipt.tx_hash,)).await.unwrap();
    assert_eq!((&sent["type"], &sent["nonce"]), (&json!("0x2"), &json!("0x1")));
    assert_eq!(sent["input"], call.calldata.to_string());
    let after: U256 =
        number(&devnet.request("eth_getBalance", (owner.address().to_string(), "latest")).await.unwrap());
    let paid = Wei(call.balance.0 - after);
    assert!(paid > Wei(U256::ZERO) && paid <= call.max_cost, "{paid} of {}", call.max_cost);
    assert!(receipt.gas_used.unwrap() <= call.gas_limit);
}

fn number(value: &Value) -> U256 {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_network_over_the_cap_is_refused_and_the_cap_holds() {
    let devnet = devnet().await;
    let owner = Signer::from_private_key(devnet.owner_key()).unwrap();
    devnet.request("anvil_setNextBlockBaseFeePerGas", ("0x12a05f2000",)).await.unwrap();
    devnet.mine(1).await.unwrap();
    let with_cap = |cap: &str, priority_fee| {
        submit_config(&devnet).with_max_fee(gwei(cap)).with_priority_fee(priority_fee)
    };
    for (cap, priority) in [("50", None), ("80", Some(gwei("1"))), ("79.9", Some(gwei("0")))] {
        let error = prepare(&with_cap(cap, priority), owner.address(), U256::ZERO).await.unwrap_err();
        let SubmitError::FeeOverCap { base_fee, .. } = error else { panic!("{error:?}") };
        assert_eq!(base_fee, gwei("80"));
        let shown = error.to_string();
        assert!(shown.contains("80 gwei") && shown.contains(&format!("cap {cap} gwei")), "{shown}");
        assert_eq!((error.blame(), error.availability()), (Blame::Network, Availability::NotNow));
    }
    let config = with_cap("90", Some(gwei("2.5")));
    let call = prepare(&config, owner.address(), U256::ZERO).await.unwrap();
    let (base_fee, priority_fee, max_fee) = (gwei("80"), gwei("2.5"), gwei("90"));
    assert_eq!(call.fees, Fees::Dynamic { base_fee, priority_fee, max_fee });
    let receipt = send(&config, &call, &owner, &|_| {}).await.unwrap();
    let sent = devnet.request("eth_getTransactionByHash", (receipt.tx_hash,)).await.unwrap();
    let (max_fee, priority_fee) = (number(&sent["maxFeePerGas"]), number(&sent["maxPriorityFeePerGas"]));
    assert_eq!((max_fee, priority_fee), (U256::from(90_000_000_000_u64), U256::from(2_500_000_000_u64)));
}

#[tokio::test]
async fn an_account_that_cannot_pay_is_told_what_it_has_and_needs() {
    let devnet = devnet().await;
    let owner = Signer::from_private_key(devnet.owner_key()).unwrap();
    for balance in ["0x0", "0x2386f26fc1"] {
        devnet.request("anvil_setBalance", (owner.address().to_string(), balance)).await.unwrap();
        let error = prepare(&submit_config(&devnet), owner.address(), U256::ZERO).await.unwrap_err();
        let SubmitError::CannotPay { balance: found, max_cost, .. } = error else { panic!("{error:?}") };
        assert_eq!(found.0, number(&json!(balance)));
        assert!(max_cost > found && error.to_string().contains(&found.to_string()), "{error}");
        assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::Never));
    }
}

#[tokio::test]
async fn a_custom_error_of_the_contract_is_named() {
    let devnet = devnet().await;
    // Copies what follows its first 12 bytes to memory and reverts with it.
    let reverts_with = |bytes: &str| format!("0x60{0:02x}600c60003960{0:02x}6000fd{bytes}", bytes.len() / 2);
    let owner = Signer::from_private_key(devnet.owner_key()).unwrap();
    let address = format!("{:0>64}", owner.address().to_string()[2..].to_lowercase());
    for (data, expected) in [
        (format!("118cdaa7{address}"), format!("OwnableUnauthorizedAccount({})", owner.address())),
        (format!("deadbeef{address}"), "custom error 0xdeadbeef".to_owned()),
    ] {
        let code = reverts_with(&data);
        devnet.request("anvil_setCode", (devnet.contract().to_string(), code)).await.unwrap();
        let error = prepare(&submit_config(&devnet), owner.address(), U256::ZERO).await.unwrap_err();
        let SubmitError::Refused { ref reason, .. } = error else { panic!("{error:?}") };
        assert!(reason.contains(&expected), "{reason}");
    }
}

#[tokio::test]
async fn transactions_that_wait_are_counted() {
    let devnet = devnet().await;
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let owner = Signer::from_private_key(devnet.owner_key()).unwrap();
    let from = owner.address().to_string();
    devnet.request("eth_sendTransaction", (json!({"from": from, "to": from}),)).await.unwrap();
    let call = prepare(&submit_config(&devnet), owner.address(), U256::ZERO).await.unwrap();
    assert_eq!((call.nonce, call.waits_for), (2, 1));
}

/// A chain without base fees, whose gas costs 20 gwei.
fn old_chain(method: &str, _: &Value) -> Answer {
    Answer::Result(match method {
        "eth_chainId" => json!("0x3d"),
        "eth_getCode" | "eth_call" => json!("0x01"),
        "eth_getBlockByNumber" => {
            json!({"number": "0x10", "timestamp": "0x0", "hash": format!("0x{}", "11".repeat(32))})
        }
        "eth_gasPrice" => json!("0x4a817c800"),
        "eth_getBalance" => json!("0xde0b6b3a7640000"),
        "eth_estimateGas" => json!("0x186a0"),
        "eth_getTransactionCount" => json!("0x5"),
        _ => return Answer::Error(-32601, "no such method"),
    })
}

#[tokio::test]
async fn a_chain_without_base_fees_gets_a_price_of_gas_under_the_same_cap() {
    let endpoint = Scripted::start(old_chain).await;
    let contract = chain_reader::Address::from_bytes([9; 20]);
    let config = SubmitConfig::new(endpoint.url.clone(), contract).with_policy(policy());
    let call = prepare(&config, contract, U256::ZERO).await.unwrap();
    assert_eq!(call.fees, Fees::Legacy { gas_price: gwei("20") });
    assert_eq!((call.gas_limit, call.nonce), (120_000, 5));
    assert_eq!(call.max_cost.to_string(), "0.0024 ETH");
    let config = config.with_max_fee(gwei("19"));
    let error = prepare(&config, contract, U256::ZERO).await.unwrap_err();
    assert!(matches!(error, SubmitError::FeeOverCap { .. }), "{error:?}");
}

#[tokio::test]
async fn an_endpoint_without_the_newer_method_still_tells_the_priority_fee() {
    let endpoint = Scripted::start(|method, params| match method {
        "eth_getBlockByNumber" => Answer::Result(json!({
            "number": "0x10", "timestamp": "0x0", "hash": format!("0x{}", "11".repeat(32)), "baseFeePerGas": "0x3b9aca00"
        })),
        _ => old_chain(method, params),
    })
    .await;
    let contract = chain_reader::Address::from_bytes([9; 20]);
    let config = SubmitConfig::new(endpoint.url.clone(), contract).with_policy(policy());
    let call = prepare(&config, contract, U256::ZERO).await.unwrap();
    let (base_fee, priority_fee, max_fee) = (gwei("1"), gwei("19"), gwei("21"));
    assert_eq!(call.fees, Fees::Dynamic { base_fee, priority_fee, max_fee });
}
