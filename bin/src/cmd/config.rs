//! `loader config`.

use anyhow::Result;

use crate::answer::{Answer, Setting};
use crate::args::{ConfigCommand, LogFormat, without_keys};
use crate::config::Refused;
use crate::config::show::{Origin, Shown, program, settings};
use crate::exit::Usage;
use crate::output::{self, Output};

pub(crate) fn run(command: &ConfigCommand, output: &Output) -> Result<()> {
    let ConfigCommand::Show { command } = command;
    let words: Vec<_> = std::env::args_os().collect();
    let found = match program(&words).and_then(|program| settings(&program, command)) {
        Ok(found) => found,
        Err(Refused::File { error, .. }) => return Err(error),
        // The help of the command.
        Err(Refused::Line(error)) if !error.use_stderr() => {
            output::refuse(&error, LogFormat::Text);
            return Ok(());
        }
        Err(Refused::Line(error)) => {
            let text = without_keys(error).render().to_string();
            let what = text.lines().next().unwrap_or_default();
            return Err(Usage::new(what.trim_start_matches("error: ")).into());
        }
    };
    let is_for_all = |key: &str| found.iter().filter(|(shown, _)| shown.key == key).count() == 1;
    found.iter().try_for_each(|(shown, commands)| {
        let of = if is_for_all(&shown.key) { Vec::new() } else { commands.clone() };
        output.answer(&Answer::Setting(answer(shown, of)))
    })
}

fn answer(Shown { key, values, origin }: &Shown, commands: Vec<String>) -> Setting {
    let (origin, place) = match origin {
        Origin::Flag => ("flag", None),
        Origin::Variable(name) => ("variable", Some(name.clone())),
        Origin::File(path, line) => ("file", Some(format!("{}:{line}", path.display()))),
        Origin::Default => ("default", None),
    };
    Setting { key: key.clone(), values: values.clone(), origin, place, commands }
}
