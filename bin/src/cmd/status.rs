//! `loader status`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use node::Status;
use node::status::{Loading, running};

use crate::answer::Answer;
use crate::config::Settings;
use crate::exit::NotRunning;
use crate::output::Output;
use crate::units::{show_duration, show_size};

pub(crate) fn run(settings: &Settings, output: &Output) -> Result<()> {
    let heard = running(&settings.cache_dir)?;
    if heard.is_empty() {
        return Err(NotRunning { cache_dir: settings.cache_dir.clone() }.into());
    }
    let mut silent = None;
    for node in heard {
        match node {
            Ok(status) => output.answer(&Answer::Status(status))?,
            Err(error) => silent = Some(error),
        }
    }
    silent.map_or(Ok(()), |error| Err(error.into()))
}

/// For people: a line for each thing the node has or does.
pub(crate) fn plain(status: &Status) -> String {
    let Status { pid, version, peer_id, uptime_s, listen, models, loading, .. } = status;
    let uptime = show_duration(Duration::from_secs(*uptime_s));
    let mut text = format!("process {pid}, loader {version}, up {uptime}\n  peer id    {peer_id}");
    // Writing to a string cannot fail.
    for address in listen {
        let _ = write!(text, "\n  listens    {address}");
    }
    for model in models {
        let _ = write!(text, "\n  serves     {model}");
    }
    for Loading { manifest, total_size_bytes, done_bytes, sources } in loading {
        let of = total_size_bytes.map_or("the manifest is not here yet".to_owned(), |total_bytes| {
            format!("{} of {}", show_size(*done_bytes), show_size(total_bytes))
        });
        let _ = write!(text, "\n  loads      {manifest}: {of}, {sources} peers");
    }
    text
}
