//! The settings of the chain.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use chain_reader::{Config, HintUrl, RpcUrl, Staleness, StringSlot};

use super::Settings;
use crate::args::{Chain, Following, Named};
use crate::exit::Usage;

/// Nobody is asked more often.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Settings {
    /// Whether a contract is named, and how it is reached. `None` without one.
    pub(crate) fn chain(&self, flags: &Chain) -> Result<Option<Config>> {
        self.config(flags, Others::default(), false)
    }

    /// Whether the chain is to be read, and how. `None` without a contract.
    pub(crate) fn reading(&self, flags: &Named) -> Result<Option<Config>> {
        self.reading_with(flags, None)
    }

    /// Whether the contract is to be followed, and how. `None` without a contract.
    pub(crate) fn following(&self, named: &Named, flags: &Following) -> Result<Option<Config>> {
        let Some(config) = self.reading_with(named, Some(&flags.ws_url))? else { return Ok(None) };
        Ok(Some(match flags.poll_interval {
            Some(interval) => config.with_poll_interval(interval.max(MIN_POLL_INTERVAL)),
            None => config,
        }))
    }

    fn reading_with(
        &self,
        Named { chain, reading: flags, .. }: &Named,
        hints: Option<&Vec<HintUrl>>,
    ) -> Result<Option<Config>> {
        let others = Others { trusted: flags.trusted_rpc.clone(), hints: hints.cloned() };
        let Some(config) = self.config(chain, others, flags.offline)? else { return Ok(None) };
        let proof =
            flags.verify_proof.then_some(flags.string_slot.map_or(StringSlot::OfKnownCode, StringSlot::At));
        let staleness = match flags.allow_stale {
            _ if flags.offline => Staleness::Offline,
            Some(limit) => Staleness::UpTo(limit),
            None => Staleness::Refuse,
        };
        Ok(Some(
            config
                .with_quorum(flags.quorum)
                .with_proof(proof)
                .with_max_block_age(flags.max_block_age)
                .with_staleness(staleness),
        ))
    }

    /// Where the state of chains is kept.
    pub(crate) fn chain_dir(&self) -> PathBuf {
        self.cache_dir.join(node::CHAIN_DIR)
    }

    fn config(&self, flags: &Chain, mut others: Others, is_offline: bool) -> Result<Option<Config>> {
        let Some(contract) = flags.contract else { return Ok(None) };
        let mut endpoints = flags.rpc_url.clone();
        if endpoints.is_empty() && others.trusted.is_none() && !is_offline {
            return Err(Usage::new(format!("to read contract {contract} give --rpc-url URL")).into());
        }
        self.add_headers(&flags.rpc_header, &mut endpoints, &mut others)?;
        Ok(Some(
            Config::with_endpoints(endpoints, contract)
                .with_chain_id(flags.chain_id)
                .with_block_tag(flags.block_tag.unwrap_or_default())
                .with_trusted_rpc(others.trusted)
                .with_hints(others.hints.unwrap_or_default()),
        ))
    }

    /// Gives each endpoint its headers: `HOST NAME: VALUE`.
    fn add_headers(&self, headers: &[String], endpoints: &mut [RpcUrl], others: &mut Others) -> Result<()> {
        // The file may have some for endpoints that this command does not ask.
        let must_be_used = others.hints.is_some() || !self.origins.is_in_file("rpc_header");
        for header in headers {
            // The rest may hold a key, and so may what stands in the place of a host.
            let (host, header) = header.trim().split_once(' ').ok_or_else(|| {
                Usage::new("a header of an RPC endpoint is malformed: expected \"HOST NAME: VALUE\"")
            })?;
            let (mut is_used, mut hosts) = (false, Vec::new());
            let mut is_for = |shown: String| {
                let is_it = shown == host;
                is_used |= is_it;
                hosts.push(shown);
                is_it
            };
            let usage = |error: chain_reader::ParseHeaderError| Usage::new(error.to_string());
            for endpoint in endpoints.iter_mut().chain(&mut others.trusted) {
                if is_for(endpoint.to_string()) {
                    *endpoint = endpoint.clone().with_header(header).map_err(usage)?;
                }
            }
            for hint in others.hints.iter_mut().flatten() {
                if is_for(hint.to_string()) {
                    *hint = hint.clone().with_header(header).map_err(usage)?;
                }
            }
            if !is_used && must_be_used {
                return Err(Usage::new(format!(
                    "a header is for none of the RPC endpoints: expected it to begin with one of {hosts:?}"
                ))
                .into());
            }
        }
        Ok(())
    }
}

/// Endpoints beside those that vote.
#[derive(Default)]
struct Others {
    trusted: Option<RpcUrl>,
    /// `None` for a command that hears no hints.
    hints: Option<Vec<HintUrl>>,
}

#[cfg(test)]
mod tests {
    use chain_reader::U256;

    use super::super::tests::{CONTRACT, settings, watch_settings};
    use super::*;

    fn reading(toml: &str, args: &str) -> Result<Config> {
        let (settings, flags) = settings(toml, &format!("--contract {CONTRACT} {args}"))?;
        Ok(settings.reading(&flags.named)?.unwrap())
    }

    #[test]
    fn the_quorum_is_read_from_flags_and_file() {
        let toml =
            "rpc-url = ['http://a', 'http://b']\nquorum = 2\ntrusted-rpc = 'http://t'\nallow-stale = '1h'";
        let config = reading(toml, "").unwrap();
        assert_eq!((config.rpc_urls().len(), config.quorum()), (2, Some(2)));
        assert_eq!(config.trusted_rpc().unwrap().to_string(), "t");
        assert_eq!(config.staleness(), Staleness::UpTo(Duration::from_secs(3600)));
        let config = reading(toml, "--quorum 1 --trusted-rpc http://u --offline").unwrap();
        assert_eq!((config.quorum(), config.staleness()), (Some(1), Staleness::Offline));
        assert_eq!(config.trusted_rpc().unwrap().to_string(), "u");
        let aged =
            |args| reading("rpc-url = ['http://a']\nmax-block-age = '2h'", args).unwrap().max_block_age();
        assert_eq!(aged(""), Some(Duration::from_secs(7200)));
        assert_eq!(aged("--max-block-age 30m"), Some(Duration::from_secs(1800)));
        assert!(reading("", "--offline").is_ok() && reading("", "--trusted-rpc http://t").is_ok());
        assert!(reading("", "").unwrap_err().to_string().contains("--rpc-url"));
    }

    #[test]
    fn a_proof_is_asked_for_by_a_flag_and_its_slot_alone_asks_for_none() {
        let of = |toml: &str, args: &str| reading(toml, &format!("--offline {args}")).unwrap().proof();
        assert_eq!(of("", "--string-slot 3"), None);
        assert_eq!(of("", "--verify-proof"), Some(StringSlot::OfKnownCode));
        assert_eq!(of("", "--verify-proof --string-slot 0x10"), Some(StringSlot::At(U256::from(16))));
        assert_eq!(of("verify-proof = true\nstring-slot = '3'", ""), Some(StringSlot::At(U256::from(3))));
    }

    #[test]
    fn a_header_goes_to_its_host_and_is_never_shown() {
        let toml = "rpc-url = ['http://a', 'http://b:1']\nrpc-header = ['b:1 X-Key: secretkey']";
        let config = reading(toml, "").unwrap();
        let plain: RpcUrl = "http://b:1".parse().unwrap();
        assert_eq!(config.rpc_urls()[0], "http://a".parse().unwrap());
        assert_eq!(config.rpc_urls()[1], plain.with_header("X-Key: secretkey").unwrap());
        let others = "rpc-url = ['http://a']\ntrusted-rpc = 'http://t'\nws-url = ['wss://w/ws']\n\
                      rpc-header = ['w X-Key: secretkey', 't X-Key: secretkey']";
        let (watch, flags) = watch_settings(others, &format!("--contract {CONTRACT}")).unwrap();
        let following = watch.following(&flags.named, &flags.following).unwrap().unwrap();
        let (plain, trusted): (HintUrl, RpcUrl) =
            ("wss://w/ws".parse().unwrap(), "http://t".parse().unwrap());
        assert_eq!(following.hints(), [plain.with_header("X-Key: secretkey").unwrap()]);
        assert_eq!(following.trusted_rpc(), Some(&trusted.with_header("X-Key: secretkey").unwrap()));
        // A command that asks fewer of them takes the same file.
        let (fetch, flags) = settings(others, &format!("--contract {CONTRACT}")).unwrap();
        assert!(fetch.chain(&flags.named.chain).unwrap().is_some());
        assert!(fetch.reading(&flags.named).unwrap().unwrap().hints().is_empty());
        let toml = "rpc-url = ['http://a', 'http://b:1']";
        for bad in ["b X-Key: secretkey", "secretkey", "a secretkey", "secretkey: x"] {
            let toml = format!("{toml}\nrpc-header = ['{bad}']");
            let (watch, flags) = watch_settings(&toml, &format!("--contract {CONTRACT}")).unwrap();
            let error = watch.following(&flags.named, &flags.following).unwrap_err();
            assert!(error.is::<Usage>() && !format!("{error:#}").contains("secretkey"), "{error:#}");
        }
    }
}
