//! A connection that is dead beside one that is alive: it is closed, so that what waits on it is asked for elsewhere.
//!
//! A broken path shows by nothing but silence, and a peer that has no place for a request is silent, too. So both
//! connections are asked something that any peer answers at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join;
use manifest::Digest;
use p2p_blob::{Client, Connection, FetchError, PeerId, Session};
use tokio::time::timeout;

use crate::peer::{Carried, Peer};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);
/// Requests wait on a connection, and nothing has come for so long: is it dead?
const SILENCE: Duration = Duration::from_millis(750);
/// How long an answer may take, at least; over a long way it is so many round trips.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_ROUND_TRIPS: u32 = 4;

/// How often it is asked in a row: an answer may stand behind what is sent on a slow line.
const QUESTIONS: usize = 2;

/// Watches the connections with a peer; never returns.
pub(super) async fn watch(client: &Client, peer: &Peer, id: PeerId) {
    let mut watched = Watched::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let carried = peer.carried();
        for silent in watched.silent(&carried, Instant::now()) {
            let Some(other) = carried.keys().find(|other| **other != silent) else { break };
            let patience = peer.far().map_or(PATIENCE, |far| PATIENCE.max(PATIENCE_ROUND_TRIPS * far));
            if is_dead(client, id, silent, *other, patience).await {
                tracing::debug!(peer = %id, "one of its connections is dead, and is closed");
                client.abandon(silent).await;
            }
        }
    }
}

/// Whether only the other connection answers, again and again.
async fn is_dead(
    client: &Client,
    peer: PeerId,
    silent: Connection,
    other: Connection,
    patience: Duration,
) -> bool {
    for _ in 0..QUESTIONS {
        let answers = |connection| timeout(patience, ask(client, peer, connection));
        // Refusals, and connections that are closed already, show by their answers, too.
        if !matches!(join(answers(silent), answers(other)).await, (Err(_), Ok(Ok(())))) {
            return false;
        }
    }
    true
}

/// Asks for holders of what nobody holds: the answer is short.
async fn ask(client: &Client, peer: PeerId, connection: Connection) -> Result<(), FetchError> {
    match client.open_on(peer, connection).await? {
        Session::Ranges(session) => session.peers(Digest::ZERO).await.map(drop),
        Session::Blobs(_) => Ok(()),
    }
}

/// What connections had carried, and since when it is no more.
#[derive(Default)]
struct Watched(HashMap<Connection, (u64, Instant)>);

impl Watched {
    /// The connections on which requests have waited for [`SILENCE`]. Each is named again after as long.
    fn silent(&mut self, carried: &HashMap<Connection, Carried>, now: Instant) -> Vec<Connection> {
        self.0.retain(|connection, _| carried.contains_key(connection));
        let mut silent = Vec::new();
        for (connection, Carried { bytes, is_busy }) in carried {
            let (before_bytes, since) = self.0.entry(*connection).or_insert((*bytes, now));
            let is_silent = *is_busy && *bytes == *before_bytes;
            if is_silent && now.saturating_duration_since(*since) < SILENCE {
                continue;
            }
            if is_silent {
                silent.push(*connection);
            }
            (*before_bytes, *since) = (*bytes, now);
        }
        silent
    }
}
