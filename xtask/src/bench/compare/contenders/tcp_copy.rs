//! The floor: a file sent over TCP and written, and nothing else. Nothing is verified.

use anyhow::Result;

use super::{Contender, FILE, Ground};
use crate::bench::helper::{RECEIVE, SEND};
use crate::bench::process::{Service, ours};

pub(super) fn start(ground: &Ground) -> Result<Contender> {
    let mut send = ours(&ground.seed_dir("tcp-copy")?, SEND);
    send.arg(&ground.source);
    let service = Service::start(send, &ground.log("tcp-copy"))?;
    let address = service.wait_for(ground.limit, |line| Some(line.to_owned()))?;
    let mut receive = ours(&ground.out, RECEIVE);
    receive.args([&address, FILE]);
    Ok(Contender {
        name: "tcp-copy",
        version: concat!("xtask ", env!("CARGO_PKG_VERSION")).into(),
        seeders: [service].into(),
        fetch: vec![receive],
        output: ground.out.join(FILE),
        is_durable: false,
    })
}
