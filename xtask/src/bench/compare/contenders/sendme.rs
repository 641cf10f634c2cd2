//! sendme: iroh-blobs from one peer to another.

use anyhow::Result;

use super::{Contender, FILE, Ground, version};
use crate::bench::process::{Service, command};

pub(super) fn start(ground: &Ground) -> Result<Contender> {
    let version = version("sendme", &["--version"], "`cargo install sendme --locked`")?;
    let dir = ground.seed_dir("sendme")?;
    let mut send = command(&dir, "sendme");
    send.args(["send", "--relay", "disabled"]).arg(&ground.source);
    let service = Service::start(send, &ground.log("sendme"))?;
    let ticket = service.wait_for(ground.limit, |line| {
        line.trim().strip_prefix("sendme receive ").map(|ticket| ticket.trim().to_owned())
    })?;
    let mut fetch = command(&ground.out, "sendme");
    fetch.args(["receive", "--relay", "disabled", &ticket]);
    Ok(Contender {
        name: "sendme",
        version,
        seeders: [service].into(),
        fetch: vec![fetch],
        output: ground.out.join(FILE),
        is_durable: false,
    })
}
