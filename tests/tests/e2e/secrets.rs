//! Keys and passwords, and endpoints that talk without end: nothing that the command writes shows the former, or is as long
//! as the latter.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use e2e::{Chain, Home, Outcome, Parrot, Peer, Process, Recipe, put};
use serde_json::json;

const CONTRACT: &str = "0x0000000000000000000000000000000000000009";
/// Every part of it is a key.
const USER: &str = "user%2Dname:pa%73sword9";
const PATH: &str = "v3/se%63retkey?apikey=keyin%2Fquery";
const HEADER: &str = "X-Key: Bearer headerkey";
/// What must not be seen of it, in lower case.
const FORBIDDEN: [&str; 14] = [
    "user-name",
    "user%2dname",
    "password9",
    "pa%73sword9",
    "secretkey",
    "se%63retkey",
    "keyin/query",
    "keyin%2f",
    "headerkey",
    "dxnlci1uyw1lonbhc3n3b3jkoq",
    "c2vjcmv0a2v5",
    "agvhzgvya2v5",
    "7365637265746b6579",
    "6865616465726b6579",
];

/// Our keys in every form, and what a terminal would obey.
fn said() -> String {
    "user-name user%2Dname pa%73sword9 password9 SECRETKEY secretkey se%63retkey %73ecretkey keyin/query keyin%2Fquery \
     keyin\\/query Bearer headerkey HeaderKey dXNlci1uYW1lOnBhc3N3b3JkOQ== dXNlci1uYW1lOnBhc3N3b3JkOQ aGVhZGVya2V5 \
     c2VjcmV0a2V5 6865616465726b6579 7365637265746B6579 \\u0073ecretkey \u{1b}[31m\u{202e}"
        .to_owned()
}

/// The ABI encoding of (text, 0).
fn returned(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let padding = "0".repeat(hex.len().next_multiple_of(64) - hex.len());
    format!("0x{:064x}{:064x}{:064x}{hex}{padding}", 64, 0, text.len())
}

/// Fails the test when a text shows a key, has what a terminal obeys, or has long lines.
#[track_caller]
fn assert_clean(text: &str) {
    let lower = text.to_lowercase();
    for key in FORBIDDEN {
        let line = lower.lines().find(|line| line.contains(key));
        assert!(line.is_none(), "{key} is in {line:?}");
    }
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    // The longest are libp2p's, of its own types.
    let longest = text.lines().max_by_key(|line| line.len()).unwrap_or_default();
    assert!(longest.len() < 20_000, "a line of {} bytes: {longest:.300}", longest.len());
}

/// A parrot that says `body` with `status` to what begins with `method`, and is healthy otherwise.
async fn parrot(method: &'static str, status: u16, body: String) -> Parrot {
    let hash = format!("0x{}", "11".repeat(32));
    Parrot::start(move |asked| match asked {
        asked if asked.starts_with(method) || asked.is_empty() => (status, body.clone()),
        "eth_chainId" => (200, json!({"result": "0x1"}).to_string()),
        "eth_call" => (200, json!({"result": returned(&"ab".repeat(32))}).to_string()),
        _ => (200, json!({"result": {"hash": hash, "number": "0x0", "timestamp": "0x0"}}).to_string()),
    })
    .await
}

/// `loader --json -vvv` with these arguments, which reads the contract through this endpoint.
fn through(home: &Home, parrot: &Parrot, args: &[&str]) -> Process {
    let address = parrot.address();
    let mut command = home.command(["--json", "-vvv"]);
    command.args(args).args(["--contract", CONTRACT, "--rpc-header", &format!("{address} {HEADER}")]);
    command.args(["--rpc-url", &format!("http://{USER}@{address}/{PATH}")]).env("RUST_LOG", "trace");
    Process::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_shows_no_key_that_an_endpoint_repeats() {
    let bodies = [
        said(),
        json!({"result": said()}).to_string(),
        json!({"result": {"hash": said(), "number": said()}}).to_string(),
        json!({"error": {"code": -32000, "message": said()}}).to_string(),
        json!({"error": {"code": 3, "message": "execution reverted", "data": said()}}).to_string(),
        json!({"result": returned(&said())}).to_string(),
        json!({said(): said()}).to_string(),
        json!({"result": said().repeat(5_000)}).to_string(),
    ];
    for (method, status) in [("eth", 200), ("eth_call", 200), ("eth", 403), ("eth", 404)] {
        for body in &bodies {
            let (home, parrot) = (Home::new(), parrot(method, status, body.clone()).await);
            let outcome = through(&home, &parrot, &["fetch"]).outcome().await;
            assert_ne!(outcome.status, Some(0), "{outcome:?}");
            assert_clean(&outcome.stdout);
            assert_clean(&outcome.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_and_its_status_show_no_key_and_stay_short() {
    for (method, body) in [
        ("eth", json!({"result": said()}).to_string()),
        ("eth_call", json!({"result": returned(&said())}).to_string()),
        ("eth_call", json!({"result": ["x".repeat(1_900_000)]}).to_string()),
        ("eth_chainId", json!({"result": "\u{1b}".repeat(300_000)}).to_string()),
    ] {
        let (home, parrot) = (Home::new(), parrot(method, 200, body).await);
        let hints = format!("ws://{USER}@{}/{PATH}", parrot.address());
        let mut watching = through(
            &home,
            &parrot,
            &["watch", "--poll-interval", "50ms", "--ws-url", &hints, "--listen", "/ip4/127.0.0.1/tcp/0"],
        );
        watching.says("no model yet").await;
        watching.says("no hints from this WebSocket").await;
        let status = home.run(["status"]).await.expect(0);
        assert_clean(&status.stdout);
        assert!(status.stdout.len() < 10_000, "{}", status.stdout);
        assert_clean(&home.plain(["status"]).await.expect(0).stdout);
        watching.terminate().await;
        let outcome = watching.outcome().await.expect(0);
        assert_clean(&outcome.stderr);
        assert_clean(&outcome.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_v_a_failing_poll_is_told_once_and_briefly() {
    let (home, parrot) =
        (Home::new(), parrot("eth", 200, json!({"result": "x".repeat(1_900_000)}).to_string()).await);
    let url = format!("http://{}/", parrot.address());
    let line = ["fetch", "--contract", CONTRACT, "--rpc-url", &url];
    let outcome = home.run(line).await.expect(4);
    assert!(outcome.stderr.len() + outcome.stdout.len() < 4_000, "{outcome:?}");
}

fn assert_refused(outcome: Outcome, secret: &str) -> String {
    let outcome = outcome.expect(2);
    let told = outcome.stdout + &outcome.stderr;
    assert!(!told.contains(secret), "{told}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_wrong_place_is_refused_without_being_repeated() {
    let (home, hex) = (Home::new(), "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
    put(&home.path("model"), b"weights");
    let publish = [
        "publish",
        "model",
        "--model-kind",
        "simplenet",
        "--price",
        "0",
        "--contract",
        CONTRACT,
        "--rpc-url",
        "http://127.0.0.1:1",
    ];
    for more in [
        &["--private-key-env", hex][..],
        &["--private-key-env", &format!("0x{hex}")],
        &["--keystore", hex],
        &["--keystore", "model", "--password-file", &format!("{hex} and more")],
        &["--psk-file", hex, "--serve", "--private-key-env", "HOME"],
        &["--max-fee", &format!("0x{hex}")],
        &[&format!("--private-key={hex}")],
    ] {
        for json in [&["--json", "-vvv"][..], &[]] {
            let line = json.iter().chain(&publish).chain(more);
            assert_refused(home.plain(line).await, &hex[..12]);
        }
    }
    for (variable, value) in [
        ("LOADER_CONTRACT", "https://h/v3/secretkey"),
        ("LOADER_PEER", "https://h/v3/secretkey"),
        ("LOADER_CHAIN_ID", "secretkey0123456789abcdef"),
        ("LOADER_QUORUM", "https://user:secretkey@h"),
        ("LOADER_RPC_URL", "wss://h/secretkey"),
        ("LOADER_RPC_HEADER", "secretkey"),
        ("LOADER_TRUSTED_RPC", "h/secretkey"),
        ("LOADER_POLL_INTERVAL", "https://h/secretkey"),
        ("LOADER_WS_URL", "https://h/secretkey"),
    ] {
        let mut command = home.command(["--json", "-vvv", "watch"]);
        command
            .env("LOADER_CONTRACT", CONTRACT)
            .env("LOADER_RPC_URL", "http://127.0.0.1:1")
            .env(variable, value);
        assert_refused(Process::start(command).outcome().await, "secretkey");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_settings_file_is_told_by_its_place() {
    let home = Home::new();
    for (text, part) in [
        ("wait = '1s'\nrpc-url = https://h/v3/secretkey\n", "line 2"),
        ("rpc-url = 'wss://h/v3/secretkey'\n", "line 1, column 11, rpc-url: expected URL"),
        ("[fetch]\nrpc-url = ['https://h', true]\n", "line 2, column 25, rpc-url: expected URL"),
        ("rpc-url = ['https://h/v3/secretkey]\n", "line 1"),
        ("https://h/v3/secretkey\n", "line 1"),
        ("\"secretkey\" = 1\n", "line 1, column 1: there is no such setting"),
        ("wait = 'secretkey'\n", "line 1, column 8, wait: expected"),
    ] {
        put(&home.path("settings.toml"), text.as_bytes());
        for line in [&["--json", "-vvv"][..], &[]] {
            let line = line.iter().chain(&["--config", "settings.toml", "cache", "path"]);
            let told = assert_refused(home.plain(line).await, "secretkey");
            assert!(told.contains("settings.toml") && told.contains(part), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_are_shown_without_keys() {
    let home = Home::new();
    let hex = "ab".repeat(32);
    let text = format!(
        "rpc-url = 'https://user:secretkey@h:1/v3/secretkey'\nrpc-header = 'h:1 X-Key: secretkey'\n\
         trusted-rpc = 'http://t/secretkey'\nexec = 'curl https://h/secretkey'\nkeystore = '{hex}'\n"
    );
    put(&home.path("settings.toml"), text.as_bytes());
    for command in ["", "watch", "publish", "watch --ws-url wss://w/secretkey"] {
        let line = ["--config", "settings.toml", "config", "show"];
        let outcome = home.plain(line.into_iter().chain(command.split_whitespace())).await.expect(0);
        let told = outcome.stdout + &outcome.stderr;
        assert!(!told.contains("secretkey") && !told.contains("abab"), "{told}");
        assert!(told.contains("h:1  (file settings.toml:1)"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_secrets_that_others_can_read_are_refused() {
    let home = Home::new();
    let set_mode =
        |name: &str, mode| std::fs::set_permissions(home.path(name), Permissions::from_mode(mode)).unwrap();
    put(&home.path("password"), b"hunter2\n");
    let new = ["key", "new", "--keystore", "key.json", "--password-file", "password"];
    for mode in [0o644, 0o640] {
        set_mode("password", mode);
        let told = assert_refused(home.run(new).await, "hunter2");
        assert!(told.contains("chmod 600") && !home.path("key.json").exists(), "{told}");
    }
    set_mode("password", 0o600);
    let made = home.run(new).await.answer();
    // A pipe has no mode that matters.
    let mut shell = tokio::process::Command::new("bash");
    let line = "\"$0\" key show --keystore key.json --password-file <(echo hunter2)";
    shell.args(["-c", line]).arg(home.command([""; 0]).as_std().get_program()).current_dir(home.path(""));
    let shown = Process::start(shell).outcome().await.expect(0).stdout;
    assert_eq!(shown.trim_end(), made["address"]);

    put(
        &home.path("swarm.key"),
        format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "ab".repeat(32)).as_bytes(),
    );
    set_mode("swarm.key", 0o644);
    let digest = "0".repeat(64);
    let fetch = ["fetch", "--manifest", &digest, "--wait", "1ms", "--psk-file", "swarm.key"];
    let told = assert_refused(home.run(fetch).await, "abab");
    assert!(told.contains("swarm.key") && told.contains("chmod 600"), "{told}");
    set_mode("swarm.key", 0o600);
    home.run(fetch).await.expect(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_no_variable_that_may_hold_a_key() {
    let (model, chain, home) = (Recipe::default().publish().await, Chain::start().await, Home::new());
    let peer = Peer::start(model.conduct()).await;
    chain.set(&model.id).await;
    let url = chain.devnet().rpc_url_text();
    let host = chain.devnet().rpc_url().to_string();
    let mut command = home.command(["--json", "watch", "--exec", "env; echo that is all"]);
    command
        .args(["--peer", peer.address()])
        .env("LOADER_CONTRACT", chain.contract())
        .env("LOADER_RPC_URL", format!("{url}?key=secretkey"))
        .env("LOADER_RPC_HEADER", format!("{host} X-Key: secretkey"))
        .env("LOADER_TRUSTED_RPC", format!("{url}?key=secretkey"))
        .env("LOADER_WS_URL", format!("ws://{host}/?key=secretkey"))
        .env("LOADER_KEYSTORE_PASSWORD", "secretkey");
    let mut watching = Process::start(command);
    watching.says("that is all").await;
    watching.terminate().await;
    let told = watching.outcome().await.expect(0).stderr;
    assert!(told.contains("LOADER_WEIGHTS=") && told.contains("LOADER_CONTRACT="), "{told}");
    assert!(!told.contains("secretkey"), "{told}");
}
