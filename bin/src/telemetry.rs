//! Logging, to stderr.

use std::borrow::Cow;
use std::io::{self, Write};

use anyhow::Result;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{Common, LogFormat};
use crate::bars::Bars;
use crate::config;
use crate::exit::Usage;
use crate::visible::{visible, visible_json};

/// Our own packages; others log warnings only, up to -vv.
const OURS: [&str; 5] = ["loader", "node", "p2p_blob", "chain_reader", "loader_cli"];

/// Warnings of others, except for those of the DHT: that it knows nobody yet is no news.
const OTHERS: &str = "warn,libp2p_kad=error";

/// Starts logging as these flags want it. Lines appear above `bars`.
pub(crate) fn start(flags: &Common, bars: &Bars) -> Result<()> {
    let filter = config::log_filter().unwrap_or_else(|| default_filter(flags.verbose, flags.quiet));
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| Usage::new(format!("RUST_LOG is not a log filter ({error}): {filter}")))?;
    // Colours are control characters, too.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match flags.log_format {
        LogFormat::Text => log.with_writer(AboveBars { bars: bars.clone(), escape: visible }).init(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(AboveBars { bars: bars.clone(), escape: visible_json })
            .init(),
    }
    Ok(())
}

fn default_filter(verbose: u8, is_quiet: bool) -> String {
    let ours = match verbose {
        0 if is_quiet => return "error".to_owned(),
        0 => return OTHERS.to_owned(),
        1 => "info",
        2 => "debug",
        _ => return "trace".to_owned(),
    };
    OURS.iter().fold(OTHERS.to_owned(), |filter, package| format!("{filter},{package}={ours}"))
}

/// Writes each line with the progress bars out of the way, and what steers terminals spelled out.
struct AboveBars {
    bars: Bars,
    escape: fn(&str) -> Cow<'_, str>,
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &AboveBars {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // One event is written at a time.
        let text = String::from_utf8_lossy(buf);
        let line = (self.escape)(text.trim_end_matches('\n'));
        self.bars.suspend(|| writeln!(io::stderr(), "{line}"))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_of_verbosity_is_a_filter() {
        for (verbose, is_quiet) in (0..=4).flat_map(|verbose| [(verbose, false), (verbose, true)]) {
            assert!(EnvFilter::try_new(default_filter(verbose, is_quiet)).is_ok(), "-v {verbose}");
        }
    }
}
