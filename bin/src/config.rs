//! Settings: flags win over `LOADER_*` variables, and those over the settings file; clap merges them ([`mod@line`]). Nothing else
//! reads the environment.

use std::collections::HashSet;
use std::env;
use std::net::{Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use loader::FetchOptions;
use p2p_blob::{DhtMode, Limits, Multiaddr, NetworkKey, PeerId};

use crate::args::{Command, CommandLine, Http, Legacy, Network};
use crate::exit::Usage;
use crate::system;

mod base_dir;
mod chain;
mod contracts;
mod file;
mod line;
pub(crate) mod secret;
pub(crate) mod show;
mod words;

use base_dir::base_dir;
pub(crate) use line::{Line, Origins, Refused, read};

/// How long a fetch looks for peers while none can be asked.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// The most that a single blob may have.
const DEFAULT_MAX_BLOB_BYTES: u64 = 64 << 30;
/// Descriptors that are not for connections.
const DESCRIPTORS_KEPT: usize = 40;
/// A node with fewer is of no use.
const MIN_CONNECTIONS: u32 = 4;
/// Where a seeder listens: one fixed port, so that it can be named in advance and opened in a firewall.
const SEEDER_LISTEN: [&str; 4] = [
    "/ip4/0.0.0.0/tcp/4201",
    "/ip4/0.0.0.0/udp/4201/quic-v1",
    "/ip6/::/tcp/4201",
    "/ip6/::/udp/4201/quic-v1",
];
/// Where a fetch listens: others are told of the ports, and a seeder on the same machine keeps its own.
const FETCHER_LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"];

/// The settings of one run.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where models are kept.
    pub(crate) cache_dir: PathBuf,
    origins: Origins,
    /// Each contract of the settings file that this command is to follow: its flags and settings.
    pub(crate) contracts: Vec<(Command, Settings)>,
}

impl Settings {
    /// Those of a command, and the command.
    pub(crate) fn new(
        Line { line: CommandLine { common, command }, origins, contracts }: Line,
    ) -> Result<(Command, Self)> {
        let default = || base_dir("XDG_CACHE_HOME", ".cache").map(|dir| dir.join("loader"));
        let cache_dir = common.cache_dir.clone().or_else(default).ok_or_else(|| {
            Usage::new("there is no home directory to keep models in: give --cache-dir DIR".to_owned())
        })?;
        let contracts = contracts.into_iter().map(Self::new).collect::<Result<_>>()?;
        Ok((command, Self { cache_dir, origins, contracts }))
    }

    /// Whether an argument stands on the command line or in a variable: what the file says is for many commands, and no
    /// mistake where it is of no use.
    pub(crate) fn is_given(&self, id: &str) -> bool {
        self.origins.is_given(id)
    }

    /// The settings file, if it holds what may be keys.
    pub(crate) fn secret_file(&self) -> Option<&Path> {
        self.origins.secret_file()
    }

    /// Whether an argument is that of the settings file.
    pub(crate) fn is_in_file(&self, id: &str) -> bool {
        self.origins.is_in_file(id)
    }

    /// A node on the user's cache and network that fetches: it listens at any free port unless told otherwise.
    pub(crate) fn fetcher(&self, flags: &Network) -> Result<node::Config> {
        self.network(flags, &FETCHER_LISTEN)
    }

    /// The same for a seeder: it listens at the usual port unless told otherwise.
    pub(crate) fn seeder(&self, flags: &Network) -> Result<node::Config> {
        self.network(flags, &SEEDER_LISTEN)
    }

    fn network(&self, flags: &Network, default_listen: &[&str]) -> Result<node::Config> {
        let Network { peer: peers, bootstrap, .. } = flags;
        if let Some(addr) = peers.iter().chain(bootstrap).find(|addr| !p2p_blob::is_dialable(addr)) {
            return Err(Usage::new(format!(
                "no peer can be at `{addr}`: expected /ip4/…, /ip6/… or /dns/…, then /tcp/… or /udp/…/quic-v1, then \
                 perhaps /p2p/…, such as /ip4/192.0.2.7/tcp/4201"
            ))
            .into());
        }
        let network_key = flags.psk_file.as_ref().map(|path| -> Result<_> {
            secret::is_path("--psk-file", path)?;
            NetworkKey::read(path).map_err(|error| Usage::new(with_causes(&error)).into())
        });
        let network_key = network_key.transpose()?;
        let mut listen = flags.listen.clone();
        if network_key.is_some()
            && let Some(addr) = peers.iter().chain(bootstrap).chain(&listen).find(|addr| is_quic(addr))
        {
            return Err(Usage::new(format!(
                "`{addr}` is a QUIC address, which the key of a private network (--psk-file) does not cover: give a TCP one"
            ))
            .into());
        }
        if listen.is_empty() {
            let default = default_listen.iter().map(|addr| addr.parse()).collect::<Result<Vec<_>, _>>();
            listen = default.context("the built-in address to listen at is malformed")?;
            let has_ipv6 = has_ipv6();
            listen.retain(|addr| (network_key.is_none() || !is_quic(addr)) && (has_ipv6 || !is_ipv6(addr)));
        }
        let allowed: HashSet<PeerId> = flags.allow_peer.iter().copied().collect();
        let allowed_peers = (!allowed.is_empty()).then_some(allowed);
        let is_denied = |addr: &&Multiaddr| {
            let named = p2p_blob::split_peer((*addr).clone()).map(|(_, peer)| peer);
            named.zip(allowed_peers.as_ref()).is_some_and(|(peer, allowed)| !allowed.contains(&peer))
        };
        if let Some(addr) = peers.iter().chain(bootstrap).find(is_denied) {
            return Err(Usage::new(format!(
                "`{addr}` is none of the peers of --allow-peer: name it there, too"
            ))
            .into());
        }
        let limits = limits_of(system::descriptors())
            .with_upload_bytes_per_s(flags.upload_limit)
            .with_download_bytes_per_s(flags.download_limit);
        Ok(node::Config::new(&self.cache_dir)
            .with_peers(peers.clone())
            .with_bootstrap(bootstrap.clone())
            .with_listen(listen)
            .with_external_addrs(flags.external_addr.clone())
            .with_mdns(!flags.no_mdns)
            .with_dht(if flags.dht_server { DhtMode::Server } else { DhtMode::Auto })
            .with_limits(limits)
            .with_max_cache_bytes(flags.max_cache)
            .with_network_key(network_key)
            .with_allowed_peers(allowed_peers))
    }

    /// What is told over HTTP, if anything is.
    pub(crate) fn http(&self, flags: &Http) -> Result<Option<panel::Config>> {
        let Some(address) = flags.http else {
            return match self.is_given("http_host") || self.is_given("http_page") {
                true => {
                    Err(Usage::new("--http-host and --http-page are for --http ADDR: give that, too").into())
                }
                false => Ok(None),
            };
        };
        Ok(Some(panel::Config::new(address).with_hosts(flags.http_host.clone()).with_page(flags.http_page)))
    }

    /// How large a blob may be that a digest names instead of a manifest; none, unless that is allowed.
    pub(crate) fn single_blob_max_bytes(&self, flags: &Legacy) -> Result<Option<u64>> {
        match flags.single_blob {
            true => Ok(Some(flags.max_size.unwrap_or(DEFAULT_MAX_BLOB_BYTES))),
            false if self.is_given("max_size") => {
                Err(Usage::new("--max-size is for a single blob: give --single-blob, too").into())
            }
            false => Ok(None),
        }
    }
}

/// How models are fetched, as far as the network goes.
pub(crate) fn fetching(flags: &Network) -> FetchOptions {
    let options = FetchOptions::default();
    match flags.memory {
        Some(memory_bytes) => options.with_memory_bytes(memory_bytes),
        None => options,
    }
}

/// How long to look for peers.
pub(crate) fn wait(flag: Option<Duration>) -> Duration {
    flag.unwrap_or(DEFAULT_WAIT)
}

/// What RUST_LOG says is to be logged.
pub(crate) fn log_filter() -> Option<String> {
    env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty())
}

/// What a node takes on that may have so many files and sockets open.
pub(crate) fn limits_of(descriptors: u64) -> Limits {
    let all = Limits::default();
    // Files of the cache, libraries, listeners, the chain.
    let free = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(DESCRIPTORS_KEPT);
    let connections = u32::try_from(free / 2).unwrap_or(u32::MAX);
    all.with_connections(all.connections().min(connections.max(MIN_CONNECTIONS)))
        .with_uploads(all.uploads().min((free / 4).max(1)))
}

fn is_ipv6(addr: &Multiaddr) -> bool {
    addr.to_string().starts_with("/ip6/")
}

/// Whether this machine can listen on IPv6 at all: many containers cannot.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

fn is_quic(addr: &Multiaddr) -> bool {
    addr.to_string().contains("/quic")
}

/// The message of an error, with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| (*cause).source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ffi::OsString;
    use std::io::Write as _;

    use chain_reader::BlockTag;

    use super::*;

    pub(super) const CONTRACT: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    /// The settings of this command line with this file.
    pub(super) fn parsed(toml: &str, line: &str) -> Result<(Settings, Command), Refused> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let line = ["loader", "--config", path].into_iter().chain(line.split_whitespace());
        let (command, settings) = Settings::new(read(line.map(OsString::from).collect())?).unwrap();
        Ok((settings, command))
    }

    /// The settings of a `fetch` with these arguments and this file, and the fetch's own flags.
    pub(super) fn settings(toml: &str, args: &str) -> Result<(Settings, crate::args::Fetch)> {
        match parsed(toml, &format!("fetch {args}")) {
            Ok((settings, Command::Fetch(fetch))) => Ok((settings, fetch)),
            Ok(_) => panic!("another command"),
            Err(Refused::Line(error)) => panic!("{error}"),
            Err(Refused::File { error, .. }) => Err(error),
        }
    }

    /// The same of a `watch`.
    pub(super) fn watch_settings(toml: &str, args: &str) -> Result<(Settings, crate::args::Watch)> {
        match parsed(toml, &format!("watch {args}")) {
            Ok((settings, Command::Watch(watch))) => Ok((settings, watch)),
            Ok(_) => panic!("another command"),
            Err(Refused::Line(error)) => panic!("{error}"),
            Err(Refused::File { error, .. }) => Err(error),
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let toml = format!(
            "cache-dir = '/f'\ncontract = '{CONTRACT}'\nrpc-url = ['http://file']\nchain-id = 7\nwait = '5m'\n\
             peer = ['/ip4/192.0.2.1/tcp/1', '/ip4/192.0.2.2/tcp/1']\n"
        );
        let (of_file, flags) = settings(&toml, "").unwrap();
        assert_eq!(of_file.cache_dir, Path::new("/f"));
        let chain = of_file.chain(&flags.named.chain).unwrap().unwrap();
        assert_eq!((chain.rpc_urls()[0].to_string(), chain.chain_id()), ("file".to_owned(), Some(7)));
        assert_eq!(chain.block_tag(), BlockTag::Finalized);
        assert_eq!(of_file.fetcher(&flags.network).unwrap().peers().len(), 2);
        assert_eq!(wait(flags.wait), Duration::from_secs(300));

        let args =
            "--cache-dir /a --rpc-url http://flag --block-tag latest --peer /ip4/192.0.2.3/tcp/1 --wait 1s";
        let (both, flags) = settings(&toml, args).unwrap();
        assert_eq!(both.cache_dir, Path::new("/a"));
        let chain = both.chain(&flags.named.chain).unwrap().unwrap();
        assert_eq!((chain.rpc_urls().len(), chain.rpc_urls()[0].to_string()), (1, "flag".to_owned()));
        assert_eq!((chain.block_tag(), chain.chain_id()), (BlockTag::Latest, Some(7)));
        assert_eq!(both.fetcher(&flags.network).unwrap().peers().len(), 1);
        assert_eq!(wait(flags.wait), Duration::from_secs(1));
    }

    #[test]
    fn a_seeder_listens_at_its_port_and_a_fetcher_at_any() {
        let (of_file, flags) = settings("bootstrap = ['/ip4/192.0.2.1/tcp/1']", "").unwrap();
        let (fetcher, seeder) =
            (of_file.fetcher(&flags.network).unwrap(), of_file.seeder(&flags.network).unwrap());
        assert_eq!(fetcher.listen(), FETCHER_LISTEN.map(|addr| addr.parse().unwrap()));
        assert_eq!(seeder.listen(), SEEDER_LISTEN.map(|addr| addr.parse().unwrap()));
        assert_eq!(fetcher.bootstrap().len(), 1);
        let (settings, flags) = settings("", "--listen /ip4/127.0.0.1/tcp/0").unwrap();
        assert_eq!(settings.fetcher(&flags.network).unwrap().listen().len(), 1);
        assert!(settings.chain(&flags.named.chain).unwrap().is_none());
    }

    #[test]
    fn connections_are_as_many_as_there_are_descriptors_for() {
        let count = |descriptors| {
            let limits = limits_of(descriptors);
            (limits.connections(), limits.uploads())
        };
        assert_eq!(count(1 << 16), (512, 128));
        assert_eq!(count(256), (108, 54));
        assert_eq!(count(0), (MIN_CONNECTIONS, 1));
    }

    #[test]
    fn http_is_off_unless_there_is_an_address() {
        let http = |toml, args| settings(toml, args).and_then(|(of_file, flags)| of_file.http(&flags.http));
        assert!(http("", "").unwrap().is_none());
        assert!(http("http-host = ['a']\nhttp-page = true", "").unwrap().is_none());
        let shown = format!("{:?}", http("http = '4300'\nhttp-host = ['a']", "--http-page").unwrap());
        assert!(
            shown.contains("127.0.0.1:4300") && shown.contains("\"a\"") && shown.contains("true"),
            "{shown}"
        );
        let shown = format!("{:?}", http("http = '4300'", "--http 0.0.0.0:9100 --http-host b").unwrap());
        assert!(shown.contains("0.0.0.0:9100") && shown.contains("\"b\""), "{shown}");
        assert!(http("", "--http-page").unwrap_err().is::<Usage>());
    }

    #[test]
    fn single_blobs_are_allowed_by_name_only() {
        let allowed = |toml, args| {
            settings(toml, args)
                .and_then(|(of_file, flags)| of_file.single_blob_max_bytes(&flags.named.legacy))
        };
        assert_eq!(allowed("", "").unwrap(), None);
        assert_eq!(allowed("max-size = '1MiB'", "").unwrap(), None);
        assert_eq!(allowed("", "--single-blob").unwrap(), Some(DEFAULT_MAX_BLOB_BYTES));
        assert_eq!(allowed("single-blob = true\nmax-size = '1MiB'", "").unwrap(), Some(1 << 20));
        assert_eq!(allowed("max-size = '1MiB'", "--single-blob --max-size 2MiB").unwrap(), Some(2 << 20));
        let error = allowed("", "--max-size 1MiB").unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("--single-blob"), "{error}");
    }

    #[test]
    fn an_address_that_no_peer_can_have_is_bad_usage() {
        for addr in ["", "/ip4/192.0.2.1", "/ip4/192.0.2.1/udp/1", "/tcp/4201"] {
            for key in ["peer", "bootstrap"] {
                let (of_file, flags) = settings(&format!("{key} = '{addr}'"), "").unwrap();
                let error = of_file.fetcher(&flags.network).unwrap_err();
                assert!(error.is::<Usage>() && error.to_string().contains(&format!("`{addr}`")), "{error}");
            }
        }
    }

    #[test]
    fn a_contract_without_an_endpoint_is_bad_usage() {
        let toml = format!("contract = '{CONTRACT}'");
        let (of_file, flags) = settings(&toml, "").unwrap();
        assert!(of_file.chain(&flags.named.chain).unwrap_err().to_string().contains("--rpc-url"));
    }
}
