//! What becomes of a transaction after it was sent, on a real chain.

use std::sync::Mutex;
use std::time::Duration;

use chain_reader::{
    Availability, BlockTag, ChainReader, Devnet, Receipt, Settled, Signer, Step, SubmitConfig, SubmitError,
    U256, send,
};
use manifest::Blame;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{config, devnet, digest, prepare, submit_config};

/// Sends as the owner, and meanwhile does `on_step` for each step.
async fn send_and(
    devnet: &Devnet,
    config: &SubmitConfig,
    mut on_step: impl AsyncFnMut(Step),
) -> (Result<Receipt, SubmitError>, Vec<Step>) {
    let owner = Signer::from_private_key(devnet.owner_key()).unwrap();
    let call = prepare(config, owner.address(), U256::ZERO).await.unwrap();
    let (steps, mut next) = mpsc::channel(16);
    let all = Mutex::new(Vec::new());
    let record = |step| {
        all.lock().unwrap().push(step);
        steps.try_send(step).unwrap();
    };
    let sending = send(config, &call, &owner, &record);
    let reacting = async {
        while let Some(step) = next.recv().await {
            on_step(step).await;
        }
        std::future::pending::<()>().await;
    };
    let sent = tokio::select! {
        sent = sending => sent,
        () = reacting => unreachable!(),
    };
    (sent, all.into_inner().unwrap())
}

#[tokio::test]
async fn it_is_looked_after_for_as_many_blocks_as_asked() {
    let devnet = devnet().await;
    let config = submit_config(&devnet).with_settled(Settled::Confirmations(3));
    let (sent, steps) = send_and(&devnet, &config, async |step| {
        if matches!(step, Step::InBlock { .. }) {
            devnet.mine(2).await.unwrap();
        }
    })
    .await;
    let receipt = sent.unwrap();
    assert_eq!((receipt.block_number, receipt.confirmations, receipt.reorganisations), (2, 3, 0));
    let in_block = Step::InBlock { block_number: 2, block_hash: receipt.block_hash };
    assert_eq!(steps, [Step::Sent { tx_hash: receipt.tx_hash }, in_block]);
}

#[tokio::test]
async fn it_is_looked_after_until_those_who_read_a_tag_see_it() {
    let devnet = devnet().await;
    let config = submit_config(&devnet).with_settled(Settled::Tag(BlockTag::Finalized));
    let (sent, _) = send_and(&devnet, &config, async |step| {
        if matches!(step, Step::InBlock { .. }) {
            devnet.mine(2).await.unwrap();
        }
    })
    .await;
    assert_eq!(sent.unwrap().confirmations, 3);
    let model = ChainReader::new(crate::config(&devnet, BlockTag::Finalized)).unwrap().mature_model().await;
    assert_eq!(model.unwrap().manifest, digest());
}

#[tokio::test]
async fn blocks_that_do_not_come_are_told_from_a_transaction_that_does_not() {
    let devnet = devnet().await;
    let (settled, timeout) = (Some(Settled::Confirmations(2)), Duration::from_millis(300));
    let config = submit_config(&devnet).with_settled(settled).with_timeout(timeout);
    let (sent, _) = send_and(&devnet, &config, async |_| {}).await;
    let error = sent.unwrap_err();
    assert!(matches!(error, SubmitError::NotSettled { block_number: 2, confirmations: 1, .. }), "{error:?}");
    assert_eq!((error.blame(), error.availability()), (Blame::Network, Availability::NotNow));
}

#[tokio::test]
async fn a_reorganisation_is_noticed_and_the_transaction_sent_again() {
    let devnet = devnet().await;
    let config = submit_config(&devnet).with_settled(Settled::Confirmations(2));
    let mut blocks = 0;
    let (sent, steps) = send_and(&devnet, &config, async |step| {
        let Step::InBlock { .. } = step else { return };
        blocks += 1;
        match blocks {
            1 => devnet.request("anvil_reorg", (1, json!([]))).await.map(drop).unwrap(),
            _ => devnet.mine(1).await.unwrap(),
        }
    })
    .await;
    let receipt = sent.unwrap();
    assert_eq!((receipt.reorganisations, receipt.confirmations), (1, 2), "{steps:?}");
    let [
        Step::Sent { .. },
        Step::InBlock { block_hash: lost, .. },
        Step::Reorganised { block_hash, .. },
        ..,
        Step::InBlock { block_hash: found, .. },
    ] = steps[..]
    else {
        panic!("{steps:?}");
    };
    assert_eq!((block_hash, found), (lost, receipt.block_hash));
    assert_ne!(lost, found);
    let model = ChainReader::new(config_latest(&devnet)).unwrap().mature_model().await.unwrap();
    assert_eq!((model.manifest, model.block_number), (digest(), receipt.block_number + 1));
}

fn config_latest(devnet: &Devnet) -> chain_reader::Config {
    config(devnet, BlockTag::Latest)
}

#[tokio::test]
async fn one_that_the_endpoint_forgets_is_sent_again() {
    let devnet = devnet().await;
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let (sent, steps) = send_and(&devnet, &submit_config(&devnet), async |step| match step {
        Step::Sent { tx_hash } => {
            devnet.request("anvil_dropTransaction", (tx_hash,)).await.map(drop).unwrap();
        }
        Step::SentAgain { .. } => devnet.mine(1).await.unwrap(),
        _ => {}
    })
    .await;
    assert!(sent.is_ok(), "{sent:?}");
    assert!(matches!(steps[1], Step::SentAgain { .. }), "{steps:?}");
}

#[tokio::test]
async fn one_whose_nonce_another_has_taken_never_comes_and_that_is_said() {
    let devnet = devnet().await;
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let owner = Signer::from_private_key(devnet.owner_key()).unwrap().address();
    let (sent, _) = send_and(&devnet, &submit_config(&devnet), async |step| {
        let Step::Sent { .. } = step else { return };
        // The same nonce, for more: the pool takes it instead.
        let price = "0x174876e800";
        let other = json!({"from": owner.to_string(), "to": owner.to_string(), "nonce": "0x1",
            "maxFeePerGas": price, "maxPriorityFeePerGas": price});
        devnet.request("eth_sendTransaction", (other,)).await.unwrap();
        devnet.mine(1).await.unwrap();
    })
    .await;
    let error = sent.unwrap_err();
    assert!(matches!(error, SubmitError::Replaced { nonce: 1, sender, .. } if sender == owner), "{error:?}");
    assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::Never));
}
