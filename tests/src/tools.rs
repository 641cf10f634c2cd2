//! The programs that the tests run. `cargo xtask test` sets all of them up and names them in variables.

use std::env;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// This package's directory.
pub(crate) fn tests_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `loader` command: `LOADER_BIN`, else the one cargo has put beside the tests.
pub(crate) fn loader() -> PathBuf {
    let test = env::current_exe().unwrap();
    // target/PROFILE/deps/TEST
    let beside = test.ancestors().nth(2).unwrap().join("loader");
    tool("LOADER_BIN", beside, "`cargo build --package loader-cli`")
}

/// The demo, beside the `loader` command.
///
/// # Panics
/// When it is not there.
pub fn demo() -> PathBuf {
    let demo = loader().with_file_name("loader-demo");
    assert!(demo.exists(), "there is no {}: `cargo build --package demo`", demo.display());
    demo
}

/// The EVM node: `LOADER_ANVIL`, else the one of `tests/evm`.
///
/// # Panics
/// When there is none.
pub fn anvil() -> PathBuf {
    let installed = tests_dir().join("evm/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    tool("LOADER_ANVIL", installed, "`npm ci` in tests/evm")
}

/// The command line of the Python peer, up to its arguments: the interpreter (`LOADER_PYTHON`, else the one of
/// `tests/python/.venv`) and the script.
///
/// # Panics
/// When there is no interpreter.
pub fn python_peer() -> [PathBuf; 2] {
    python("blob_peer.py")
}

/// Runs a command of the script that makes and checks models as people have them.
///
/// # Panics
/// When there is no interpreter.
pub async fn real_inputs(args: &[&std::ffi::OsStr]) -> crate::Outcome {
    let [interpreter, script] = python("real_inputs.py");
    let mut command = tokio::process::Command::new(interpreter);
    command.arg(script).args(args);
    crate::Process::start(command).outcome().await
}

/// Runs what writes the files of the network's own sharder: its blobs into `dir`, its list to `list`.
///
/// # Panics
/// When there is no interpreter.
pub async fn sharder(strategy: &str, dir: &std::path::Path, list: &std::path::Path) -> crate::Outcome {
    let [interpreter, script] = python("sharder.py");
    let mut command = tokio::process::Command::new(interpreter);
    command.arg(script).arg(strategy).arg(dir).arg(list);
    crate::Process::start(command).outcome().await
}

/// The command line of a script that uses the wheel, up to its arguments: the interpreter of an environment in which it is
/// installed (`LOADER_WHEEL_PYTHON`, else the one of `target/wheel/venv`), and the script.
///
/// # Panics
/// When there is no interpreter.
pub fn wheel_script(script: &str) -> [PathBuf; 2] {
    let installed = tests_dir().join("../target/wheel/venv/bin/python");
    let python = tool("LOADER_WHEEL_PYTHON", installed, "`cargo xtask test`");
    [python, tests_dir().join("python/wheel").join(script)]
}

/// The same of what types answers at a terminal.
pub(crate) fn terminal() -> [PathBuf; 2] {
    python("terminal.py")
}

fn python(script: &str) -> [PathBuf; 2] {
    let python = tests_dir().join("python");
    let installed = python.join(".venv/bin/python");
    [tool("LOADER_PYTHON", installed, "`cargo xtask setup`"), python.join(script)]
}

fn tool(variable: &str, default: PathBuf, how: &str) -> PathBuf {
    let path = env::var_os(variable).filter(|path| !path.is_empty()).map_or(default, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: run {how}, or set {variable}; `cargo xtask test` does both",
        path.display()
    );
    path
}

/// Compiles a file of `tests/c` with `CC`, or `cc`.
///
/// # Panics
/// When that fails, as it does without a C compiler.
pub(crate) async fn compile(source: &str, flags: &[&str], target: &Path) {
    let compiler = env::var_os("CC").filter(|compiler| !compiler.is_empty());
    let compiler = compiler.unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-Wall", "-Wextra", "-Werror"]).args(flags).arg("-o").arg(target);
    let output = command.arg(tests_dir().join("c").join(source)).arg("-ldl").output().await;
    let output = output.unwrap_or_else(|error| panic!("cannot run {compiler:?}, a C compiler: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler:?} cannot compile {source}: {said}");
}

/// The command line that looks at a page in a real browser, up to its arguments: Node.js, the script, and the browser
/// (`LOADER_CHROMIUM`, else Debian's).
///
/// # Panics
/// When the browser, or what drives it, is not there.
pub fn browser() -> [PathBuf; 3] {
    let dir = tests_dir().join("browser");
    let driver = dir.join("node_modules/playwright-core/package.json");
    assert!(
        driver.is_file(),
        "{} is missing: `npm ci` in tests/browser; `cargo xtask test` does it",
        driver.display()
    );
    let chromium = tool("LOADER_CHROMIUM", "/usr/bin/chromium".into(), "`apt-get install chromium`");
    ["node".into(), dir.join("page.mjs"), chromium]
}
