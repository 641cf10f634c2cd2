//! What a node does, over HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes, `/status.json`, and a page at
//! `/` for people. Nothing can be changed through it.
//!
//! Everybody who reaches its address may ask. So everything is bounded: connections, their time, the size of a request and of
//! its head. Beyond loopback only numbers and probes are answered, unless [`Config::with_page`] says otherwise; and a `Host`
//! that is a name must be one of [`Config::with_hosts`], as otherwise any page in a browser could have its own name lead
//! here and read what it likes.
#![forbid(unsafe_code)]

mod address;
mod answer;
mod host;
mod metrics;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use node::Node;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use answer::Answers;
use host::Hosts;

pub use address::{Address, BadAddress};

/// Where it listens, and to whom it answers what.
#[derive(Debug, Clone)]
pub struct Config {
    address: Address,
    hosts: Vec<String>,
    page: bool,
}

impl Config {
    /// At this address. On loopback it answers everything, elsewhere numbers and probes.
    pub fn new(address: Address) -> Self {
        Self { address, hosts: Vec::new(), page: false }
    }

    /// Names, beside `localhost`, that a `Host` may have. Default: none; IP addresses always may stand there.
    #[must_use]
    pub fn with_hosts(self, hosts: Vec<String>) -> Self {
        Self { hosts, ..self }
    }

    /// Whether the page and what it shows are answered beyond loopback. Default: no.
    #[must_use]
    pub fn with_page(self, page: bool) -> Self {
        Self { page, ..self }
    }
}

/// Why there is no panel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PanelError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A running panel. Dropping it closes it.
#[derive(Debug)]
pub struct Panel {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Panel {
    /// Listens, and answers about `node`.
    ///
    /// # Errors
    /// [`PanelError::Listen`].
    pub async fn start(node: Node, config: Config) -> Result<Self, PanelError> {
        let wanted = config.address.socket_addr();
        let failed = |source| PanelError::Listen { address: wanted, source };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shows_page = config.page || address.ip().to_canonical().is_loopback();
        let answers = Answers::new(node, Hosts::new(config.hosts), shows_page);
        let task = tokio::spawn(server::serve(listener, Arc::new(answers)));
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Panel {
    fn drop(&mut self) {
        self.task.abort();
    }
}
