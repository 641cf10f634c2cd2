//! The only place that prints: answers on stdout, everything else on stderr.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use indicatif::{MultiProgress, ProgressDrawTarget};

use crate::answer::{Answer, Failure};
use crate::exit::Status;

/// The two streams, as the flags want them.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    bars: MultiProgress,
}

impl Output {
    /// Bars are drawn only when stderr is a terminal.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }

    /// Where progress bars are put; hidden ones cost nothing.
    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Whether stderr is a terminal, where bars are seen.
    pub(crate) fn shows_bars(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Writes an answer to stdout at once.
    pub(crate) fn answer(&self, answer: &Answer) -> Result<()> {
        let text = if self.json { Some(serde_json::to_string(answer)?) } else { answer.plain() };
        text.map_or(Ok(()), |text| self.print(&text))
    }

    /// That nobody reads it any more is no error: the work is done all the same.
    fn print(&self, text: &str) -> Result<()> {
        let written = self.bars.suspend(|| {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{text}").and_then(|()| stdout.flush())
        });
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write to stdout"),
        }
    }

    /// Tells a part of a story: to stdout, but to stderr when that is for objects.
    pub(crate) fn tell(&self, text: &str) -> Result<()> {
        if self.json {
            self.note(text);
            return Ok(());
        }
        self.print(text)
    }

    /// Tells the person at the terminal something, above the bars.
    pub(crate) fn note(&self, text: &str) {
        self.bars.suspend(|| show(text));
    }

    /// Tells of a failure, with its causes, and which status it has.
    pub(crate) fn fail(&self, error: &anyhow::Error) -> Status {
        let status = Status::of(error);
        let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
        let mut text = format!("error: {error}");
        for cause in &causes {
            text = format!("{text}\n  because: {cause}");
        }
        self.note(&text);
        let failure = Failure { status: status as u8, message: error.to_string(), causes };
        if let Err(error) = self.answer(&Answer::Error(failure)) {
            self.note(&format!("error: {error:#}"));
        }
        status
    }
}

/// `eprintln!` panics when stderr is closed; nobody is left to tell, then.
fn show(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
