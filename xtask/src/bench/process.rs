//! Processes that are compared: started so that they end with us, waited for with a deadline, and measured.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, waitid};

use super::{helper, proc};
use crate::bench::CHILD;

/// How often memory is looked at.
const SAMPLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How often is looked whether a process has ended, where nothing tells.
const LOOK: Duration = Duration::from_millis(2);
/// How long a seeder may take to say that it is ready, besides the time for its bytes.
const READY: Duration = Duration::from_secs(60);

/// A command that runs in `dir`, knows nothing of the user's settings, and is killed when we end, however that is.
pub(crate) fn command(dir: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = ours(dir, helper::BECOME);
    command.arg(program);
    command
}

/// This program again, with one of its duties as a child. Its file may have been replaced since it was started.
pub(crate) fn ours(dir: &Path, duty: &str) -> Command {
    let mut command = child(dir);
    command.arg(duty);
    command
}

/// The same, on these CPUs only.
pub(crate) fn ours_on(cpus: &[usize], dir: &Path, duty: &str) -> Command {
    let mut command = child(dir);
    command.args([helper::ON, &helper::cpu_list(cpus), duty]);
    command
}

/// Another program, on these CPUs only; see [`command`].
pub(crate) fn command_on(cpus: &[usize], dir: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = ours_on(cpus, dir, helper::BECOME);
    command.arg(program);
    command
}

fn child(dir: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(CHILD).current_dir(dir).env_clear().env("HOME", dir).env("TMPDIR", dir);
    if let Some(path) = env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// What some processes, one after the other, have used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_anonymous_bytes: u64,
}

/// Runs the commands one after the other. What they say goes to `log`.
pub(crate) fn measure(commands: &mut [Command], log: &Path, limit: Duration) -> Result<Usage> {
    let mut usage = Usage::default();
    let started = Instant::now();
    for command in commands {
        command.stdout(appending(log)?);
        let mut running = Running::start(command, log)?;
        running.watch(started + limit, &mut usage.peak_anonymous_bytes)?;
        usage.wall = started.elapsed();
        usage.cpu += running.reap()?;
    }
    Ok(usage)
}

/// Runs the commands at the same time: the wall time is that from the first start to the last end.
pub(crate) fn measure_together(commands: &mut [Command], log: &Path, limit: Duration) -> Result<Usage> {
    let mut usage = Usage::default();
    let started = Instant::now();
    let mut all = Vec::new();
    for command in commands {
        command.stdout(appending(log)?);
        all.push(Running::start(command, log)?);
    }
    for running in &mut all {
        running.watch(started + limit, &mut usage.peak_anonymous_bytes)?;
    }
    usage.wall = started.elapsed();
    for running in &mut all {
        usage.cpu += running.reap()?;
    }
    Ok(usage)
}

/// Runs the command and returns what it writes to stdout.
pub(crate) fn answer(command: &mut Command, log: &Path, limit: Duration) -> Result<String> {
    let file = log.with_extension("out");
    command.stdout(File::create(&file).with_context(|| format!("cannot create {}", file.display()))?);
    let mut running = Running::start(command, log)?;
    running.watch(Instant::now() + limit, &mut 0)?;
    running.reap()?;
    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// A seeder: runs until it is dropped.
pub(crate) struct Service {
    running: Running,
    lines: Receiver<String>,
}

impl Service {
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        command.stdout(Stdio::piped());
        let mut running = Running::start(&mut command, log)?;
        let stdout = running.child.stdout.take().context("a child has no stdout")?;
        let (sender, lines) = sync_channel(64);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may listen any more, but the pipe must not fill.
                let _ = sender.try_send(line);
            }
        });
        Ok(Self { running, lines })
    }

    /// Waits for a line in which `find` finds what it looks for.
    pub(crate) fn wait_for<T>(&self, limit: Duration, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let until = Instant::now() + READY + limit;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = find(&line) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("a seeder is not ready in time{}", self.running.log())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("a seeder has ended{}", self.running.log()),
            }
        }
    }

    /// It does nothing any more, but its connections stay.
    pub(crate) fn freeze(&self) -> Result<()> {
        kill_process(self.running.pid(), Signal::STOP).context("cannot stop a seeder")
    }

    /// CPU time up to now.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        proc::cpu_time(self.running.pid())
    }
}

/// A child that does not outlive its value.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stderr(appending(log)?).spawn();
        Ok(Self { child: child.context("cannot start a child process")?, log: log.to_owned() })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it has ended, and looks at its memory meanwhile.
    fn watch(&mut self, until: Instant, peak_bytes: &mut u64) -> Result<()> {
        let process = match pidfd_open(self.pid(), PidfdFlags::empty()) {
            Ok(process) => Some(process),
            // Sandboxes that stand in for a kernel may not have it.
            Err(Errno::NOSYS) => None,
            Err(error) => return Err(error).context("cannot watch a child process"),
        };
        while !self.has_ended(process.as_ref())? {
            if let Some(bytes) = proc::anonymous_bytes(self.pid()) {
                *peak_bytes = bytes.max(*peak_bytes);
            }
            if Instant::now() > until {
                bail!("not done in time{}", self.log());
            }
        }
        Ok(())
    }

    /// Waits for a while; at once if it has ended, and nearly so without a descriptor.
    fn has_ended(&self, process: Option<&OwnedFd>) -> Result<bool> {
        let Some(process) = process else {
            thread::sleep(LOOK);
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let ended = waitid(WaitId::Pid(self.pid()), options);
            return Ok(ended.context("cannot wait for a child process")?.is_some());
        };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&SAMPLE)) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) => Err(error).context("cannot wait for a child process"),
        }
    }

    /// CPU time of a child that has ended, if it ended well.
    fn reap(&mut self) -> Result<Duration> {
        let cpu = proc::cpu_time(self.pid())?;
        let status = self.child.wait().context("cannot wait for a child process")?;
        if !status.success() {
            bail!("failed ({status}){}", self.log());
        }
        Ok(cpu)
    }

    /// The end of what it has said, to be added to an error.
    fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last: Vec<_> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        last.iter().rev().map(|line| format!("; {}", line.trim())).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn appending(log: &Path) -> Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(log);
    file.with_context(|| format!("cannot open {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn steps_are_measured_together() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let work = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done";
        let usage = measure(&mut [shell(work), shell(work)], &log, LONG).unwrap();
        assert!(usage.cpu > Duration::ZERO && usage.wall > Duration::ZERO);
        assert_eq!(fs::read_to_string(&log).unwrap(), "done\ndone\n");
        assert_eq!(answer(&mut shell("echo said"), &log, LONG).unwrap(), "said\n");
    }

    #[test]
    fn an_end_is_seen_without_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Running::start(&mut shell("sleep 0.1"), &dir.path().join("log")).unwrap();
        assert!(!running.has_ended(None).unwrap());
        while !running.has_ended(None).unwrap() {}
        running.reap().unwrap();
    }

    #[test]
    fn what_runs_together_takes_as_long_as_the_slowest() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let usage = measure_together(&mut [shell("sleep 0.3"), shell("sleep 0.2")], &log, LONG).unwrap();
        assert!(usage.wall >= Duration::from_millis(300), "{:?}", usage.wall);
        assert!(measure_together(&mut [shell("true"), shell("exit 3")], &log, LONG).is_err());
    }

    #[test]
    fn failures_and_delays_are_told_with_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let error = measure(&mut [shell("echo full disk >&2; exit 3")], &log, LONG).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("full disk"), "{error}");
        let error = measure(&mut [shell("exec sleep 60")], &log, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("not done in time"), "{error}");
    }

    #[test]
    fn a_service_says_when_it_is_ready_and_ends_with_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo starting; echo port 17; exec sleep 60";
        let service = Service::start(shell(script), &dir.path().join("log")).unwrap();
        let port = service.wait_for(LONG, |line| line.strip_prefix("port ").map(str::to_owned));
        assert_eq!(port.unwrap(), "17");
        let pid = service.running.pid();
        drop(service);
        assert!(proc::cpu_time(pid).is_err(), "it has been waited for");
        let service = Service::start(shell("exit 1"), &dir.path().join("log")).unwrap();
        assert!(service.wait_for(LONG, |_| Some(())).is_err());
    }
}
