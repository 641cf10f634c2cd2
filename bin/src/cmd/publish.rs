//! `loader publish`.

use std::cell::Cell;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use chain_reader::{
    Address, Call, Receipt, Settled, Signer, Step, SubmitConfig, U256, prepare, send,
    set_mature_model_calldata,
};
use loader::cache::{Cache, Model};
use loader::encode::{self, Input, Options};
use manifest::Digest;

use crate::answer::{self, Answer, CallSummary, Overlap, Text, Transaction};
use crate::args;
use crate::cmd::{block_on, finished, key, node_config, serve};
use crate::config::Settings;
use crate::exit::{Interrupted, Usage};
use crate::output::Output;
use crate::progress::ByteProgress;
use crate::units::show_size;

pub(crate) fn run(flags: &args::Publish, settings: &Settings, cache: &Cache, output: &Output) -> Result<()> {
    // Everything that can be wrong with the flags is found before minutes of encoding.
    let on_chain = OnChain::of(flags, settings)?;
    let seeder = match flags.serve {
        true => Some(node_config(settings, settings.seeder(&flags.network)?)),
        false => None,
    };
    let base = flags.base.map(|base| finished(cache, &base)).transpose()?;
    let piece_size_bytes =
        u32::try_from(flags.piece_size).map_err(|_| Usage::new("--piece-size is over 4MiB"))?;
    let options = Options {
        model_kind: flags.model_kind.clone(),
        data: flags.data,
        parity: flags.parity,
        codec: flags.codec,
        piece_size_bytes: (!flags.no_piece_index).then_some(piece_size_bytes),
    };
    let input = match &flags.file {
        Some(file) => Input::File(file.clone()),
        None => Input::Layers(flags.layers.clone()),
    };
    let progress = ByteProgress::new(output, "encoding");
    let published = encode::publish(cache, &input, &options, &|done_bytes, total_bytes| {
        progress.update(done_bytes, total_bytes);
    })?;
    drop(progress);
    for warning in &published.warnings {
        output.note(&format!("warning: {warning}"));
    }
    let base = base.map(|base| overlap(&published.model, &base, output)).transpose()?;
    let mut answer = answer::Published {
        manifest: Text::of(published.digest),
        weights: published.model.weights().path().to_owned(),
        total_size_bytes: published.manifest.total_size_bytes(),
        shards: published.manifest.shards().len(),
        warnings: published.warnings,
        base,
        calldata: None,
        call: None,
        transaction: None,
    };
    let digest = published.digest;
    let is_answered = Cell::new(false);
    let finish = async || {
        (answer.calldata, answer.call, answer.transaction) = on_chain.run(digest, output).await?;
        is_answered.set(true);
        output.answer(&Answer::Published(answer))
    };
    let Some(config) = seeder else { return block_on(finish()) };
    // Before it is set on chain: whoever reads it there asks for it at once.
    block_on(serve::seed(config, output, async |_| {
        finish().await?;
        std::future::pending().await
    }))?;
    if is_answered.get() { Ok(()) } else { Err(Interrupted.into()) }
}

/// How much a node that has `base` would fetch of `new`.
fn overlap(new: &Model, base: &Model, output: &Output) -> Result<Overlap> {
    let threads = available_parallelism().map_or(1, usize::from);
    let loader::Overlap { reused_bytes, fetched_bytes, index_bytes } = loader::overlap(new, base, threads)?;
    let (fetched, reused) = (show_size(fetched_bytes + index_bytes), show_size(reused_bytes));
    output.note(&format!("a node that has {} would fetch {fetched}, and reuse {reused}", base.digest()));
    Ok(Overlap { manifest: Text::of(base.digest()), reused_bytes, fetched_bytes, index_bytes })
}

/// What becomes of the digest.
enum OnChain {
    No,
    Calldata { price: U256 },
    Send(Box<Send>),
}

/// A transaction to be made.
struct Send {
    config: SubmitConfig,
    signer: Signer,
    price: U256,
    is_dry_run: bool,
}

impl OnChain {
    fn of(flags: &args::Publish, settings: &Settings) -> Result<Self> {
        let has_key = flags.signing.keystore.is_some() || flags.signing.private_key_env.is_some();
        let Some(price) = flags.price else {
            if has_key || flags.signing.dry_run || flags.chain.contract.is_some() {
                return Err(Usage::new("to set the model on chain give --price, too").into());
            }
            return Ok(Self::No);
        };
        if flags.calldata {
            return Ok(Self::Calldata { price });
        }
        let chain = settings.chain(&flags.chain)?.ok_or_else(|| {
            Usage::new(
                "to set the model on chain give --contract and --rpc-url, or --calldata to print the call",
            )
        })?;
        let [rpc_url] = chain.rpc_urls.as_slice() else {
            return Err(Usage::new("a transaction is sent through one endpoint: give one --rpc-url").into());
        };
        let signer = key::signer(&flags.signing)?;
        let mut config = SubmitConfig::new(rpc_url.clone(), chain.contract);
        config.chain_id = chain.chain_id;
        if let Some(max_fee) = flags.signing.max_fee {
            config.max_fee = max_fee;
        }
        config.priority_fee = flags.signing.priority_fee;
        config.settled = match (flags.signing.wait_final, flags.signing.confirmations) {
            (true, _) => Some(Settled::Tag(chain.block_tag)),
            (false, confirmations) => confirmations.map(Settled::Confirmations),
        };
        if let Some(timeout) = flags.signing.tx_timeout {
            config.timeout = timeout;
        }
        let is_dry_run = flags.signing.dry_run;
        Ok(Self::Send(Box::new(Send { config, signer, price, is_dry_run })))
    }

    /// The input data that is to be shown, the call, and the transaction, as far as there are such.
    async fn run(
        self,
        digest: Digest,
        output: &Output,
    ) -> Result<(Option<String>, Option<CallSummary>, Option<Transaction>)> {
        match self {
            Self::No => Ok((None, None, None)),
            Self::Calldata { price } => {
                Ok((Some(hex(&set_mature_model_calldata(digest, price))), None, None))
            }
            Self::Send(send) => {
                output.note(&format!("{digest} is encoded; setting it on chain"));
                let done = send.run(digest, output).await.with_context(|| {
                    format!(
                        "model {digest} is in the cache, but not set on chain: the same command goes on from there, \
                         and encodes nothing twice"
                    )
                });
                let (call, transaction) = done?;
                Ok((None, call, transaction))
            }
        }
    }
}

impl Send {
    /// Makes the call and sends it, unless that is only to be tried.
    async fn run(
        &self,
        digest: Digest,
        output: &Output,
    ) -> Result<(Option<CallSummary>, Option<Transaction>)> {
        let sender = self.signer.address();
        let call = prepare(&self.config, sender, digest, self.price).await?;
        tell(&call, output);
        if self.is_dry_run {
            output.note("nothing was sent: this was a dry run");
            return Ok((Some(summary(&call)), None));
        }
        let on_step = |step| tell_step(step, output);
        let receipt = send(&self.config, &call, &self.signer, &on_step).await?;
        Ok((Some(summary(&call)), Some(transaction(self.config.contract, &receipt))))
    }
}

/// For a person, before anything is sent.
fn tell(call: &Call, output: &Output) {
    output.note(&format!(
        "setMatureModel({}, {}) of {} on chain {}, from {}: transaction {} of it, {} gas at {} at most, costs {} at most; \
         the sender has {}",
        call.manifest,
        call.price,
        call.contract,
        call.chain_id,
        call.sender,
        call.nonce,
        call.gas_limit,
        call.fees.max_per_gas(),
        call.max_cost,
        call.balance,
    ));
    if call.waits_for > 0 {
        output.note(&format!("it waits for {} earlier transactions of the sender", call.waits_for));
    }
}

fn tell_step(step: Step, output: &Output) {
    match step {
        Step::Sent { tx_hash } => output.note(&format!("sent {tx_hash}; waiting for a block")),
        Step::InBlock { block_number, block_hash } => {
            output.note(&format!("it is in block {block_number} ({block_hash}); waiting until that has settled"));
        }
        Step::Reorganised { block_number, block_hash } => output.note(&format!(
            "the chain was reorganised: block {block_number} ({block_hash}) is gone, and the transaction with it; waiting \
             for it again"
        )),
        Step::SentAgain { tx_hash } => output.note(&format!("the endpoint had forgotten {tx_hash}: sent again")),
    }
}

fn summary(call: &Call) -> CallSummary {
    CallSummary {
        contract: Text::of(call.contract),
        chain_id: call.chain_id,
        sender: Text::of(call.sender),
        calldata: hex(&call.calldata),
        nonce: call.nonce,
        gas_limit: call.gas_limit,
        max_fee_per_gas_wei: Text::of(call.fees.max_per_gas().wei()),
        max_cost_wei: Text::of(call.max_cost.0),
        balance_wei: Text::of(call.balance.0),
    }
}

fn transaction(contract: Address, receipt: &Receipt) -> Transaction {
    Transaction {
        contract: Text::of(contract),
        hash: Text::of(receipt.tx_hash),
        block_number: receipt.block_number,
        gas_used: receipt.gas_used,
        confirmations: receipt.confirmations,
        reorganisations: receipt.reorganisations,
    }
}

/// As Ethereum tools take it: `0x` and two characters a byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
