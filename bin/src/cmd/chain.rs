//! `loader chain`.

use anyhow::Result;
use chain_reader::{StoredChain, stored_chains};

use crate::answer::{Answer, ChainForgotten, ChainRemembered, Text};
use crate::args::{ChainCommand, Which};
use crate::config::Settings;
use crate::exit::Usage;
use crate::output::Output;

pub(crate) fn run(command: &ChainCommand, settings: &Settings, output: &Output) -> Result<()> {
    let (ChainCommand::Show(which) | ChainCommand::Forget(which)) = command;
    let mut found = stored_chains(&settings.chain_dir())?;
    found.retain(|stored| is_meant(stored, which, settings));
    match command {
        ChainCommand::Show(_) => found.into_iter().try_for_each(|stored| output.answer(&remembered(stored))),
        ChainCommand::Forget(_) => {
            let contract =
                which.contract.ok_or_else(|| Usage::new("forget which contract? Give --contract ADDRESS"))?;
            found.retain(|stored| stored.contract == contract);
            for stored in found {
                stored.forget()?;
                output.answer(&Answer::ChainForgotten(ChainForgotten {
                    contract: Text::of(stored.contract),
                    chain_id: stored.chain_id,
                    genesis: stored.genesis.map(Text::of),
                    block_tag: Text::of(stored.block_tag),
                }))?;
            }
            Ok(())
        }
    }
}

/// What the settings file says is what is read, and narrows nothing down.
fn is_meant(stored: &StoredChain, which: &Which, settings: &Settings) -> bool {
    let is = |id| settings.is_given(id);
    which.contract.is_none_or(|contract| contract == stored.contract || !is("contract"))
        && which.chain_id.is_none_or(|id| id == stored.chain_id || !is("chain_id"))
        && which.block_tag.is_none_or(|tag| tag == stored.block_tag || !is("block_tag"))
}

fn remembered(stored: StoredChain) -> Answer {
    let (memory, corrupt) = match stored.memory {
        Ok(memory) => (memory, None),
        Err(error) => (chain_reader::ChainMemory::default(), Some(error.to_string())),
    };
    Answer::ChainRemembered(Box::new(ChainRemembered {
        contract: Text::of(stored.contract),
        chain_id: stored.chain_id,
        genesis: stored.genesis.map(Text::of),
        block_tag: Text::of(stored.block_tag),
        memory,
        corrupt,
    }))
}
