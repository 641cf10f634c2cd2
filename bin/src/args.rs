//! The command line: what can be said, and the help that explains it. Flags win over `LOADER_*` variables.

use std::path::PathBuf;
use std::time::Duration;

use chain_reader::U256;
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use manifest::{Codec, Digest};

pub(crate) use self::doctor::Doctor;
pub(crate) use self::following::Following;
pub(crate) use self::forms::{LogFormat, ProgressForm};
pub(crate) use self::http::Http;
pub(crate) use self::mistake::{expected, log_format, without_keys};
pub(crate) use self::name::Name;
pub(crate) use self::network::Network;
pub(crate) use self::publish::FolderFlags;
pub(crate) use self::reading::{Chain, ChainCommand, Legacy, Named, Which};
pub(crate) use self::settings::ConfigCommand;
pub(crate) use self::signing::{CalldataForm, Key, Signing};
pub(crate) use self::variables::unknown_variables;
use crate::units::{parse_duration, parse_size};

mod address;
mod choices;
mod doctor;
mod following;
mod forms;
mod http;
mod mistake;
mod name;
mod network;
mod publish;
mod reading;
mod settings;
mod signing;
mod variables;

const ABOUT: &str =
    "Gets a model's weights from peers it does not trust, and proves every byte against the chain";

const EXAMPLES: &str = "\
Examples:
  Publish a folder, seed it, and fetch it elsewhere, without a chain:
      loader publish ./model --model-kind vl-jepa        # prints the digest of its manifest
      loader serve                                       # prints addresses
      loader fetch DIGEST --peer /ip4/192.0.2.7/tcp/4201
  Warm the cache before an inference server starts; prints the path that it opens:
      loader fetch --contract 0x5aAe… --rpc-url https://rpc.example.org \\
          --peer /ip4/192.0.2.7/tcp/4201
  Seed what the cache holds:
      loader serve
  Publish a model and set it on the contract:
      loader publish model.safetensors --model-kind vl-jepa --contract 0x5aAe… --price 0 \\
          --rpc-url https://rpc.example.org --keystore key.json

Data goes to stdout, everything else to stderr. Exit status:
  0  done
  1  failed
  2  bad usage
  3  integrity: a digest matches but its content is not valid, or the cache is corrupt
  4  not available now: worth a retry

Every flag can stand in a settings file (--config), too, under its own name: at the top for all
commands, in a table such as [serve] or [cache.gc] for one. Flags win over LOADER_* variables, and those
over the file. In a variable, several values are separated by commas.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "loader", version, about = ABOUT, after_long_help = EXAMPLES, propagate_version = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where models are kept [default: $XDG_CACHE_HOME/loader, else ~/.cache/loader].
    #[arg(long, value_name = "DIR", global = true, env = "LOADER_CACHE_DIR", hide_env_values = true)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Settings file [default: $XDG_CONFIG_HOME/loader/loader.toml or ~/.config/loader/loader.toml, if there is one].
    #[arg(long, value_name = "FILE", global = true, env = "LOADER_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Write JSON objects to stdout, one a line, instead of text; docs/cli.md says which.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show no progress and no notes on stderr, only errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// How progress is shown on stderr: as bars at a terminal and as lines elsewhere (auto), as events in JSON, one a line, as
    /// docs/cli.md has them (json), or not at all (none).
    #[arg(long, value_name = "FORM", global = true, default_value = "auto")]
    #[arg(env = "LOADER_PROGRESS", hide_env_values = true)]
    pub(crate) progress: ProgressForm,
    /// How notes, errors and logs are written on stderr. With json all of it, progress too, is an object a line.
    #[arg(long, value_name = "FORM", global = true, default_value = "text")]
    #[arg(env = "LOADER_LOG_FORMAT", hide_env_values = true)]
    pub(crate) log_format: LogFormat,
    /// Log more: -v what is done, -vv how, -vvv everything. RUST_LOG, if set, decides instead.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Fetch(Fetch),
    Serve(Serve),
    Watch(Watch),
    Publish(Publish),
    Verify(Verify),
    /// Make and look at key files.
    #[command(subcommand)]
    Key(Key),
    /// Look at a manifest.
    #[command(subcommand)]
    Manifest(Manifest),
    /// Look at the cache, and make room.
    #[command(subcommand)]
    Cache(Cache),
    /// Say what the running nodes of this cache hold and do.
    ///
    /// Every `loader` that serves, watches or fetches with the cache answers, and so does a program that embeds it. Status
    /// 4 when none is running.
    Status,
    /// Print the peer id that nodes of this cache have.
    ///
    /// Others name it in --allow-peer and in addresses. It is made if there is none yet. While one process uses it, a
    /// second one of the same cache has another, which is gone with it.
    Id,
    /// Print what lets a shell complete `loader` commands: for bash, `loader completions bash` belongs into a file in
    /// ~/.local/share/bash-completion/completions.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write man pages, one for each command, into a directory that exists.
    // For packages: who has the binary asks it for help.
    #[command(hide = true)]
    Man {
        /// The directory.
        dir: PathBuf,
    },
    /// Look at what is remembered of the chain, and forget it.
    #[command(subcommand)]
    Chain(ChainCommand),
    /// Look at the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    Doctor(Doctor),
}

/// Fetch a model into the cache and print the path that a runtime opens: its folder, or its file if it is one.
///
/// Which model: the one the contract names (--contract, --rpc-url), or the one whose DIGEST is given. Fetches from all
/// peers at once, verifies every piece as it arrives, rebuilds lost ones from parity, and makes the file durable. When
/// the model is in the cache, no peer is asked. A fetch that was ended, even by kill -9, goes on where it was.
///
/// Peers are those of --peer, and others that they and the --bootstrap peers know. While it fetches, it listens, at any
/// free port unless told otherwise with --listen, so that others that fetch the same can get from it what it has.
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// The digest of a model's manifest, or the beginning of one in the cache: load that, whatever the chain says. No chain is
    /// read.
    #[arg(value_name = "DIGEST", conflicts_with = "manifest")]
    pub(crate) digest: Option<Name>,
    /// The same as DIGEST.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) manifest: Option<Name>,
    /// Make PATH a link to what is printed, in one step, when the model is ready. Only a link into this cache is replaced. What
    /// it leads to, and led to before, is not removed by --keep.
    #[arg(long, value_name = "PATH")]
    pub(crate) link: Option<PathBuf>,
    /// Lay the files out in DIR, a new or empty folder, and print its path: as clones where the file system can, as copies
    /// elsewhere.
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Fail when the model has something that a runtime may execute: pickles, *.py, shared libraries, an auto_map in a
    /// configuration.
    #[arg(long)]
    pub(crate) no_code: bool,
    /// How long to look for peers while none can be asked, and to wait for another process that fetches the same and gets
    /// no further, such as 30s, 5m or 1h [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "LOADER_WAIT", hide_env_values = true)]
    pub(crate) wait: Option<Duration>,
    /// Fetch only files that match, such as '*.json'; * matches / too. Repeatable. Others can be fetched later.
    #[arg(long, value_name = "GLOB", conflicts_with = "single_blob")]
    pub(crate) files: Vec<String>,
    /// Fetch no files that match. Repeatable.
    #[arg(long, value_name = "GLOB", conflicts_with = "single_blob")]
    pub(crate) exclude: Vec<String>,
    /// Do not wait until the weights are on the disk: for a cache on a disk that does not outlive the machine. The next
    /// process hashes the model before it uses it; what a power cut took from it is fetched again.
    #[arg(long)]
    pub(crate) no_fsync: bool,
    /// Do not listen: nobody can connect to this node while it fetches, but those that it has connected to.
    #[arg(long, conflicts_with = "listen")]
    pub(crate) no_listen: bool,
    /// Ask no peer, also none that is named: wait (--wait) until another process has put the model into the cache, such as
    /// `loader watch`. The cache may be one that cannot be written to, or that is not there yet.
    #[arg(long)]
    pub(crate) from_cache: bool,
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) http: Http,
}

/// Seed what the cache holds, until SIGTERM or Ctrl-C.
///
/// Prints one full address for each address it listens at, as soon as it does. Listens on TCP and QUIC port 4201 of all
/// interfaces unless told otherwise with --listen. Tells the --bootstrap and --peer peers what it holds, so that others
/// find it. With --contract it follows that, fetches each new model, and seeds it; so it
/// does with the contracts of the settings file (its tables called contract).
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Serve this folder of files named by their digest, too. May be repeated.
    #[arg(long, value_name = "DIR", env = "LOADER_BLOB_DIR", hide_env_values = true, value_delimiter = ',')]
    pub(crate) blob_dir: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    pub(crate) following: Following,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) http: Http,
}

/// Follow the contract: load each new model it names, and say when it is ready, until SIGTERM or Ctrl-C.
///
/// Several contracts can stand in the settings file, as tables called contract: all of them are followed then.
///
/// Prints the path of each model, the current one first. While a new model is being fetched, or cannot be,
/// the one before stays as it is. What the models share is not fetched again.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Run this command of the shell when a model is ready, with LOADER_PATH, LOADER_CONTRACT, LOADER_MANIFEST, LOADER_MODEL_KIND,
    /// LOADER_PRICE and LOADER_BLOCK_NUMBER in its environment, and without variables of ours that may hold keys. One at a
    /// time: while it runs, models go on being loaded, and it is then run for the newest. One that fails is run again, at
    /// most five minutes apart. Its output goes to stderr.
    #[arg(long, value_name = "CMD")]
    pub(crate) exec: Option<String>,
    /// How long to look for peers before saying that there are none, and to wait for another process that fetches the same
    /// and gets no further, such as 30s, 5m or 1h [default: 30s]. It goes on trying after that.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "LOADER_WAIT", hide_env_values = true)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    pub(crate) following: Following,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) http: Http,
}

/// Encode a model into the cache and print the digest of its manifest; with --contract, set it on chain.
///
/// A model is a folder as a runtime opens it, or one file. Nodes get the same files under the same names. Links to files are
/// followed, if they stay in the folder or are those of a hub's cache, so that a snapshot folder can be published as it is.
///
/// The bytes are cut into shards, and --parity more are computed, of which as many may be lost. To set the
/// digest on chain give --contract, --price, --rpc-url and a key; or --calldata to print the call instead, for a
/// proposal to whoever owns the contract. --serve goes on seeding it.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["path", "layers"]))]
pub(crate) struct Publish {
    /// The model: a folder, or any file, for instance a .safetensors or a .gguf one.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: Option<PathBuf>,
    /// The parts of one file, in order, instead of DIR or FILE: each becomes a shard, and together they arrive as one file
    /// named `weights`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) layers: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) folder: FolderFlags,
    /// What kind of model.
    #[arg(long, value_name = "KIND", value_parser = choices::model_kind())]
    pub(crate) model_kind: String,
    /// How many rows the weights are cut into.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) data: u32,
    /// How many parity shards are added.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) parity: u32,
    /// How parity is computed: rs (any --data shards are enough) or replica (copies).
    #[arg(long, value_name = "CODEC", default_value_t = Codec::Rs, value_parser = choices::codec())]
    pub(crate) codec: Codec,
    /// Bytes of a piece, what is fetched and verified at a time: a multiple of 64, from 16KiB to 4MiB.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    pub(crate) piece_size: u64,
    /// Make no piece index: nodes then verify whole shards only, and cannot tell which piece of one is wrong.
    #[arg(long, conflicts_with = "piece_size")]
    pub(crate) no_piece_index: bool,
    /// Tell how much of the model a node would fetch that has this one, by its manifest; it must be in the cache.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) base: Option<Name>,
    /// Price of the model, in the contract's own unit.
    #[arg(long, value_name = "PRICE")]
    pub(crate) price: Option<U256>,
    /// Print the input data of the call instead of sending it; with =governor, which takes --contract, the arguments of
    /// a proposal.
    #[arg(long, requires = "price", value_name = "FORM", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "call")]
    pub(crate) calldata: Option<CalldataForm>,
    /// Seed it from when it is encoded on, like `serve`, until SIGTERM or Ctrl-C: with the flags under Network.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) serve: bool,
    #[command(flatten)]
    pub(crate) signing: Signing,
    #[command(flatten)]
    pub(crate) chain: Chain,
    #[command(flatten)]
    pub(crate) network: Network,
}

/// Hash models in the cache again and name what is bad.
///
/// Every shard, the parity kept and the piece index are read in full. Status 3 when anything is bad. With --repair, what is
/// wrong of a bad model is fetched from peers, as `fetch` does by itself when it meets one.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Which models, by manifest digest [default: all that are finished].
    #[arg(value_name = "DIGEST")]
    pub(crate) manifests: Vec<Name>,
    /// Fetch what is wrong of bad models: with the flags under Network.
    #[arg(long)]
    pub(crate) repair: bool,
    /// How long to look for peers while none can be asked, such as 30s, 5m or 1h [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "repair")]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) network: Network,
}

/// Commands about manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum Manifest {
    /// Print what a manifest says.
    Show {
        /// Its digest, when it is in the cache, or a file.
        #[arg(value_name = "DIGEST|FILE")]
        manifest: String,
    },
    /// Say whether a file is a valid manifest, and its digest. Status 3 when it is not.
    Check {
        /// The file.
        file: PathBuf,
        /// The digest it must have.
        #[arg(long, value_name = "DIGEST")]
        expect: Option<Digest>,
    },
    /// Make the manifest of a model that `sharding.py` has cut into layers, and print its digest.
    ///
    /// Every layer is hashed where it is, and becomes a data shard and, by its name, a file of the model. What the list gets
    /// wrong is corrected and told: its total counts parity, and its parity rebuilds nothing. Parity that does, the piece index
    /// and the manifest are put beside the layers, so that `loader serve --blob-dir DIR` seeds the model as it is.
    FromShards(FromShards),
}

/// Where the layers are, and how they are protected.
#[derive(Debug, Args)]
pub(crate) struct FromShards {
    /// The list that the sharder wrote, as JSON.
    #[arg(value_name = "SHARDS.json")]
    pub(crate) list: PathBuf,
    /// The folder of its blobs, each named `<digest>.shard` or `<digest>`.
    #[arg(long, value_name = "DIR")]
    pub(crate) blob_dir: PathBuf,
    /// What kind of model.
    #[arg(long, value_name = "KIND", value_parser = choices::model_kind())]
    pub(crate) model_kind: String,
    /// How many rows the weights are cut into for parity.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) data: u32,
    /// How many parity shards are made [default: as many as are listed].
    #[arg(long, value_name = "N")]
    pub(crate) parity: Option<u32>,
    /// Bytes of a piece, what is fetched and verified at a time: a multiple of 64, from 16KiB to 4MiB.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    pub(crate) piece_size: u64,
}

/// Commands about the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// List the models, finished and partial.
    Ls,
    /// Print the cache's directory, or the path of a model.
    Path {
        /// The model's manifest.
        #[arg(value_name = "DIGEST")]
        manifest: Option<Name>,
    },
    /// Remove models that were used longest ago, until the cache takes no more than so much.
    ///
    /// What a process has mapped, serves or fills stays, and so do what is pinned, what a link leads to or led to before, and
    /// the newest model of each contract and the last that a command of --exec succeeded with. What a fetch left unfinished
    /// goes like any other.
    Gc {
        /// What the cache may take, such as 500GiB; 0 for all that may go.
        #[arg(long, value_name = "SIZE", value_parser = parse_size, required_unless_present = "older_than")]
        max_bytes: Option<u64>,
        /// Remove what was not used for so long, such as 720h, however much room there is.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        older_than: Option<Duration>,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Keep models: they are not evicted, and not removed before they are unpinned. They need not be there yet.
    Pin {
        /// Their manifests.
        #[arg(value_name = "DIGEST", required = true)]
        manifests: Vec<Name>,
    },
    /// End that.
    Unpin {
        /// Their manifests.
        #[arg(value_name = "DIGEST", required = true)]
        manifests: Vec<Name>,
    },
    /// Remove the parity shards of models: what a publisher serves so that others can rebuild. The models stay as they are.
    DropParity {
        /// Their manifests.
        #[arg(value_name = "DIGEST", required = true)]
        manifests: Vec<Name>,
    },
    /// Remove models that nobody uses.
    Rm {
        /// Their manifests.
        #[arg(value_name = "DIGEST", required = true)]
        manifests: Vec<Name>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definition_is_sound_and_every_argument_is_explained() {
        let mut command = CommandLine::command();
        command.build();
        command.clone().debug_assert();
        let mut pending = vec![command];
        while let Some(command) = pending.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            pending.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned());
        }
    }

    #[test]
    fn mistakes_are_refused() {
        let digest = "0".repeat(64);
        for (line, kind) in [
            ("loader", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("loader fetch --manifest 12", ErrorKind::ValueValidation),
            ("loader fetch --contract 0x12", ErrorKind::ValueValidation),
            ("loader fetch --wait soon", ErrorKind::ValueValidation),
            ("loader fetch --peer 192.0.2.7:4201", ErrorKind::ValueValidation),
            ("loader publish --model-kind simplenet", ErrorKind::MissingRequiredArgument),
            ("loader publish a --model-kind gpt", ErrorKind::InvalidValue),
            ("loader fetch --block-tag newest", ErrorKind::InvalidValue),
            ("loader fetch --progress loud", ErrorKind::InvalidValue),
            ("loader publish a --layers b --model-kind simplenet", ErrorKind::ArgumentConflict),
            ("loader publish a --model-kind simplenet --calldata", ErrorKind::MissingRequiredArgument),
            ("loader publish a --model-kind simplenet --price 0 --calldata=dao", ErrorKind::InvalidValue),
            ("loader cache rm", ErrorKind::MissingRequiredArgument),
            ("loader fetch --offline --allow-stale 1h", ErrorKind::ArgumentConflict),
            ("loader fetch --quorum few", ErrorKind::ValueValidation),
            (&format!("loader manifest check a --expect {}", &digest[1..]), ErrorKind::ValueValidation),
        ] {
            let error = CommandLine::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}: {error}");
        }
    }

    #[test]
    fn common_flags_may_stand_anywhere_and_lists_repeat() {
        let line =
            "loader --json fetch --cache-dir c --peer /ip4/192.0.2.7/tcp/1 -vv --peer /ip4/192.0.2.8/tcp/1";
        let parsed = CommandLine::try_parse_from(line.split(' ')).unwrap();
        assert!(parsed.common.json && parsed.common.verbose == 2);
        assert_eq!(parsed.common.cache_dir, Some(PathBuf::from("c")));
        let Command::Fetch(fetch) = parsed.command else { panic!("another command") };
        assert_eq!(fetch.network.peer.len(), 2);
    }
}
