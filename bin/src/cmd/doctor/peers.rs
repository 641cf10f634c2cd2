//! The peers that are named: whether they can be reached, and what they are; and whether they reach this machine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use manifest::{Digest, Have};
use p2p_blob::{Blob, Client, Identity, Introduction, Multiaddr, PeerId, Store};
use tokio::time::{Instant, interval, timeout, timeout_at};

use super::finding::{bad, ok, warning};
use crate::answer::Checked;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// For what a connected peer says of itself, and its answer to a ping.
const INTRODUCE: Duration = Duration::from_secs(5);
/// For peers that try to reach this machine: they are asked every five seconds.
const REACH: Duration = Duration::from_secs(12);
/// How often it is looked whether something has come.
const LOOK: Duration = Duration::from_millis(20);
/// What a peer speaks that can try.
const TRIES: &str = "/libp2p/autonat/2/dial-request";

/// Has nothing to serve.
struct Nothing;

impl Store for Nothing {
    fn open(&self, _: Option<&Digest>, _: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        Ok(None)
    }

    fn have(&self, _: &Digest, _: u64) -> io::Result<Option<Have>> {
        Ok(None)
    }
}

/// A node that has nothing asks each of them; it listens where the real one will, if it may.
pub(super) async fn checks(config: &node::Config, listens: bool) -> Vec<Checked> {
    let peers: Vec<&Multiaddr> = config.peers().iter().chain(config.bootstrap()).collect();
    if peers.is_empty() {
        let advice = "name one (--peer, --bootstrap)";
        let text =
            "none is named: only those of the local network, of the DHT, and of earlier runs are found";
        return vec![warning("peer", None, text, advice)];
    }
    let network = config.network(Identity::ephemeral()).with_mdns(false);
    let network = if listens { network } else { network.with_listen(Vec::new()) };
    let client = match p2p_blob::start(network, Arc::new(Nothing)) {
        Ok((client, _)) => client,
        Err(error) => {
            let text = format!("{:#}", anyhow::Error::from(error));
            return vec![bad("network", None, text, "correct what it names")];
        }
    };
    let started = Instant::now();
    let (mut found, mut can_try) = (Vec::new(), false);
    for (checked, told) in join_all(peers.iter().map(|addr| of_peer(&client, addr))).await {
        can_try |= told.is_some_and(|told| told.protocols.iter().any(|name| name == TRIES));
        found.push(checked);
    }
    if listens && can_try {
        found.push(reached(&client, started + REACH).await);
    }
    client.shutdown().await;
    found
}

async fn of_peer(client: &Client, addr: &Multiaddr) -> (Checked, Option<Introduction>) {
    let subject = || Some(addr.to_string());
    let connected = timeout(CONNECT, client.connect(addr.clone())).await;
    let peer = match connected {
        Ok(Ok(peer)) => peer,
        Ok(Err(error)) => {
            let text = format!("{:#}", anyhow::Error::from(error));
            let advice = "check the address, and whether a firewall lets it pass";
            return (bad("peer", subject(), text, advice), None);
        }
        Err(_) => {
            let text = "it does not answer";
            return (bad("peer", subject(), text, "check whether it runs, and the firewalls between"), None);
        }
    };
    let Some(told) = introduction(client, &peer).await else {
        let advice = "see what runs there: a node says at once what it speaks";
        return (bad("peer", subject(), format!("{peer} does not say what it is"), advice), None);
    };
    let security = if told.is_tls { "TLS" } else { "noise" };
    let round_trip = told.round_trip.map_or(String::new(), |time| format!(", {} ms", time.as_millis()));
    let text = format!("{peer} ({}), over {} with {security}{round_trip}", told.agent, told.transport.name());
    match told.has_blobs {
        true => (ok("peer", subject(), text), Some(told)),
        false => {
            let text = format!("{text}: it speaks no version of the blob protocol");
            let advice = "it may be of use with --bootstrap only, for the DHT";
            (warning("peer", subject(), text, advice), Some(told))
        }
    }
}

/// What the peer tells of itself, with its round trip if that comes in time.
async fn introduction(client: &Client, peer: &PeerId) -> Option<Introduction> {
    let mut looks = interval(LOOK);
    let whole = async {
        loop {
            looks.tick().await;
            if client.introduction(peer).is_some_and(|told| told.round_trip.is_some()) {
                return;
            }
        }
    };
    // Without a round trip, it is told all the same.
    let _ = timeout(INTRODUCE, whole).await;
    client.introduction(peer)
}

/// Whether a peer has reached this machine.
async fn reached(client: &Client, until: Instant) -> Checked {
    let mut looks = interval(LOOK);
    let tried = async {
        loop {
            looks.tick().await;
            if let Some((addr, _)) = client.tried_addrs().into_iter().find(|(_, is_reached)| *is_reached) {
                return addr;
            }
        }
    };
    if let Ok(addr) = timeout_at(until, tried).await {
        return ok("outside", None, format!("a peer reaches this machine at {addr}"));
    }
    let tried = client.tried_addrs();
    match tried.first() {
        Some((addr, _)) => {
            let text = format!("peers have tried {addr}, and could not reach this machine");
            let advice =
                "open the port in the firewall, or forward it; a machine that only fetches needs none";
            warning("outside", None, text, advice)
        }
        None => ok("outside", None, "no peer has tried to reach this machine"),
    }
}
