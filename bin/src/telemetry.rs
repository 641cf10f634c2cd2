//! Logging, to stderr.

use std::io::{self, Write};

use anyhow::Result;
use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config;
use crate::exit::Usage;
use crate::visible::visible;

/// Our own packages; others log warnings only, up to -vv.
const OURS: [&str; 5] = ["loader", "node", "p2p_blob", "chain_reader", "loader_cli"];

/// Warnings of others, except for those of the DHT: that it knows nobody yet is no news.
const OTHERS: &str = "warn,libp2p_kad=error";

/// Starts logging. Lines appear above `bars`.
pub(crate) fn start(verbose: u8, bars: &MultiProgress) -> Result<()> {
    let filter = config::log_filter().unwrap_or_else(|| default_filter(verbose));
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| Usage::new(format!("RUST_LOG is not a log filter ({error}): {filter}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are control characters, too.
        .with_ansi(false)
        .with_writer(AboveBars(bars.clone()))
        .init();
    Ok(())
}

fn default_filter(verbose: u8) -> String {
    let ours = match verbose {
        0 => return OTHERS.to_owned(),
        1 => "info",
        2 => "debug",
        _ => return "trace".to_owned(),
    };
    OURS.iter().fold(OTHERS.to_owned(), |filter, package| format!("{filter},{package}={ours}"))
}

/// Writes each line with the progress bars out of the way.
struct AboveBars(MultiProgress);

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
        let line = visible(text.trim_end_matches('\n'));
        self.0.suspend(|| writeln!(io::stderr(), "{line}"))?;
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
        for verbose in 0..=4 {
            assert!(EnvFilter::try_new(default_filter(verbose)).is_ok(), "-v {verbose}");
        }
    }
}
