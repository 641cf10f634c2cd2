//! What is told over HTTP.

use clap::Args;
use panel::Address;

/// Where a node tells what it does.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct Http {
    /// Answer /metrics, /healthz, /readyz, /status.json and a page at / here, such as 4300 (this machine only) or 0.0.0.0:9100.
    /// Nothing can be changed there [default: off].
    #[arg(long, value_name = "ADDR", env = "LOADER_HTTP", hide_env_values = true)]
    pub(crate) http: Option<Address>,
    /// A name that requests may come by, beside localhost: without it they come by IP address. May be repeated.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "LOADER_HTTP_HOST",
        hide_env_values = true
    )]
    pub(crate) http_host: Vec<String>,
    /// Answer the page and what it shows beyond loopback, too: whoever reaches the address sees peers and models.
    #[arg(long, env = "LOADER_HTTP_PAGE", hide_env_values = true)]
    pub(crate) http_page: bool,
}
