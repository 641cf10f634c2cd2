//! `loader doctor`.

mod chain;
mod finding;
mod holder;
mod machine;
mod peers;
mod ports;

use anyhow::{Result, anyhow};

use crate::answer::{Answer, Checked, State};
use crate::args::{self, Command};
use crate::config::Settings;
use crate::output::Output;
use finding::bad;

/// What was found so far.
struct Findings<'a> {
    output: &'a Output,
    all: usize,
    bad: usize,
}

pub(crate) async fn run(flags: &args::Doctor, settings: &Settings, output: &Output) -> Result<()> {
    let mut findings = Findings { output, all: 0, bad: 0 };
    // What is wrong with a setting is a finding, and no reason to check nothing else.
    let sound = |findings: &mut Findings<'_>, error: anyhow::Error| {
        findings.tell([bad("settings", None, format!("{error:#}"), "correct it")])
    };
    findings.tell(machine::checks(settings))?;
    let config = match settings.seeder(&flags.network) {
        Ok(config) => Some(config),
        Err(error) => sound(&mut findings, error).map(|()| None)?,
    };
    let mut is_free = false;
    if let Some(config) = &config {
        let (found, free) = ports::checks(config.listen(), flags.http.http, settings);
        is_free = free;
        findings.tell(found)?;
    }
    let of_file = settings.contracts.iter().filter_map(|(command, settings)| match command {
        Command::Doctor(flags) => Some((&flags.named, settings)),
        _ => None,
    });
    let mut said: Vec<_> = of_file.collect();
    if said.is_empty() {
        said.push((&flags.named, settings));
    }
    let mut reading = Vec::new();
    for (named, settings) in said {
        match settings.reading(named) {
            Ok(config) => reading.extend(config),
            Err(error) => sound(&mut findings, error)?,
        }
    }
    let peers = async {
        match &config {
            Some(config) => peers::checks(config, is_free).await,
            None => Vec::new(),
        }
    };
    let (chain, peers) = tokio::join!(chain::checks(&reading, settings), peers);
    findings.tell(chain)?;
    findings.tell(peers)?;
    match findings {
        Findings { bad: 0, .. } => Ok(()),
        Findings { bad, all, .. } => Err(anyhow!("{bad} of {all} checks have found something bad")),
    }
}

impl Findings<'_> {
    fn tell(&mut self, found: impl IntoIterator<Item = Checked>) -> Result<()> {
        for mut checked in found {
            // What the network says has lines of its own.
            checked.text = checked.text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
            self.all += 1;
            self.bad += usize::from(checked.state == State::Bad);
            self.output.answer(&Answer::Checked(checked))?;
        }
        Ok(())
    }
}
