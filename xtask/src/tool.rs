//! Running other programs, without a shell, and saying what is missing.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A program the recipes need, and where it comes from.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) get_it: &'static str,
}

pub(crate) const C_COMPILER: Tool = Tool {
    name: "cc",
    get_it: "a C compiler: `apt install build-essential`, `dnf install gcc`, or `xcode-select --install`",
};
pub(crate) const NODE: Tool =
    Tool { name: "node", get_it: "Node.js 18 or newer: your package manager, or https://nodejs.org" };
pub(crate) const NPM: Tool =
    Tool { name: "npm", get_it: "comes with Node.js; with Debian and Ubuntu `apt install npm`" };
pub(crate) const PYTHON: Tool = Tool {
    name: "python3",
    get_it: "Python 3.10 or newer: your package manager (Debian and Ubuntu: `apt install python3 python3-venv`)",
};

/// Fails when one of the tools is missing, naming all that are.
pub(crate) fn require(tools: &[Tool]) -> Result<()> {
    let mut missing = String::new();
    for tool in tools.iter().filter(|tool| !answers(Command::new(tool.name).arg("--version"))) {
        write!(missing, "\n  {}: {}", tool.name, tool.get_it)?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("these programs are needed and not found, or do not run:{missing}")
}

/// Whether the program can be run and succeeds. Its output is thrown away.
pub(crate) fn answers(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The cargo that runs us, in the repository, leaving the lock file alone. Its output goes to the terminal.
pub(crate) fn cargo(root: &Path, recipe: &[&str]) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root).args(recipe).arg("--locked");
    command
}

/// Says what is run, runs it, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    eprintln!("xtask: {shown}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`{shown}` failed ({status})"),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("`{shown}` failed: no such program"),
        Err(error) => Err(error).with_context(|| format!("cannot run `{shown}`")),
    }
}

/// Runs it and returns what it writes to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` wrote something that is not UTF-8"))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_where_to_get_it() {
        let error = require(&[Tool { name: "no-such-tool-anywhere", get_it: "from nowhere" }]).unwrap_err();
        assert!(error.to_string().contains("no-such-tool-anywhere: from nowhere"), "{error}");
        let error = run(&mut Command::new("/nowhere/no-such-tool")).unwrap_err();
        assert!(error.to_string().contains("no such program"), "{error}");
    }

    #[test]
    fn a_failure_names_the_command_and_its_status() {
        let error = run(Command::new("false").arg("--now")).unwrap_err();
        assert!(error.to_string().contains("`false --now` failed"), "{error}");
        assert!(output(&mut Command::new("false")).is_err());
        assert_eq!(output(Command::new("echo").arg("yes")).unwrap(), "yes\n");
    }
}
