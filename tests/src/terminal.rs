//! A program at a terminal of some size, and what is to be seen there.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::{DEADLINE, soon};

/// A program whose stdout and stderr are a terminal. Dropping it kills it.
pub struct Terminal {
    line: String,
    child: Child,
    controller: OwnedFd,
    seen: watch::Sender<Seen>,
}

/// What was written to the terminal, and what that looks like.
struct Seen {
    parser: vt100::Parser,
    written: Vec<u8>,
    is_over: bool,
}

impl Terminal {
    /// Starts the program.
    ///
    /// # Panics
    /// When the system has no terminal for it, or it cannot be started.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        tcsetwinsize(&controller, size(columns, rows)).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let ours = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        command.stdin(Stdio::null()).stdout(ours.try_clone().unwrap()).stderr(ours).kill_on_drop(true);
        let line = format!("{:?}", command.as_std());
        let child = command.spawn().unwrap();
        // With it go our copies of the program's side: reading ends when the program's are closed.
        drop(command);
        let parser = vt100::Parser::new(count(rows), count(columns), 0);
        let seen = watch::Sender::new(Seen { parser, written: Vec::new(), is_over: false });
        let (mut reader, writer) = (File::from(controller.try_clone().unwrap()), seen.clone());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                writer.send_modify(|seen| {
                    seen.parser.process(&chunk[..length]);
                    seen.written.extend_from_slice(&chunk[..length]);
                });
            }
            writer.send_modify(|seen| seen.is_over = true);
        });
        Self { line, child, controller, seen }
    }

    /// Gives it another size.
    ///
    /// # Panics
    /// When that fails.
    pub fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.controller, size(columns, rows)).unwrap();
        self.seen.send_modify(|seen| seen.parser.screen_mut().set_size(count(rows), count(columns)));
    }

    /// Waits until the lines on the screen that are not empty are like this, and returns them.
    ///
    /// # Panics
    /// When the program ends without that.
    pub async fn shows(&self, is_it: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut receiver = self.seen.subscribe();
        let shown = receiver.wait_for(|seen| seen.is_over || is_it(&lines(seen)));
        let shown = tokio::time::timeout(DEADLINE, shown).await.map(|seen| lines(&seen.unwrap()));
        match shown {
            Ok(lines) if is_it(&lines) => lines,
            Ok(lines) => panic!("{} has ended, and shows {lines:#?}", self.line),
            Err(_) => panic!("{} shows {:#?}", self.line, lines(&self.seen.borrow())),
        }
    }

    /// Waits for its end: its exit status, the lines on the screen, and all that was written.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn outcome(mut self) -> (Option<i32>, Vec<String>, String) {
        let status = soon(&format!("the end of {}", self.line), self.child.wait()).await.unwrap();
        let mut receiver = self.seen.subscribe();
        let seen = soon("all that was written", receiver.wait_for(|seen| seen.is_over)).await.unwrap();
        (status.code(), lines(&seen), String::from_utf8_lossy(&seen.written).into_owned())
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn count(rows_or_columns: u16) -> NonZeroU16 {
    NonZeroU16::new(rows_or_columns).unwrap()
}

fn lines(seen: &Seen) -> Vec<String> {
    let screen = seen.parser.screen();
    let (_, columns) = screen.size();
    screen
        .rows(0, columns.get())
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}
