//! What a running node tells over HTTP.

use anyhow::Result;
use node::Node;
use panel::{Config, Panel, PanelError};

use crate::exit::Usage;
use crate::output::Output;

/// Starts it, if that is wanted.
pub(super) async fn start(node: &Node, config: Option<Config>, output: &Output) -> Result<Option<Panel>> {
    let Some(config) = config else { return Ok(None) };
    let panel = Panel::start(node.clone(), config).await.map_err(|error| match error {
        PanelError::Listen { address, source } => {
            Usage::new(format!("cannot listen at {address} (--http): {source}")).into()
        }
        error => anyhow::Error::from(error),
    })?;
    output.note(&format!("what this node does is shown at http://{}/", panel.address()));
    Ok(Some(panel))
}
