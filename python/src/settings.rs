//! Settings, from a dict that `libp2p_loader/_settings.py` makes of arguments.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::node::Config;
use ::node::p2p_blob::{self, Limits, NetworkKey};
use chain_reader::{RpcUrl, Staleness};
use loader::FetchOptions;
use manifest::Digest;
use pyo3::prelude::*;
use store::Cache;

use crate::errors::{bad_usage, exception, text};

/// Nobody is asked more often.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Each has its name in Python.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Settings {
    cache_dir: PathBuf,
    blob_dir: Option<PathBuf>,
    blob_dir_bytes: u64,
    peers: Vec<String>,
    bootstrap: Vec<String>,
    listen: Vec<String>,
    allow_peers: Vec<String>,
    mdns: bool,
    psk_file: Option<PathBuf>,
    upload_limit: Option<NonZeroU64>,
    download_limit: Option<NonZeroU64>,
    contract: Option<String>,
    rpc_urls: Vec<String>,
    quorum: Option<usize>,
    chain_id: Option<u64>,
    block_tag: Option<String>,
    poll_interval_s: Option<f64>,
    allow_stale_s: Option<f64>,
    offline: bool,
    wait_s: f64,
    memory_bytes: Option<u64>,
    durable: bool,
}

impl Settings {
    pub(crate) fn config(&self) -> PyResult<Config> {
        let peers = all(&self.peers, "a peer's address")?;
        let bootstrap = all(&self.bootstrap, "a bootstrap peer's address")?;
        if let Some(addr) = peers.iter().chain(&bootstrap).find(|addr| !p2p_blob::is_dialable(addr)) {
            return Err(bad_usage(format!(
                "no peer can be at `{addr}`: expected /ip4/…, /ip6/… or /dns/…, then /tcp/… or /udp/…/quic-v1, then perhaps \
                 /p2p/…, such as /ip4/192.0.2.7/tcp/4201"
            )));
        }
        let allowed = all(&self.allow_peers, "a peer id")?;
        let allowed_peers = (!allowed.is_empty()).then(|| allowed.into_iter().collect());
        let network_key = self.psk_file.as_ref().map(|path| NetworkKey::read(path)).transpose();
        let network_key = network_key.map_err(|error| bad_usage(text(&error)))?;
        let limits = Limits::default()
            .with_upload_bytes_per_s(self.upload_limit)
            .with_download_bytes_per_s(self.download_limit);
        let fetch =
            FetchOptions::default().with_wait(seconds(self.wait_s, "wait")?).with_durable(self.durable);
        let fetch = match self.memory_bytes {
            Some(memory_bytes) => fetch.with_memory_bytes(memory_bytes),
            None => fetch,
        };
        let config = Config::new(&self.cache_dir);
        let config = match &self.blob_dir {
            Some(dir) => config.with_own_blobs(dir, self.blob_dir_bytes),
            None => config,
        };
        Ok(config
            .with_peers(peers)
            .with_bootstrap(bootstrap)
            .with_listen(all(&self.listen, "an address to listen at")?)
            .with_allowed_peers(allowed_peers)
            .with_mdns(self.mdns)
            .with_network_key(network_key)
            .with_limits(limits)
            .with_chain(self.chain()?)
            .with_fetch(fetch))
    }

    fn chain(&self) -> PyResult<Option<chain_reader::Config>> {
        let Some(contract) = &self.contract else { return Ok(None) };
        let contract = parse(contract, "a contract: 0x and 40 hexadecimal characters")?;
        let urls =
            self.rpc_urls.iter().map(|url| url.parse::<RpcUrl>().map_err(|error| bad_usage(text(&error))));
        let urls = urls.collect::<PyResult<Vec<_>>>()?;
        if urls.is_empty() && !self.offline {
            return Err(bad_usage(format!("to read contract {contract} give rpc_urls=[…]")));
        }
        let staleness = match self.allow_stale_s {
            _ if self.offline => Staleness::Offline,
            Some(limit) => Staleness::UpTo(seconds(limit, "allow_stale")?),
            None => Staleness::Refuse,
        };
        let config = chain_reader::Config::with_endpoints(urls, contract)
            .with_quorum(self.quorum)
            .with_chain_id(self.chain_id)
            .with_staleness(staleness);
        let config = match &self.block_tag {
            Some(tag) => config.with_block_tag(parse(tag, "a block tag: latest, safe or finalized")?),
            None => config,
        };
        Ok(Some(match self.poll_interval_s {
            Some(interval) => {
                config.with_poll_interval(seconds(interval, "poll_interval")?.max(MIN_POLL_INTERVAL))
            }
            None => config,
        }))
    }
}

fn all<T: FromStr>(texts: &[String], what: &str) -> PyResult<Vec<T>> {
    texts.iter().map(|text| parse(text, what)).collect()
}

/// `what` it should be is told when it is not.
pub(crate) fn parse<T: FromStr>(text: &str, what: &str) -> PyResult<T> {
    text.parse().map_err(|_| bad_usage(format!("`{text}` is not {what}")))
}

pub(crate) fn seconds(value: f64, name: &str) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| bad_usage(format!("{name}={value} is no time in seconds")))
}

/// So much of a digest names a model of the cache, if no other begins like it.
const MIN_PREFIX: usize = 4;

/// A digest, or the beginning of one that is in the cache.
pub(crate) fn digest(cache: &Cache, text: &str) -> PyResult<Digest> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_hex && (MIN_PREFIX..64).contains(&text.len()) {
        return cache.find(text).map_err(|error| exception(&error));
    }
    text.parse::<Digest>().map_err(|error| exception(&error))
}
