//! The systemd units of `deploy/systemd`, and what the commands tell the service manager.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Home, Process, put, soon};
use tokio::net::UnixDatagram as Receiver;

/// The units, by their names.
fn units() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let units = files.filter(|path| path.extension().is_some_and(|extension| extension == "service"));
    let named = units.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    });
    named.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_say_what_the_commands_understand() {
    let units = units();
    assert_eq!(units.len(), 4, "{units:?}");
    let home = Home::new();
    let mut commands = Vec::new();
    for (name, unit) in &units {
        assert!(unit.contains("[Install]\nWantedBy="), "{name} cannot be enabled");
        let started = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let Some(line) = started.strip_prefix("/usr/local/bin/loader ") else { continue };
        assert!(unit.contains("\nUser=loader\n") && unit.contains("\nProtectSystem=strict\n"), "{name}");
        let words: Vec<&str> = line.split(' ').collect();
        let help = home.plain([words[0], "--help"]).await.expect(0).stdout;
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{flag} ")), "{name}: {flag} is no flag of {}", words[0]);
        }
        let is_watched = unit.contains("\nType=notify\n") && unit.contains("\nWatchdogSec=");
        assert_eq!(is_watched, words[0] != "fetch", "{name}");
        commands.push(words[0].to_owned());
    }
    commands.sort();
    assert_eq!(commands, ["fetch", "serve", "watch"]);
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    let units = units();
    let home = Home::new();
    let of = |name: &str| home.path(name);
    for (name, unit) in &units {
        // Programs that this machine has.
        let unit = unit.replace("/usr/local/bin/loader", "/bin/true");
        put(&of(name), unit.as_bytes());
    }
    let analyze = |args: &[&str], files: &[PathBuf]| {
        match Command::new("systemd-analyze").args(args).args(files).output() {
            // Where there is no systemd there is nothing to run them, and the other test has read them.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
            Ok(output) => {
                let (complaints, report) =
                    (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
                assert!(output.status.success() && !complaints.contains(".service:"), "{complaints}{report}");
            }
        }
    };
    let files = |is_it: fn(&str) -> bool| -> Vec<PathBuf> {
        units.iter().filter(|(name, _)| is_it(name)).map(|(name, _)| of(name)).collect()
    };
    analyze(&["verify", "--man=no"], &files(|_| true));
    // Its measure of what a service may do, in tenths: 100 is everything.
    analyze(
        &["security", "--offline=yes", "--no-pager", "--threshold=20"],
        &files(|name| name.starts_with("loader-")),
    );
}

/// What plays the service manager.
struct Manager(Receiver);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(Receiver::from_std(socket).unwrap())
    }

    /// Waits for a notice with this line, and returns all of it.
    async fn hears(&self, line: &str) -> String {
        let heard = async {
            let mut buffer = [0; 4096];
            loop {
                let length = self.0.recv(&mut buffer).await.unwrap();
                let notice = String::from_utf8(buffer[..length].to_vec()).unwrap();
                if notice.lines().any(|said| said.starts_with(line)) {
                    return notice;
                }
            }
        };
        soon(&format!("a notice with {line}"), heard).await
    }
}

/// `loader` with these arguments, started by a manager that expects a sign of life ten times a second.
fn supervised(home: &Home, args: &[&str]) -> (Process, Manager) {
    let manager = Manager::at(&home.path("notify"));
    let mut command = home.command(args);
    command.env("NOTIFY_SOCKET", home.path("notify")).env("WATCHDOG_USEC", "100000");
    (Process::start(command), manager)
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_tells_the_service_manager_that_it_is_ready_lives_and_ends() {
    let home = Home::new();
    let (mut serve, manager) = supervised(&home, &["serve", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    assert_eq!(manager.hears("READY=1").await, "READY=1\nSTATUS=seeding");
    assert!(serve.first_line().await.starts_with("/ip4/127.0.0.1/tcp/"));
    for _ in 0..3 {
        assert_eq!(manager.hears("WATCHDOG=1").await, "WATCHDOG=1");
    }
    serve.terminate().await;
    manager.hears("STOPPING=1").await;
    serve.outcome().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_tells_it_what_the_trouble_is() {
    let home = Home::new();
    let contract = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    let args = ["watch", "--contract", contract, "--rpc-url", "http://127.0.0.1:9", "--poll-interval", "1s"];
    let (watch, manager) = supervised(&home, &args);
    manager.hears("READY=1").await;
    manager.hears("WATCHDOG=1").await;
    let trouble = manager.hears("STATUS=").await;
    assert!(trouble.contains("127.0.0.1:9"), "{trouble}");
    watch.terminate().await;
    manager.hears("STOPPING=1").await;
    watch.outcome().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_gone_stops_nobody() {
    let home = Home::new();
    let mut command = home.command(["serve", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.env("NOTIFY_SOCKET", home.path("nobody"));
    let mut serve = Process::start(command);
    serve.first_line().await;
    serve.terminate().await;
    let ended = serve.outcome().await.expect(0);
    assert!(ended.stderr.contains("the service manager hears nothing"), "{}", ended.stderr);
}
