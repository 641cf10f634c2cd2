//! The RPC endpoints, what they say together, and this machine's clock by theirs.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chain_reader::{
    BlockTag, ChainError, ChainReader, Config, EndpointError, Policy, Probe, RpcUrl, Staleness, probe,
};
use futures::future::join_all;
use store::Cache;
use tokio::time::timeout;

use super::finding::{bad, ok, warning};
use crate::answer::Checked;
use crate::config::Settings;
use crate::units::show_duration;

/// For the contract: endpoints are asked several times, if need be.
const WITHIN: Duration = Duration::from_secs(20);
/// An endpoint that takes longer is not waited for while others agree.
const SLOW: Duration = Duration::from_secs(1);
/// A newest block that is so much in the future shows that this machine's clock is behind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

type Probed = Result<Probe, EndpointError>;

pub(super) async fn checks(configs: &[Config], settings: &Settings) -> Vec<Checked> {
    if configs.is_empty() {
        return vec![ok("contract", None, "none is configured (--contract): no chain is read")];
    }
    let mut found: Vec<Checked> = Vec::new();
    let all = join_all(configs.iter().map(|config| of_contract(config, settings))).await;
    for checked in all.into_iter().flatten() {
        // Contracts may have endpoints in common.
        let is_same = |other: &Checked| {
            matches!(other.check, "rpc" | "clock")
                && (other.check, &other.subject, other.state)
                    == (checked.check, &checked.subject, checked.state)
        };
        if !found.iter().any(is_same) {
            found.push(checked);
        }
    }
    found
}

async fn of_contract(config: &Config, settings: &Settings) -> Vec<Checked> {
    if config.staleness() == Staleness::Offline {
        return vec![ok("contract", None, "no chain is asked (--offline)")];
    }
    let others = config.trusted_rpc().filter(|trusted| !config.rpc_urls().contains(trusted));
    let urls: Vec<&RpcUrl> = config.rpc_urls().iter().chain(others).collect();
    let once = Policy::default().with_attempts(1);
    let probes = join_all(urls.iter().map(|url| probe(url, once)));
    let (probes, contract) = tokio::join!(probes, contract(config, settings));
    let expected = config.chain_id().or_else(|| usual_chain(&probes));
    let mut found: Vec<Checked> =
        urls.iter().zip(&probes).map(|(url, probed)| of_endpoint(url, probed, expected, config)).collect();
    found.extend(clock(&probes));
    found.extend(contract);
    found
}

/// The chain that most endpoints are on.
fn usual_chain(probes: &[Probed]) -> Option<u64> {
    let mut counts: HashMap<u64, usize> = HashMap::new();
    for probe in probes.iter().flatten() {
        *counts.entry(probe.chain_id).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(chain_id, _)| chain_id)
}

fn of_endpoint(url: &RpcUrl, probed: &Probed, expected: Option<u64>, config: &Config) -> Checked {
    let subject = Some(url.to_string());
    let probe = match probed {
        Ok(probe) => probe,
        Err(error) => {
            let causes = anyhow::Chain::new(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
            return bad("rpc", subject, causes, "check its URL, its key, and the way to it; or take another");
        }
    };
    let Probe { chain_id, took, proof, .. } = probe;
    if let Some(expected) = expected.filter(|expected| expected != chain_id) {
        let text = format!("it is on chain {chain_id}, expected chain {expected}");
        return bad("rpc", subject, text, "correct its URL, or --chain-id");
    }
    let tag = config.block_tag();
    let Some(newest) = probe.block(BlockTag::Latest) else {
        return bad(
            "rpc",
            subject,
            format!("it is on chain {chain_id}, and has no newest block"),
            "take another",
        );
    };
    let age = now_s().saturating_sub(newest.timestamp);
    let known: Vec<_> =
        probe.blocks.iter().filter(|(_, block)| block.is_ok()).map(|(tag, _)| tag.to_string()).collect();
    let text = format!(
        "chain {chain_id}, block {} ({} old); has {}; {} proofs; {} ms",
        newest.block.number,
        show_duration(Duration::from_secs(age)),
        known.join(", "),
        if proof.is_ok() { "shows" } else { "shows no" },
        took.as_millis()
    );
    let missing = probe.blocks.iter().find(|(other, block)| *other == tag && block.is_err());
    if let Some((_, Err(why))) = missing {
        return bad(
            "rpc",
            subject,
            format!("{text}; {why}"),
            format!("read another block than {tag} (--block-tag)"),
        );
    }
    if let (Some(_), Err(why)) = (config.proof(), proof) {
        let advice = "leave --verify-proof away, or add an endpoint that shows proofs";
        return warning("rpc", subject, format!("{text}: {why}"), advice);
    }
    match *took > SLOW {
        true => warning("rpc", subject, text, "it is slow: while others agree, it is not waited for"),
        false => ok("rpc", subject, text),
    }
}

/// Whether this machine's clock is behind those of the chain.
fn clock(probes: &[Probed]) -> Option<Checked> {
    let blocks = probes.iter().flatten().filter_map(|probe| probe.block(BlockTag::Latest));
    let newest = blocks.map(|block| block.timestamp).max()?;
    let ahead = newest.saturating_sub(now_s());
    Some(match ahead > CLOCK_TOLERANCE.as_secs() {
        true => {
            let ahead = show_duration(Duration::from_secs(ahead));
            let text = format!("the newest block is {ahead} in the future, by this machine's clock");
            bad("clock", None, text, "set it by NTP")
        }
        false => ok("clock", None, "the newest block is not in the future"),
    })
}

/// What the endpoints say together of the contract.
async fn contract(config: &Config, settings: &Settings) -> Vec<Checked> {
    let subject = || Some(config.contract().to_string());
    let failed = |error: &ChainError| {
        let text = anyhow::Chain::new(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
        match error {
            ChainError::NoModel { .. } | ChainError::NotFinal { .. } => {
                warning("contract", subject(), text, "wait, or set a model (`loader publish`)")
            }
            _ => bad("contract", subject(), text, "see \"When something is wrong\" in docs/operations.md"),
        }
    };
    // What it learns is forgotten: a look changes nothing.
    let reader = match ChainReader::new(config.clone().with_staleness(Staleness::Refuse).with_state_dir(None))
    {
        Ok(reader) => reader,
        Err(error) => return vec![failed(&error)],
    };
    let mut found = match timeout(WITHIN, reader.mature_model()).await {
        Err(_) => {
            let text = format!("it could not be read within {}", show_duration(WITHIN));
            vec![bad("contract", subject(), text, "see the endpoints above")]
        }
        Ok(Err(error)) => vec![failed(&error)],
        Ok(Ok(model)) => {
            let cache = Cache::open_existing(&settings.cache_dir).ok().flatten();
            let is_here =
                cache.is_some_and(|cache| cache.model(&model.manifest).is_ok_and(|found| found.is_some()));
            let here = if is_here { "is" } else { "is not yet" };
            let text = format!(
                "names model {}, which {here} in the cache, at block {}",
                model.manifest, model.block_number
            );
            vec![ok("contract", subject(), text)]
        }
    };
    let status = reader.status();
    let (count, needed) = (status.endpoints.len(), status.quorum);
    let dissent = status.endpoints.iter().filter(|one| !one.agrees && one.last.is_some());
    let dissent: Vec<_> =
        dissent.map(|one| format!("{}: {}", one.endpoint, one.last.as_deref().unwrap_or_default())).collect();
    // Of a single endpoint that fails, enough is said.
    if status.rounds > 0 && (count > 1 || dissent.is_empty()) {
        found.push(match dissent.is_empty() {
            true => ok("quorum", None, format!("{needed} of {count} endpoints must agree, and all do")),
            false => {
                let text = format!("{needed} of {count} endpoints must agree; {}", dissent.join("; "));
                warning("quorum", None, text, "ask a block explorer who is right, and replace who is not")
            }
        });
    }
    found
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
