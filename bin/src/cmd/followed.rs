//! The contracts that a command follows: that of its flags, or those of the settings file.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use chain_reader::{Address, Config};

use crate::args::{self, Command, Following, Named};
use crate::cmd::link::Link;
use crate::config::Settings;
use crate::exit::Usage;

/// A contract, and what becomes of its models.
pub(super) struct Followed {
    /// What its models are called in the cache, and it itself where there are several: its address, and the chain where another one
    /// has the same.
    pub(super) name: String,
    pub(super) config: Config,
    /// How many of its models are kept.
    pub(super) keep: Option<u32>,
    /// What leads to the newest.
    pub(super) link: Option<Link>,
    /// What is run for each.
    pub(super) exec: Option<String>,
}

/// Those of a `serve`.
pub(super) fn of_serve(flags: &args::Serve, settings: &Settings) -> Result<Vec<Followed>> {
    all(Flags { named: &flags.named, following: &flags.following, exec: None }, settings)
}

/// Those of a `watch`.
pub(super) fn of_watch(flags: &args::Watch, settings: &Settings) -> Result<Vec<Followed>> {
    all(Flags { named: &flags.named, following: &flags.following, exec: flags.exec.as_ref() }, settings)
}

/// What is said of one contract.
struct Flags<'a> {
    named: &'a Named,
    following: &'a Following,
    exec: Option<&'a String>,
}

impl<'a> Flags<'a> {
    fn of(command: &'a Command) -> Option<Self> {
        match command {
            Command::Serve(args::Serve { named, following, .. }) => {
                Some(Self { named, following, exec: None })
            }
            Command::Watch(args::Watch { named, following, exec, .. }) => {
                Some(Self { named, following, exec: exec.as_ref() })
            }
            _ => None,
        }
    }
}

fn all(own: Flags<'_>, settings: &Settings) -> Result<Vec<Followed>> {
    let mut said: Vec<(Flags<'_>, &Settings)> = settings
        .contracts
        .iter()
        .filter_map(|(command, settings)| Some((Flags::of(command)?, settings)))
        .collect();
    if said.is_empty() {
        said.push((own, settings));
    }
    let mut configured = Vec::new();
    for (flags, settings) in said {
        configured.extend(settings.following(flags.named, flags.following)?.map(|config| (flags, config)));
    }
    check_links(configured.iter().filter_map(|(flags, _)| flags.following.link.as_deref()))?;
    let addresses: Vec<Address> = configured.iter().map(|(_, config)| config.contract()).collect();
    let followed = configured.into_iter().map(|(flags, config)| {
        Ok(Followed {
            name: name(&config, &addresses),
            keep: flags.following.keep,
            link: Link::new(flags.following.link.as_deref(), &settings.cache_dir)?,
            exec: flags.exec.cloned(),
            config,
        })
    });
    followed.collect()
}

fn name(config: &Config, all: &[Address]) -> String {
    let contract = config.contract();
    let is_alone = all.iter().filter(|other| **other == contract).count() == 1;
    match config.chain_id().filter(|_| !is_alone) {
        Some(chain_id) => format!("{contract}@{chain_id}"),
        None => contract.to_string(),
    }
}

/// Each link leads to the models of one contract.
fn check_links<'a>(links: impl Iterator<Item = &'a Path>) -> Result<()> {
    let mut seen = HashSet::new();
    for link in links {
        if !seen.insert(std::path::absolute(link)?) {
            return Err(Usage::new(format!(
                "two contracts have the link {}: give each its own, in its table [[contract]]",
                link.display()
            ))
            .into());
        }
    }
    Ok(())
}
