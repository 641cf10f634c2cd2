//! `loader status`.

use anyhow::Result;
use node::status::running;

use crate::answer::Answer;
use crate::config::Settings;
use crate::exit::NotRunning;
use crate::output::Output;

pub(crate) fn run(settings: &Settings, output: &Output) -> Result<()> {
    let heard = running(&settings.cache_dir)?;
    if heard.is_empty() {
        return Err(NotRunning { cache_dir: settings.cache_dir.clone() }.into());
    }
    let mut silent = None;
    for node in heard {
        match node {
            Ok(status) => output.answer(&Answer::Status(Box::new(status)))?,
            Err(error) => silent = Some(error),
        }
    }
    silent.map_or(Ok(()), |error| Err(error.into()))
}
