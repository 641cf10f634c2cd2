//! `loader publish`.

use std::cell::Cell;
use std::thread::available_parallelism;

use anyhow::Result;
use chain_reader::{
    Address, AlreadySet, Call, Plan, Proposal, Receipt, Settled, Signer, Step, SubmitConfig, SubmitError,
    U256, prepare, send, set_mature_model_calldata, wait_until_settled,
};
use loader::encode::{self, Folder, Input, Options};
use loader::{Selection, executable, troubles};
use manifest::Digest;
use store::{Cache, MappedFile, Model};

use crate::answer::{self, Answer, CallSummary, Overlap, ProposalSummary, SetOnChain, Text, Transaction};
use crate::args::{self, CalldataForm};
use crate::cmd::cache::finished;
use crate::cmd::code;
use crate::cmd::{key, serve};
use crate::config::Settings;
use crate::exit::{Interrupted, Usage};
use crate::output::Output;
use crate::progress::ByteProgress;
use crate::system::block_on;
use crate::units::show_size;
use crate::visible::visible;

pub(crate) fn run(flags: &args::Publish, settings: &Settings, cache: &Cache, output: &Output) -> Result<()> {
    // Everything that can be wrong with the flags is found before minutes of encoding.
    let on_chain = OnChain::of(flags, settings)?;
    let seeder = match flags.serve {
        true => Some(settings.seeder(&flags.network)?),
        false => None,
    };
    let base = flags.base.as_ref().map(|base| finished(cache, &base.find(Some(cache))?)).transpose()?;
    let piece_size_bytes =
        u32::try_from(flags.piece_size).map_err(|_| Usage::new("--piece-size is over 4MiB"))?;
    let options = Options::default()
        .with_model_kind(flags.model_kind.clone())
        .with_data(flags.data)
        .with_parity(flags.parity)
        .with_codec(flags.codec)
        .with_piece_size_bytes((!flags.no_piece_index).then_some(piece_size_bytes))
        .with_layout(flags.folder.layout.into());
    let input = input(flags, output)?;
    let found = match &input {
        Input::Folder(folder) => inspect(folder, flags.folder.no_code)?,
        Input::File(_) | Input::Layers(_) => Vec::new(),
    };
    found.iter().for_each(|warning| output.warn(&visible(warning)));
    let progress = ByteProgress::new(output, "encoding");
    let published = encode::publish(cache, &input, &options, &|done_bytes, total_bytes| {
        progress.update(done_bytes, total_bytes);
    })?;
    drop(progress);
    for warning in &published.warnings {
        output.warn(warning);
    }
    let base = base.map(|base| overlap(&published.model, &base, output)).transpose()?;
    let mut answer = answer::Published {
        manifest: Text::of(published.digest),
        path: published.model.path(),
        weights: published.model.weights().map(MappedFile::path),
        total_size_bytes: published.manifest.total_size_bytes(),
        shards: published.manifest.shards().len(),
        warnings: found.into_iter().chain(published.warnings).collect(),
        base,
        on_chain: SetOnChain::default(),
    };
    let digest = published.digest;
    let is_answered = Cell::new(false);
    let finish = async || {
        answer.on_chain = on_chain.run(digest, output).await?;
        is_answered.set(true);
        output.answer(&Answer::Published(Box::new(answer)))
    };
    let Some(config) = seeder else { return block_on(finish()) };
    // Before it is set on chain: whoever reads it there asks for it at once.
    block_on(serve::seed(config, None, output, async |_, _| {
        finish().await?;
        std::future::pending().await
    }))?;
    if is_answered.get() { Ok(()) } else { Err(Interrupted.into()) }
}

/// Files that are listed before they are read.
const MAX_LISTED: usize = 200;

/// What is published, told file by file.
fn input(flags: &args::Publish, output: &Output) -> Result<Input> {
    let Some(path) = &flags.path else { return Ok(Input::Layers(flags.layers.clone())) };
    if flags.folder.no_names {
        return Ok(Input::File(path.clone()));
    }
    let selection = Selection::new(&flags.folder.include, &flags.folder.exclude);
    let selection = selection.map_err(|error| Usage::new(error.to_string()))?;
    let folder = Folder::list(path, &selection)?;
    let files = folder.files();
    if path.is_dir() {
        for file in files.iter().take(MAX_LISTED) {
            output.note(&format!("{:>10}  {}", show_size(file.size_bytes), visible(file.path.as_str())));
        }
        if files.len() > MAX_LISTED {
            output.note(&format!("and {} more files", files.len() - MAX_LISTED));
        }
        let left_out = match folder.left_out() {
            [] => String::new(),
            names => format!("; left out: {}", visible(&names.join(", "))),
        };
        output.note(&format!("{} in {} files{left_out}", show_size(folder.total_bytes()), files.len()));
    }
    Ok(Input::Folder(folder))
}

/// What a runtime will trip over, and what it may execute, a sentence each.
fn inspect(folder: &Folder, no_code: bool) -> Result<Vec<String>> {
    let mut found = troubles(folder);
    let executable = executable(folder);
    if no_code && !executable.is_empty() {
        return Err(Usage::new(code::refusal(&executable)).into());
    }
    found.extend(code::summary(&executable));
    Ok(found)
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
    Proposal { contract: Address, price: U256 },
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
        let Some(price) = flags.price else {
            if ["contract", "keystore", "private_key_env", "dry_run"].iter().any(|id| settings.is_given(id)) {
                return Err(Usage::new("to set the model on chain give --price, too").into());
            }
            return Ok(Self::No);
        };
        match flags.calldata {
            Some(CalldataForm::Call) => return Ok(Self::Calldata { price }),
            Some(CalldataForm::Governor) => {
                let contract = flags.chain.contract.ok_or_else(|| {
                    Usage::new("a proposal names the contract that it is about: give --contract, too")
                })?;
                return Ok(Self::Proposal { contract, price });
            }
            None => {}
        }
        let chain = settings.chain(&flags.chain)?.ok_or_else(|| {
            Usage::new(
                "to set the model on chain give --contract and --rpc-url, or --calldata to print the call",
            )
        })?;
        let [rpc_url] = chain.rpc_urls() else {
            return Err(Usage::new("a transaction is sent through one endpoint: give one --rpc-url").into());
        };
        let signer = key::signer(&flags.signing)?;
        let settled = match (flags.signing.wait_final, flags.signing.confirmations) {
            (true, _) => Some(Settled::Tag(chain.block_tag())),
            (false, confirmations) => confirmations.map(Settled::Confirmations),
        };
        let mut config = SubmitConfig::new(rpc_url.clone(), chain.contract())
            .with_chain_id(chain.chain_id())
            .with_priority_fee(flags.signing.priority_fee)
            .with_settled(settled);
        if let Some(max_fee) = flags.signing.max_fee {
            config = config.with_max_fee(max_fee);
        }
        if let Some(timeout) = flags.signing.tx_timeout {
            config = config.with_timeout(timeout);
        }
        let is_dry_run = flags.signing.dry_run;
        Ok(Self::Send(Box::new(Send { config, signer, price, is_dry_run })))
    }

    /// Does it, and tells what there is to tell.
    async fn run(self, digest: Digest, output: &Output) -> Result<SetOnChain> {
        match self {
            Self::No => Ok(SetOnChain::default()),
            Self::Calldata { price } => {
                let calldata = Some(hex(&set_mature_model_calldata(digest, price)));
                Ok(SetOnChain { calldata, ..SetOnChain::default() })
            }
            Self::Proposal { contract, price } => {
                let proposal = Proposal::new(contract, digest, price);
                let calldata = Some(hex(&proposal.calldata));
                Ok(SetOnChain { calldata, proposal: Some(proposed(&proposal)), ..SetOnChain::default() })
            }
            Self::Send(send) => {
                output.note(&format!("{digest} is encoded; setting it on chain"));
                let done = send.run(digest, output).await;
                done.map_err(|error| {
                    let on_chain = match error.may_be_set() {
                        true => "and may be set on chain: the same command looks for that before it sends anything",
                        false => "but not set on chain: the same command goes on from there, and encodes nothing twice",
                    };
                    anyhow::Error::new(error).context(format!("model {digest} is in the cache, {on_chain}"))
                })
            }
        }
    }
}

impl Send {
    /// Makes the call and sends it, unless that is only to be tried, or there is nothing to send.
    async fn run(&self, digest: Digest, output: &Output) -> Result<SetOnChain, SubmitError> {
        let contract = self.config.contract();
        let call = match prepare(&self.config, self.signer.address(), digest, self.price).await? {
            Plan::Send(call) => call,
            Plan::AlreadySet(set) => {
                tell_set(contract, &set, output);
                let is_waited_for = !self.is_dry_run;
                let set = if is_waited_for { wait_until_settled(&self.config, set).await? } else { set };
                return Ok(SetOnChain {
                    already_set: Some(set_before(contract, &set)),
                    ..SetOnChain::default()
                });
            }
        };
        tell(&call, output);
        let answer = SetOnChain { call: Some(summary(&call)), ..SetOnChain::default() };
        if self.is_dry_run {
            output.note("nothing was sent: this was a dry run");
            return Ok(answer);
        }
        let on_step = |step| tell_step(step, output);
        let receipt = send(&self.config, &call, &self.signer, &on_step).await?;
        Ok(SetOnChain { transaction: Some(transaction(contract, &receipt)), ..answer })
    }
}

/// For a person, when there is nothing to send.
fn tell_set(contract: Address, set: &AlreadySet, output: &Output) {
    output.note(&format!(
        "{contract} names {} at price {} already, at block {} of chain {}: nothing is sent",
        set.manifest, set.price, set.block_number, set.chain_id
    ));
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
    if let Some(tx_hash) = call.waiting {
        output.note(&format!(
            "{tx_hash} makes this call already, and waits for a block: no other one is to be sent"
        ));
    }
    if call.waits_for > 0 {
        output.note(&format!("it waits for {} earlier transactions of the sender", call.waits_for));
    }
}

fn tell_step(step: Step, output: &Output) {
    match step {
        Step::Sent { tx_hash } => output.note(&format!("sent {tx_hash}; waiting for a block")),
        Step::MaybeSent { tx_hash } => output.note(&format!(
            "{tx_hash} may have been sent: the endpoint did not clearly say whether it took it; looking for it"
        )),
        Step::Waiting { tx_hash } => output.note(&format!("nothing new is sent; waiting for {tx_hash}")),
        Step::InBlock { block_number, block_hash } => {
            output.note(&format!("it is in block {block_number} ({block_hash}); waiting until that has settled"));
        }
        Step::Reorganised { block_number, block_hash } => output.note(&format!(
            "the chain was reorganised: block {block_number} ({block_hash}) is gone, and the transaction with it; waiting \
             for it again"
        )),
        Step::SentAgain { tx_hash } => output.note(&format!("the endpoint did not show {tx_hash}: sent again")),
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

fn set_before(contract: Address, set: &AlreadySet) -> answer::AlreadySet {
    let AlreadySet { chain_id, block_number, .. } = *set;
    answer::AlreadySet { contract: Text::of(contract), chain_id, block_number }
}

fn proposed(proposal: &Proposal) -> ProposalSummary {
    ProposalSummary {
        targets: [Text::of(proposal.target)],
        values: [Text::of(0)],
        calldatas: [hex(&proposal.calldata)],
        description: proposal.description.clone(),
        propose: hex(&proposal.propose_calldata()),
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
