//! What the service manager is told (`Type=notify` of systemd, and its watchdog): datagrams to the socket that
//! `NOTIFY_SOCKET` names. Where nobody listens, nothing is told. Protocol: `man sd_notify`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::output::Output;
use crate::visible::visible;

/// Where notices go.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often a sign of life is expected, in microseconds, and of which process.
const WATCHDOG_US: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// Those variables are for this process: commands that it runs do not get them.
pub(crate) const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG_US, WATCHDOG_PID];
/// More than that of a status is cut off: the manager takes 4 KiB in one datagram.
const MAX_STATUS_CHARS: usize = 500;

/// The service manager that has started this process, if there is one.
pub(crate) struct Supervisor {
    socket: Option<Arc<UnixDatagram>>,
    /// Gives signs of life until this is dropped.
    _watchdog: JoinSet<()>,
}

impl Supervisor {
    /// Finds it, and starts to give it signs of life if it expects them. Called on the runtime.
    pub(crate) fn start(output: &Output) -> Self {
        let named = std::env::var_os(SOCKET).filter(|name| !name.is_empty());
        let socket = named.and_then(|name| match connect(&name) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                output.warn(&format!("the service manager hears nothing of this process: {error}"));
                None
            }
        });
        let mut watchdog = JoinSet::new();
        if let Some((socket, within)) = socket.clone().zip(watchdog_within()) {
            watchdog.spawn(give_signs(socket, within));
        }
        Self { socket, _watchdog: watchdog }
    }

    /// It works now: the cache is open, and the node listens.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// What it is at, for whoever asks the manager.
    pub(crate) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", one_line(status)));
    }

    /// It ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=ending: answers in progress are finished");
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            send(socket, state);
        }
    }
}

/// A manager that does not listen, or whose queue is full, hears the next notice, and is no reason to wait or to end.
fn send(socket: &UnixDatagram, state: &str) {
    let _ = socket.send(state.as_bytes());
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Within what time the manager expects a sign of life of this process, each time.
fn watchdog_within() -> Option<Duration> {
    let number = |variable| std::env::var(variable).ok()?.parse::<u64>().ok();
    let is_ours = std::env::var_os(WATCHDOG_PID).is_none()
        || number(WATCHDOG_PID) == Some(u64::from(std::process::id()));
    number(WATCHDOG_US).filter(|us| is_ours && *us > 0).map(Duration::from_micros)
}

/// Each sign is given by a task of the runtime that was just started by another one: when its threads hang, or take nothing new
/// any more, the signs stop, and the manager starts the service again.
async fn give_signs(socket: Arc<UnixDatagram>, within: Duration) {
    // Twice as often as is expected, as sd_watchdog_enabled(3) has it.
    let mut ticks = interval((within / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let socket = Arc::clone(&socket);
        // It can fail only when the runtime ends.
        let _ = tokio::spawn(async move { send(&socket, "WATCHDOG=1") }).await;
    }
}

/// A line of its own is a field of its own.
fn one_line(status: &str) -> String {
    let line: String =
        status.chars().take(MAX_STATUS_CHARS).map(|c| if c == '\n' { ' ' } else { c }).collect();
    visible(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_stays_one_field() {
        assert_eq!(one_line("a\nREADY=1\r\u{1b}[2J"), "a READY=1\\r\\u{1b}[2J");
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), MAX_STATUS_CHARS);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sockets_have_paths_or_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("loader-test-{}", std::process::id());
        let abstract_name =
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
        let managers = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&abstract_name).unwrap()];
        for (manager, name) in managers.iter().zip([path.into_os_string(), format!("@{name}").into()]) {
            send(&connect(&name).unwrap(), "READY=1");
            let mut heard = [0; 16];
            let length = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1");
        }
        assert!(connect(OsStr::new("/nowhere/notify")).is_err());
    }
}
