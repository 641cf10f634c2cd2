//! `loader publish`.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use chain_reader::{
    Address, Receipt, Signer, SubmitConfig, U256, set_mature_model, set_mature_model_calldata,
};
use loader::cache::{Cache, Model};
use loader::encode::{self, Input, Options};
use manifest::Digest;

use crate::answer::{self, Answer, Overlap, Text, Transaction};
use crate::args;
use crate::cmd::{block_on, finished};
use crate::config::{self, Settings};
use crate::exit::Usage;
use crate::output::Output;
use crate::progress::ByteProgress;
use crate::units::show_size;

/// Holds a keystore's password unless a file does.
const PASSWORD_VARIABLE: &str = "LOADER_KEYSTORE_PASSWORD";

pub(crate) fn run(flags: &args::Publish, settings: &Settings, cache: &Cache, output: &Output) -> Result<()> {
    // Everything that can be wrong with the flags is found before minutes of encoding.
    let on_chain = OnChain::of(flags, settings)?;
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
        transaction: None,
    };
    match on_chain {
        OnChain::No => {}
        OnChain::Calldata { price } => {
            let bytes = set_mature_model_calldata(published.digest, price);
            answer.calldata = Some(hex(&bytes));
        }
        OnChain::Send(send) => {
            output.note(&format!("{} is encoded; setting it on chain", published.digest));
            answer.transaction = Some(send.run(published.digest).with_context(|| {
                format!("model {} is in the cache, but not set on chain", published.digest)
            })?);
        }
    }
    output.answer(&Answer::Published(answer))
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
}

impl OnChain {
    fn of(flags: &args::Publish, settings: &Settings) -> Result<Self> {
        let has_key = flags.keystore.is_some() || flags.private_key_env.is_some();
        let Some(price) = flags.price else {
            if has_key || flags.chain.contract.is_some() {
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
        let signer = signer(flags)?;
        let mut config = SubmitConfig::new(rpc_url.clone(), chain.contract);
        config.chain_id = chain.chain_id;
        Ok(Self::Send(Box::new(Send { config, signer, price })))
    }
}

impl Send {
    fn run(&self, digest: Digest) -> Result<Transaction> {
        let receipt =
            block_on(async { Ok(set_mature_model(&self.config, &self.signer, digest, self.price).await?) })?;
        Ok(transaction(self.config.contract, &receipt))
    }
}

fn transaction(contract: Address, receipt: &Receipt) -> Transaction {
    Transaction {
        contract: Text::of(contract),
        hash: Text::of(receipt.tx_hash),
        block_number: receipt.block_number,
        gas_used: receipt.gas_used,
    }
}

fn signer(flags: &args::Publish) -> Result<Signer> {
    if let Some(variable) = &flags.private_key_env {
        let key = config::secret(variable)?;
        return Signer::from_private_key(&key)
            .with_context(|| format!("the variable {variable} holds no key"));
    }
    let Some(keystore) = &flags.keystore else {
        return Err(Usage::new("to sign the transaction give --keystore or --private-key-env").into());
    };
    let password = match &flags.password_file {
        Some(file) => first_line(file)?,
        None => {
            config::secret(PASSWORD_VARIABLE).context("the keystore needs its password: --password-file")?
        }
    };
    Ok(Signer::from_keystore(keystore, &password)?)
}

fn first_line(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// As Ethereum tools take it: `0x` and two characters a byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
