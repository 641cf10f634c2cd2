//! How the contract is followed.

use std::path::PathBuf;
use std::time::Duration;

use chain_reader::HintUrl;
use clap::Args;

use crate::config::secret::WS_URL;
use crate::units::parse_duration;

/// How the contract is followed, and what is kept of the models it names.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Chain")]
pub(crate) struct Following {
    /// How often the contract is read, such as 12s or 1m [default: 12s]. Give or take a fifth, and less often while the
    /// chain cannot be reached.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "LOADER_POLL_INTERVAL", hide_env_values = true)]
    pub(crate) poll_interval: Option<Duration>,
    /// WebSocket endpoint of an EVM node (ws:// or wss://) that tells when the contract changes, so that it is read
    /// sooner. What it says is not believed. May be repeated.
    #[arg(long, value_name = "URL", env = WS_URL, hide_env_values = true, value_delimiter = ',')]
    pub(crate) ws_url: Vec<HintUrl>,
    /// Make PATH a link to what a runtime opens, replaced in one step when a new model is ready. Only a link into this cache is
    /// replaced. What it leads to, and led to before, is not removed.
    #[arg(long, value_name = "PATH")]
    pub(crate) link: Option<PathBuf>,
    /// Keep the last N models that the contract named, and remove those before them, unless they are mapped, or the last
    /// one whose --exec command succeeded [default: keep all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: Option<u32>,
}
