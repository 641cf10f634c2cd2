//! The only place that prints: answers on stdout, everything else on stderr.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result};
use indicatif::{MultiProgress, ProgressDrawTarget};
use manifest::Digest;

use crate::answer::{Answer, Failure, Plain};
use crate::args::{Common, LogFormat, ProgressForm};
use crate::bars::Bars;
use crate::event::{Event, Level, now};
use crate::exit::Status;
use crate::visible::{visible, visible_json, visible_lines};

/// The two streams, as the flags want them.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    is_quiet: bool,
    log_format: LogFormat,
    progress: Shown,
    /// Whether stderr is kept rather than looked at.
    is_log: bool,
    bars: Bars,
    /// What all notes are about, if that is to be said.
    about: Option<String>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As bars at a terminal.
    Bars,
    /// As a line now and then.
    Lines,
    /// As events in JSON.
    Events,
    /// Not at all.
    Nothing,
}

impl Output {
    /// What these flags want, as far as stderr can do it.
    pub(crate) fn new(flags: &Common) -> Self {
        let stderr = ProgressDrawTarget::stderr();
        // No terminal, or one whose cursor cannot be moved: TERM is dumb, or not there.
        let is_log = stderr.is_hidden();
        let progress = shown(flags, is_log);
        let target = if progress == Shown::Bars { stderr } else { ProgressDrawTarget::hidden() };
        let bars = Bars::new(MultiProgress::with_draw_target(target));
        let Common { json, quiet: is_quiet, log_format, .. } = *flags;
        Self { json, is_quiet, log_format, progress, is_log, bars, about: None }
    }

    /// One that tells a failure only.
    pub(crate) fn of_failure(json: bool, log_format: LogFormat) -> Self {
        let bars = Bars::new(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));
        let progress = Shown::Nothing;
        Self { json, is_quiet: false, log_format, progress, is_log: true, bars, about: None }
    }

    /// The same; its notes begin with what they are about.
    pub(crate) fn about(&self, what: &str) -> Self {
        Self { about: Some(what.to_owned()), ..self.clone() }
    }

    /// Where progress bars are put; hidden ones cost nothing.
    pub(crate) fn bars(&self) -> &Bars {
        &self.bars
    }

    /// How progress is shown.
    pub(crate) fn progress(&self) -> Shown {
        self.progress
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

    /// Tells the person at the terminal something, above the bars, unless --quiet.
    pub(crate) fn note(&self, text: &str) {
        self.tell(Level::Info, text);
    }

    /// The same of something that may be a mistake.
    pub(crate) fn warn(&self, text: &str) {
        self.tell(Level::Warn, text);
    }

    /// Tells of something that does not work, also when --quiet: the command goes on.
    pub(crate) fn trouble(&self, text: &str) {
        self.tell(Level::Error, text);
    }

    fn tell(&self, level: Level, message: &str) {
        if self.is_quiet && level != Level::Error {
            return;
        }
        let told = self.about.as_ref().map(|about| format!("{about}: {message}"));
        let message = told.as_deref().unwrap_or(message);
        let prefix = if level == Level::Warn { "warning: " } else { "" };
        self.write(&match self.log_format {
            LogFormat::Json => Event::Note { message }.line(level),
            LogFormat::Text => visible(&format!("{prefix}{message}")).into_owned(),
        });
    }

    /// Tells of an event where those are wanted; elsewhere this text, if there is one.
    pub(crate) fn event(&self, level: Level, event: &Event<'_>, text: Option<&str>) {
        match (self.progress, text) {
            (Shown::Events, _) => self.write(&event.line(level)),
            (_, Some(text)) => self.tell(level, text),
            (_, None) => {}
        }
    }

    /// Tells what has become of a model. In a log, when that was, and of which one.
    pub(crate) fn result(&self, digest: &Digest, event: &Event<'_>, summary: &str) {
        let text = match (self.is_log, self.log_format) {
            (true, LogFormat::Text) => format!("{} model {digest}: {summary}", now()),
            (_, LogFormat::Json) => format!("model {digest}: {summary}"),
            (false, LogFormat::Text) => summary.to_owned(),
        };
        self.event(Level::Info, event, Some(&text));
    }

    /// Tells of a failure, with its causes, and which status it has.
    pub(crate) fn fail(&self, error: &anyhow::Error) -> Status {
        let status = Status::of(error);
        let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
        let failure = Failure { status: status as u8, message: error.to_string(), causes };
        self.write(&failed(&failure, self.log_format));
        if let Err(error) = self.answer(&Answer::Error(failure)) {
            self.trouble(&format!("error: {error:#}"));
        }
        status
    }

    /// A line of stderr, above the bars.
    fn write(&self, line: &str) {
        self.bars.suspend(|| show(line));
    }
}

/// How the flags want progress to be shown, where stderr is such.
fn shown(flags: &Common, is_log: bool) -> Shown {
    match (flags.progress, flags.log_format) {
        (ProgressForm::None, _) => Shown::Nothing,
        (ProgressForm::Auto, _) if flags.quiet => Shown::Nothing,
        (_, LogFormat::Json) | (ProgressForm::Json, _) => Shown::Events,
        (ProgressForm::Lines, _) => Shown::Lines,
        (ProgressForm::Auto | ProgressForm::Bar, _) if is_log => Shown::Lines,
        (ProgressForm::Auto | ProgressForm::Bar, _) => Shown::Bars,
    }
}

/// Tells what is wrong with a command line, or what it asks to be told.
pub(crate) fn refuse(error: &clap::Error, log_format: LogFormat) -> Status {
    if !error.use_stderr() {
        // That nobody reads it is no error.
        let _ = error.print();
        return Status::Done;
    }
    let text = error.render().to_string();
    let text = text.trim_end();
    show(&match log_format {
        LogFormat::Text => visible_lines(text).into_owned(),
        LogFormat::Json => {
            let message = text.strip_prefix("error: ").unwrap_or(text);
            Event::Error { status: Status::Usage as u8, message, causes: &[] }.line(Level::Error)
        }
    });
    Status::Usage
}

/// The text of a failure.
fn failed(Failure { status, message, causes }: &Failure, log_format: LogFormat) -> String {
    match log_format {
        LogFormat::Text => {
            let text = causes
                .iter()
                .fold(format!("error: {message}"), |text, cause| format!("{text}\n  because: {cause}"));
            visible(&text).into_owned()
        }
        LogFormat::Json => Event::Error { status: *status, message, causes }.line(Level::Error),
    }
}

/// `eprintln!` panics when stderr is closed; nobody is left to tell, then.
fn show(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::CommandLine;

    #[test]
    fn progress_is_shown_as_the_flags_and_stderr_have_it() {
        for (flags, at_terminal, in_log) in [
            ("", Shown::Bars, Shown::Lines),
            ("--progress bar", Shown::Bars, Shown::Lines),
            ("--progress lines", Shown::Lines, Shown::Lines),
            ("--progress json", Shown::Events, Shown::Events),
            ("--progress none", Shown::Nothing, Shown::Nothing),
            ("-q", Shown::Nothing, Shown::Nothing),
            ("-q --progress json", Shown::Events, Shown::Events),
            ("--log-format json", Shown::Events, Shown::Events),
            ("--log-format json --progress bar", Shown::Events, Shown::Events),
            ("--log-format json --progress none", Shown::Nothing, Shown::Nothing),
            ("--log-format json -q", Shown::Nothing, Shown::Nothing),
        ] {
            let line = ["loader", "status"].into_iter().chain(flags.split_whitespace());
            let flags = CommandLine::try_parse_from(line).unwrap().common;
            assert_eq!((shown(&flags, false), shown(&flags, true)), (at_terminal, in_log), "{flags:?}");
        }
    }
}
