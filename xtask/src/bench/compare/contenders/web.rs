//! curl from nginx, and a hash of the file afterwards.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Contender, FILE, Ground, free_port, version};
use crate::bench::files::save;
use crate::bench::process::{Service, command};

const START: Duration = Duration::from_secs(10);

pub(super) fn start(ground: &Ground) -> Result<Contender> {
    let versions = [
        version("curl", &["--version"], "`apt install curl`")?,
        version("nginx", &["-v"], "`apt install nginx-light`")?,
        version("openssl", &["version"], "`apt install openssl`")?,
    ];
    let dir = ground.seed_dir("nginx")?;
    let port = free_port()?;
    let root = ground.source.parent().context("the source has no directory")?;
    let settings = dir.join("nginx.conf");
    save(&settings, &configuration(port, &root.display().to_string()))?;
    let mut nginx = command(&dir, "nginx");
    nginx.arg("-p").arg(&dir).arg("-c").arg(&settings).args(["-e", "stderr"]);
    let service = Service::start(nginx, &ground.log("nginx"))?;
    wait_until_listening(port)?;

    let mut curl = command(&ground.out, "curl");
    curl.args(["--silent", "--show-error", "--fail", "--output", FILE]);
    curl.arg(format!("http://127.0.0.1:{port}/{FILE}"));
    let mut openssl = command(&ground.out, "openssl");
    openssl.args(["dgst", "-sha256", FILE]);
    Ok(Contender {
        name: "curl",
        version: versions.join("; "),
        seeders: [service].into(),
        fetch: vec![curl, openssl],
        output: ground.out.join(FILE),
        is_durable: false,
    })
}

/// nginx does not say when it listens.
fn wait_until_listening(port: u16) -> Result<()> {
    let until = Instant::now() + START;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => return Ok(()),
            Err(_) if Instant::now() < until => sleep(Duration::from_millis(10)),
            Err(error) => return Err(error).context("nginx does not listen"),
        }
    }
}

/// One process, which is worker and master: it can be ended and measured like any other. Otherwise as distributions
/// configure it, but in directories that need no rights.
fn configuration(port: u16, root: &str) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.iter().map(|kind| format!("  {kind}_temp_path {kind};\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         sendfile on;\n  tcp_nopush on;\n{temporary}  server {{ listen 127.0.0.1:{port}; root \"{root}\"; }}\n}}\n"
    )
}
