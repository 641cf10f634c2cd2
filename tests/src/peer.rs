//! Peers in the test's own process, which misbehave as it wants. Their sockets are real.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use manifest::{Digest, Have};
use p2p_blob::{Blob, Client, Config, Identity, ReadOutcome, Store, Task, Versions};

use crate::{Gate, PIECE_BYTES, TCP, soon};

/// What a peer has, and how it behaves. [`Model::conduct`](crate::Model::conduct) makes honest ones.
#[derive(Debug, Clone)]
pub struct Conduct {
    /// What it answers with when it is asked for a digest: a liar's bytes have another.
    pub blobs: HashMap<Digest, Arc<Vec<u8>>>,
    /// Blobs whose reads pass its gate.
    pub gated: HashSet<Digest>,
    /// So many pieces of each of those, whichever are asked for first, are sent whatever became of the gate.
    pub free_pieces: usize,
    /// How much of those it sends before its gate must be opened.
    pub limit_bytes: u64,
    /// Which protocols it speaks.
    pub versions: Versions,
}

impl Conduct {
    /// Sends these, without a gate, whether or not they have the digests.
    #[must_use]
    pub fn sending(blobs: HashMap<Digest, Arc<Vec<u8>>>) -> Self {
        Self { blobs, gated: HashSet::new(), free_pieces: 0, limit_bytes: u64::MAX, versions: Versions::Both }
    }

    /// Flips a bit in each piece of these blobs.
    #[must_use]
    pub fn lying_about(mut self, blobs: impl IntoIterator<Item = Digest>) -> Self {
        for blob in blobs {
            if let Some(bytes) = self.blobs.get_mut(&blob) {
                Arc::make_mut(bytes).iter_mut().step_by(PIECE_BYTES).for_each(|byte| *byte ^= 1);
            }
        }
        self
    }

    /// Lets only so many bytes of shards pass before the gate is opened.
    #[must_use]
    pub fn stopping_after(mut self, limit_bytes: u64) -> Self {
        self.limit_bytes = limit_bytes;
        self
    }

    /// Lets so many pieces of each shard pass, any number of times, and no others before the gate is opened.
    #[must_use]
    pub fn stopping_after_pieces(mut self, pieces: usize) -> Self {
        (self.free_pieces, self.limit_bytes) = (pieces, 0);
        self
    }

    /// Has everything it sends pass the gate, the manifest too.
    #[must_use]
    pub fn gating_everything(mut self) -> Self {
        self.gated = self.blobs.keys().copied().collect();
        self
    }

    /// Speaks protocol 1.0.0 only.
    #[must_use]
    pub fn speaking_1_0_0(mut self) -> Self {
        self.versions = Versions::OnlyBlobs;
        self
    }
}

/// A peer that is up until it is dropped.
#[derive(Debug)]
pub struct Peer {
    client: Client,
    task: Task,
    gate: Arc<Gate>,
    address: String,
}

impl Peer {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(conduct: Conduct) -> Self {
        let gate = Arc::new(Gate::new(conduct.limit_bytes));
        let config = Config::new(Identity::ephemeral())
            .with_listen(vec![TCP.parse().unwrap()])
            .with_versions(conduct.versions);
        let Conduct { blobs, gated, free_pieces, .. } = conduct;
        let sent = Mutex::default();
        let store = Arc::new(Blobs { blobs, gated, free_pieces, sent, gate: Arc::clone(&gate) });
        let (client, task) = p2p_blob::start(config, store).unwrap();
        let mut addresses = client.listen_addrs();
        let listening = addresses.wait_for(|addresses| !addresses.is_empty());
        let address = soon("an address", listening).await.unwrap()[0].to_string();
        Self { client, task, gate, address }
    }

    /// Where others find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its name in reports.
    pub fn id(&self) -> String {
        self.client.peer_id().to_string()
    }

    /// What holds up its answers.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
        // The runtime waits for threads that stand at the gate.
        self.gate.open();
    }
}

struct Blobs {
    blobs: HashMap<Digest, Arc<Vec<u8>>>,
    gated: HashSet<Digest>,
    free_pieces: usize,
    /// The free pieces of each gated blob that were asked for.
    sent: Mutex<HashMap<Digest, Free>>,
    gate: Arc<Gate>,
}

/// The pieces of one blob that pass.
type Free = Arc<Mutex<HashSet<usize>>>;

impl Store for Blobs {
    fn open(&self, _: Option<&Digest>, blob: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        let gate = || self.gated.contains(blob).then(|| Arc::clone(&self.gate));
        let sent = || Arc::clone(self.sent.lock().unwrap().entry(*blob).or_default());
        let free_pieces = self.free_pieces;
        let held = |bytes: &Arc<Vec<u8>>| {
            Arc::new(Held { bytes: Arc::clone(bytes), free_pieces, sent: sent(), gate: gate() })
        };
        Ok(self.blobs.get(blob).map(held).map(|held| held as Arc<dyn Blob>))
    }

    /// It does not say what it has: it is asked.
    fn have(&self, _: &Digest, _: u64) -> io::Result<Option<Have>> {
        Ok(None)
    }
}

struct Held {
    bytes: Arc<Vec<u8>>,
    free_pieces: usize,
    sent: Free,
    gate: Option<Arc<Gate>>,
}

impl Held {
    /// Whether all pieces that these bytes are of pass.
    fn is_free(&self, start: usize, bytes: usize) -> bool {
        let mut sent = self.sent.lock().unwrap();
        (start / PIECE_BYTES..(start + bytes).div_ceil(PIECE_BYTES))
            .all(|piece| sent.contains(&piece) || (sent.len() < self.free_pieces && sent.insert(piece)))
    }
}

impl Blob for Held {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        if let Some(gate) = self.gate.as_ref().filter(|_| !self.is_free(start, buf.len())) {
            gate.pass(buf.len() as u64);
        }
        let bytes = self.bytes.get(start..start + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(ReadOutcome::Held)
    }
}
