//! Kills in place of a chosen call of the file system: `tests/c/killat.c`, compiled when a test wants it.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::{Outcome, Process, tools};

/// The compiled program, for one command at a time.
#[derive(Debug)]
pub struct Killer {
    dir: TempDir,
}

/// How a command ended under the killer.
#[derive(Debug)]
pub enum Killed {
    /// It was killed in place of this call.
    InPlaceOf(String),
    /// It ended before there were so many calls: there were this many.
    Not {
        /// How many calls it made.
        calls: u64,
        /// What it said.
        outcome: Outcome,
    },
}

impl Killer {
    /// Compiles it.
    ///
    /// # Panics
    /// When that fails, as it does without a C compiler, and on other systems than x86-64 and aarch64 Linux.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        tools::compile("killat.c", &["-O1"], &dir.path().join(PROGRAM)).await;
        Self { dir }
    }

    pub(crate) fn command(&self, at: u64, program: &Path) -> Command {
        let mut command = Command::new(self.dir.path().join(PROGRAM));
        command.arg(at.to_string()).arg(self.report()).arg(program);
        command
    }

    /// Runs a command of [`Home::command_killed`](crate::Home::command_killed) to its end.
    ///
    /// # Panics
    /// When the command cannot be traced.
    pub async fn run(&self, command: Command) -> Killed {
        let outcome = Process::start(command).outcome().await;
        let report = fs::read_to_string(self.report()).unwrap();
        match report.trim_end().split_once(' ') {
            Some(("killed", how)) => Killed::InPlaceOf(how.to_owned()),
            Some(("survived", calls)) => Killed::Not { calls: calls.parse().unwrap(), outcome },
            _ => panic!("the killer failed: {outcome:?}"),
        }
    }

    fn report(&self) -> PathBuf {
        self.dir.path().join("report")
    }
}

const PROGRAM: &str = "killat";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_killed_in_place_of_each_call_that_changes_a_file() {
        let (killer, dir) = (Killer::new().await, tempfile::tempdir().unwrap());
        let run = async |at| {
            let mut command = killer.command(at, Path::new("sh"));
            // Pipes and what is only read do not count.
            let line = "cat /dev/null | cat; echo one >a; echo two >>a; mv a b; rm b; echo done";
            command.args(["-c", line]).current_dir(dir.path());
            killer.run(command).await
        };
        let Killed::Not { calls, outcome } = run(0).await else { panic!("it was not to be killed") };
        assert_eq!((calls, outcome.expect(0).stdout.as_str()), (6, "done\n"));
        let is_there = |name| dir.path().join(name).exists();
        let content = || fs::read(dir.path().join("a")).unwrap();
        for (at, call, is_as_it_should) in [
            (1, "open", &(|| !is_there("a")) as &dyn Fn() -> bool),
            (2, "write", &|| content().is_empty()),
            (4, "write", &|| content() == b"one\n"),
            (5, "rename", &|| is_there("a") && !is_there("b")),
            (6, "unlink", &|| is_there("b")),
        ] {
            let Killed::InPlaceOf(how) = run(at).await else { panic!("it survived {at}") };
            assert!(how.starts_with(&format!("at {at} {call}")) && is_as_it_should(), "{how}");
        }
        fs::remove_file(dir.path().join("b")).unwrap();
        assert!(matches!(run(7).await, Killed::Not { calls: 6, .. }));
    }
}
