//! The only place that prints: answers on stdout, everything else on stderr.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result};
use indicatif::{MultiProgress, ProgressDrawTarget};

use crate::answer::{Answer, Failure, Plain};
use crate::exit::Status;
use crate::visible::{visible, visible_json, visible_lines};

/// The two streams, as the flags want them.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    bars: MultiProgress,
    /// What all notes are about, if that is to be said.
    about: Option<String>,
}

impl Output {
    /// Bars are drawn only when stderr is a terminal.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), about: None }
    }

    /// The same; its notes begin with what they are about.
    pub(crate) fn about(&self, what: &str) -> Self {
        Self { about: Some(what.to_owned()), ..self.clone() }
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
        if self.json {
            let json = serde_json::to_string(answer).context("the answer cannot be told as JSON")?;
            return self.print(visible_json(&json).as_bytes());
        }
        match answer.plain() {
            Some(Plain::Text(text)) => self.print(visible_lines(&text).as_bytes()),
            // Whoever reads it wants it as it is; a terminal does not.
            Some(Plain::Path(path)) if io::stdout().is_terminal() => {
                self.print(visible(&path.to_string_lossy()).as_bytes())
            }
            Some(Plain::Path(path)) => self.print(path.as_os_str().as_bytes()),
            None => Ok(()),
        }
    }

    /// Whether answers are objects.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// That nobody reads it any more is no error: the work is done all the same.
    fn print(&self, text: &[u8]) -> Result<()> {
        let written = self.bars.suspend(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&[text, b"\n"].concat()).and_then(|()| stdout.flush())
        });
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write to stdout"),
        }
    }

    /// Tells the person at the terminal something, above the bars.
    pub(crate) fn note(&self, text: &str) {
        let text = match &self.about {
            Some(about) => format!("{about}: {text}"),
            None => text.to_owned(),
        };
        self.bars.suspend(|| show(&visible(&text)));
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

/// Tells what is wrong with a command line, or what it asks to be told.
pub(crate) fn refuse(error: &clap::Error) -> Status {
    if !error.use_stderr() {
        // That nobody reads it is no error.
        let _ = error.print();
        return Status::Done;
    }
    show(visible_lines(error.render().to_string().trim_end()).as_ref());
    Status::Usage
}

/// `eprintln!` panics when stderr is closed; nobody is left to tell, then.
fn show(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
