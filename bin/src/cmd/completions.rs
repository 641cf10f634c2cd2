//! `loader completions`.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::{Arg, Command, CommandFactory as _, ValueHint};
use clap_complete::{Shell, generate};

use crate::args::CommandLine;

pub(crate) fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    generate(shell, &mut command(), "loader", &mut script);
    io::stdout().lock().write_all(&script).context("cannot write to stdout")
}

/// What is completed: commands and flags, values of those that take one of a few, and paths. Not the digests of the cache: a
/// script that asks `loader` for them each time is what clap_complete calls unstable.
fn command() -> Command {
    let full = CommandLine::command();
    // Scripts would name hidden commands.
    let shown = full.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let command = Command::new("loader").version(env!("CARGO_PKG_VERSION")).propagate_version(true);
    let command = command.args(full.get_arguments().cloned()).subcommands(shown);
    with_hints(command)
}

fn with_hints(command: Command) -> Command {
    command.mut_args(with_hint).mut_subcommands(with_hints)
}

/// What a value is shows in its name.
fn with_hint(argument: Arg) -> Arg {
    let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let hint = match name.as_deref() {
        Some("DIR") => ValueHint::DirPath,
        Some("FILE" | "DIGEST|FILE" | "SHARDS.json") => ValueHint::FilePath,
        Some("DIR|FILE" | "PATH") => ValueHint::AnyPath,
        Some("CMD") => ValueHint::CommandString,
        _ => return argument,
    };
    argument.value_hint(hint)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_values_and_no_hidden_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            generate(*shell, &mut command(), "loader", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(!script.contains("man pages"), "{shell}");
            // Elvish and PowerShell complete no values.
            if matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish) {
                for value in ["llm-backbone", "replica", "finalized", "governor"] {
                    assert!(script.contains(value), "{shell}: {value}");
                }
            }
        }
    }

    #[test]
    fn paths_are_completed_as_what_they_are() {
        fn hints(command: &Command) -> Vec<(String, ValueHint)> {
            let own = command.get_arguments().map(|arg| (arg.get_id().to_string(), arg.get_value_hint()));
            own.chain(command.get_subcommands().flat_map(hints)).collect()
        }
        let mut command = command();
        command.build();
        let hints = hints(&command);
        for (id, hint) in [
            ("cache_dir", ValueHint::DirPath),
            ("blob_dir", ValueHint::DirPath),
            ("keystore", ValueHint::FilePath),
            ("exec", ValueHint::CommandString),
            ("path", ValueHint::AnyPath),
            ("peer", ValueHint::Unknown),
        ] {
            let found: Vec<_> = hints.iter().filter(|(found, _)| found == id).collect();
            assert!(!found.is_empty() && found.iter().all(|(_, found)| *found == hint), "{id}: {found:?}");
        }
    }
}
