//! Commands in other circumstances: as another user, with less of something, or where nothing can be written. They need root
//! and util-linux.

use std::ffi::OsStr;
use std::path::Path;

use tokio::process::Command;

use crate::tools;

/// The same command as a user without rights.
pub fn as_user(user: u32, command: &Command) -> Command {
    let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()];
    behind("setpriv", ids.iter().map(OsStr::new), command)
}

/// The same command with a limit, as `prlimit` takes it.
pub fn limited(limit: &str, command: &Command) -> Command {
    behind("prlimit", [OsStr::new(limit)], command)
}

/// The same command with this umask.
pub fn with_umask(umask: &str, command: &Command) -> Command {
    let script = format!("umask {umask} && exec \"$0\" \"$@\"");
    behind("sh", ["-c".as_ref(), OsStr::new(&script)], command)
}

/// The same command, to which the file system of this directory is read-only.
pub fn read_only(dir: &Path, command: &Command) -> Command {
    let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd . && exec "$@""#;
    let args = ["--mount", "sh", "-c", script].map(OsStr::new);
    behind("unshare", args.into_iter().chain([dir.as_os_str()]), command)
}

/// The same command on a machine whose clock stands before 1970. What that needs is put into this directory.
///
/// # Panics
/// When it cannot be compiled.
pub async fn before_1970(dir: &Path, command: &Command) -> Command {
    let library = dir.join("clock.so");
    tools::compile("clock.c", &["-shared", "-fPIC"], &library).await;
    let mut command = behind("env", [], command);
    command.env("LD_PRELOAD", library);
    command
}

pub(crate) fn behind<'a>(
    program: &str,
    args: impl IntoIterator<Item = &'a OsStr>,
    command: &Command,
) -> Command {
    let command = command.as_std();
    let mut outer = Command::new(program);
    outer.env_clear().args(args).arg(command.get_program()).args(command.get_args());
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        outer.current_dir(dir);
    }
    outer
}
