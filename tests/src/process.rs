//! Child processes: what they say is captured, and they end with the test.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::{DEADLINE, soon};

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    line: String,
    child: Child,
    stdout: watch::Receiver<String>,
    stderr: watch::Receiver<String>,
}

/// What a process that has ended said.
#[derive(Debug, Clone)]
pub struct Outcome {
    line: String,
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Memory of its own, without pages of mapped files.
    pub anonymous_bytes: u64,
    /// Its threads.
    pub threads: u64,
    /// Its open files and sockets.
    pub descriptors: u64,
}

impl Process {
    /// Starts the process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let words = command.as_std().get_args().map(OsStr::to_string_lossy);
        let line = words.collect::<Vec<_>>().join(" ");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        let stdout = capture(child.stdout.take().unwrap());
        let stderr = capture(child.stderr.take().unwrap());
        Self { line, child, stdout, stderr }
    }

    /// Waits until stdout has a first line, and returns it.
    ///
    /// # Panics
    /// When the process ends without one.
    pub async fn first_line(&mut self) -> String {
        self.line(0).await
    }

    /// Waits until stdout has so many lines before this one, and this one, and returns it.
    ///
    /// # Panics
    /// When the process ends without it.
    pub async fn line(&mut self, before: usize) -> String {
        let text = self.prints(|text| text.matches('\n').count() > before).await;
        text.lines().nth(before).unwrap_or_default().to_owned()
    }

    /// Waits until stdout is like this, and returns it.
    ///
    /// # Panics
    /// When the process ends without it.
    pub async fn prints(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        wait(&self.line, &mut self.stdout, &self.stderr, is_it).await
    }

    /// Waits until the last whole line of stdout is an object like this.
    ///
    /// # Panics
    /// When the process ends without it.
    pub async fn last_answer(&mut self, is_it: impl Fn(&Value) -> bool) {
        let is_last = |text: &str| {
            let whole = &text[..text.rfind('\n').unwrap_or(0)];
            whole
                .lines()
                .last()
                .and_then(|line| serde_json::from_str(line).ok())
                .is_some_and(|last| is_it(&last))
        };
        wait(&self.line, &mut self.stdout, &self.stderr, is_last).await;
    }

    /// Waits until stderr says this.
    ///
    /// # Panics
    /// When the process ends without that.
    pub async fn says(&mut self, part: &str) {
        wait(&self.line, &mut self.stderr, &self.stdout, |text| text.contains(part)).await;
    }

    /// Waits until stderr is like this, and returns it.
    ///
    /// # Panics
    /// When the process ends without it.
    pub async fn notes(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        wait(&self.line, &mut self.stderr, &self.stdout, is_it).await
    }

    /// What it uses now.
    ///
    /// # Panics
    /// When it has ended.
    pub fn usage(&self) -> Usage {
        let dir = PathBuf::from(format!("/proc/{}", self.id()));
        let status = fs::read_to_string(dir.join("status")).unwrap();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok()).unwrap()
        };
        Usage {
            anonymous_bytes: field("RssAnon") << 10,
            threads: field("Threads"),
            descriptors: fs::read_dir(dir.join("fd")).unwrap().count() as u64,
        }
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    /// When that fails.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends a signal, named without its SIG.
    ///
    /// # Panics
    /// When that fails.
    pub async fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.id());
        let status = Command::new("sh").args(["-c", &line]).status().await.unwrap();
        assert!(status.success(), "`{}` could not be sent SIG{name}", self.line);
    }

    /// Sends SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// When that fails.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Kills it when this moment has come. If it has ended before, tells how.
    ///
    /// # Panics
    /// When it can be neither killed nor waited for.
    pub async fn killed_at(mut self, moment: impl Future<Output = ()>) -> Option<Outcome> {
        tokio::select! {
            ended = self.child.wait() => ended.unwrap(),
            () = moment => {
                self.kill().await;
                return None;
            }
        };
        Some(self.outcome().await)
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn outcome(mut self) -> Outcome {
        let status = soon(&format!("the end of `{}`", self.line), self.child.wait()).await.unwrap();
        let (stdout, stderr) = (all(self.stdout).await, all(self.stderr).await);
        Outcome { line: self.line, status: status.code(), stdout, stderr }
    }
}

impl Outcome {
    /// Fails the test unless this was the exit status.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        let Self { line, status: found, stdout, stderr } = &self;
        assert!(
            *found == Some(status),
            "`{line}` ended with {found:?}, expected {status}\nstdout: {stdout}\nstderr: {stderr}"
        );
        self
    }

    /// The objects on stdout.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[track_caller]
    pub fn answers(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The one object that a successful command has answered with.
    ///
    /// # Panics
    /// When it failed, or there is another number of objects.
    #[track_caller]
    pub fn answer(self) -> Value {
        let mut answers = self.expect(0).answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// What a command said that failed with this status: its message and causes, which must also be on stderr.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn failure(self, status: i32) -> String {
        let ended = self.expect(status);
        let last = ended.answers().pop().unwrap_or_default();
        assert_eq!((&last["type"], &last["status"]), (&"error".into(), &status.into()), "{last}");
        let causes = last["causes"].as_array().into_iter().flatten();
        let parts: Vec<_> =
            std::iter::once(&last["message"]).chain(causes).filter_map(Value::as_str).collect();
        for part in &parts {
            assert!(ended.stderr.contains(part), "only the object says {part:?}; stderr: {}", ended.stderr);
        }
        parts.join("\n")
    }
}

/// Reads until the end, so that a full pipe never stops the process.
fn capture(mut pipe: impl AsyncRead + Send + Unpin + 'static) -> watch::Receiver<String> {
    let (captured, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut chunk = vec![0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
            captured.send_modify(|text| text.push_str(&String::from_utf8_lossy(&chunk[..length])));
        }
    });
    receiver
}

async fn wait(
    line: &str,
    stream: &mut watch::Receiver<String>,
    other: &watch::Receiver<String>,
    is_there: impl Fn(&str) -> bool,
) -> String {
    let found = tokio::time::timeout(DEADLINE, stream.wait_for(|text| is_there(text))).await;
    let found = found.map(|found| found.map(|text| text.clone()).ok());
    let said = || format!("{}\n{}", *stream.borrow(), *other.borrow());
    match found {
        Ok(Some(text)) => text,
        Ok(None) => panic!("`{line}` has ended\n{}", said()),
        Err(_) => panic!("`{line}` does not say it within {DEADLINE:?}\n{}", said()),
    }
}

async fn all(mut stream: watch::Receiver<String>) -> String {
    // An error says that all was read.
    let _ = soon("the end of a pipe", stream.wait_for(|_| false)).await;
    stream.borrow().clone()
}
