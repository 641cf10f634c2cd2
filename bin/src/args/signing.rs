//! Keys, and what a transaction may cost.

use std::path::PathBuf;
use std::time::Duration;

use chain_reader::GasPrice;
use clap::{Args, Subcommand, ValueEnum};

use crate::units::parse_duration;

/// How the call is signed and sent.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Transaction")]
pub(crate) struct Signing {
    /// Sign with this encrypted key file; its password is the first line of --password-file, or in the variable
    /// LOADER_KEYSTORE_PASSWORD, or asked for at the terminal. `loader key new` makes one.
    #[arg(long, value_name = "FILE", conflicts_with = "private_key_env")]
    pub(crate) keystore: Option<PathBuf>,
    /// Where the keystore's password is.
    #[arg(long, value_name = "FILE", requires = "keystore")]
    pub(crate) password_file: Option<PathBuf>,
    /// Sign with the key in this environment variable, 64 hexadecimal characters.
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) private_key_env: Option<String>,
    /// Show the call, who signs it, and what it costs at most; send nothing.
    #[arg(long, requires = "price")]
    pub(crate) dry_run: bool,
    /// The most that a unit of gas may cost, in gwei; nothing is sent while the network takes more [default: 300].
    #[arg(long, value_name = "GWEI")]
    pub(crate) max_fee: Option<GasPrice>,
    /// What is paid on top of the base fee, in gwei [default: what the endpoint says is usual].
    #[arg(long, value_name = "GWEI")]
    pub(crate) priority_fee: Option<GasPrice>,
    /// How many blocks must be there, its own included, before the transaction counts as settled [default: 3; 1 on
    /// development chains]. Until then a reorganisation is noticed, and the transaction sent again if need be.
    #[arg(long, value_name = "N", conflicts_with = "wait_final")]
    pub(crate) confirmations: Option<u64>,
    /// Wait until the block is under --block-tag, so that nodes which read that tag see the model.
    #[arg(long)]
    pub(crate) wait_final: bool,
    /// How long to look after the transaction, such as 20m [default: 5m].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) tx_timeout: Option<Duration>,
}

/// How the call is printed instead of being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CalldataForm {
    /// Its input data.
    Call,
    /// The arguments of an OpenZeppelin-style propose(targets, values, calldatas, description), and the input of that.
    Governor,
}

/// Commands about key files.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key, write it encrypted to a new file of mode 0600, and print its address.
    New(KeyFile),
    /// Print the address of a key file.
    Show(KeyFile),
}

/// A key file.
#[derive(Debug, Args)]
pub(crate) struct KeyFile {
    /// The file.
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: PathBuf,
    /// Where its password is: the first line of this file. Without it LOADER_KEYSTORE_PASSWORD, or the terminal.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}
