//! Which blobs are here, told to the peers of the existing network: their resolvers ask only whoever has told something.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use manifest::{Digest, HaveChange, MAX_MANIFEST_BYTES, Manifest};
use p2p_blob::Client;
use store::{BlobReader, Blobs, digests_in};
use tokio::sync::watch;

/// How often it is told.
const EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether there is something, as long as there was nothing: models may still be hashed.
const RETRY: Duration = Duration::from_secs(5);
/// How often at most, when it changes.
const PAUSE: Duration = Duration::from_secs(1);
/// The most blobs that are told.
const MAX_BLOBS: usize = 4096;
/// Manifests whose parts are remembered, so that they are not parsed every minute.
const MAX_PARSED: usize = 64;

/// What is listed.
pub(crate) struct Hosted {
    blobs: Arc<Blobs>,
    /// Folders of blobs, of which a manifest need not be here.
    dirs: Arc<[PathBuf]>,
    /// The piece index and the shards of manifests.
    parts: HashMap<Digest, Parts>,
}

#[derive(Clone, Default)]
struct Parts {
    index: Option<Digest>,
    shards: Arc<[Digest]>,
}

impl Hosted {
    pub(crate) fn new(blobs: Arc<Blobs>, dirs: Arc<[PathBuf]>) -> Self {
        Self { blobs, dirs, parts: HashMap::new() }
    }

    /// Tells it, every minute and when it changes. Ends with the network task, when whoever holds it ends it.
    pub(crate) async fn advertise(mut self, client: Client, mut changed: watch::Receiver<()>) {
        let mut addrs = client.listen_addrs();
        let mut has_told = false;
        loop {
            changed.mark_unchanged();
            addrs.mark_unchanged();
            let listed = tokio::task::spawn_blocking(move || (self.list(), self)).await;
            let Ok((listed, hosted)) = listed else { return };
            self = hosted;
            match listed {
                // Who never had anything keeps silent.
                Ok(blobs) if blobs.is_empty() && !has_told => {}
                Ok(blobs) => {
                    client.advertise(&blobs).await;
                    has_told = true;
                }
                Err(error) => tracing::warn!(%error, "cannot list what is held here"),
            }
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                Ok(()) = changed.changed() => {}
                Ok(()) = addrs.changed() => {}
                () = tokio::time::sleep(if has_told { EVERY } else { RETRY } - PAUSE) => {}
            }
        }
    }

    /// The blobs that are here as a whole: manifests and single blobs first, then piece indexes and shards, then what else is in
    /// folders.
    fn list(&mut self) -> io::Result<Vec<Digest>> {
        let mut names: Vec<_> = self.blobs.names()?.into_iter().collect();
        // The same ones each time, when there are more than can be told.
        names.sort_unstable();
        names.truncate(MAX_BLOBS);
        self.parts.retain(|manifest, _| names.binary_search(manifest).is_ok());
        let mut listed = Listed::default();
        let mut manifests = Vec::new();
        for name in names {
            let Some(blob) = self.blobs.lookup(&name)? else { continue };
            listed.add(name);
            manifests.push((name, self.parts_of(&name, &blob)?));
        }
        for (_, parts) in &manifests {
            if let Some(index) = parts.index
                && self.blobs.lookup(&index)?.is_some()
            {
                listed.add(index);
            }
        }
        for (manifest, parts) in &manifests {
            if listed.is_full() {
                break;
            }
            let Some(have) = self.blobs.have(manifest, 0)? else { continue };
            let HaveChange::Holds(held) = have.change else { continue };
            let whole = parts.shards.iter().zip(held).filter(|(_, pieces)| pieces.is_all());
            whole.for_each(|(shard, _)| listed.add(*shard));
        }
        for dir in self.dirs.iter() {
            let in_dir = digests_in(dir, MAX_BLOBS).map_err(io::Error::other)?;
            in_dir.into_iter().for_each(|blob| listed.add(blob));
        }
        Ok(listed.blobs)
    }

    /// What a manifest names; nothing when it is none, but a single blob.
    fn parts_of(&mut self, digest: &Digest, blob: &BlobReader) -> io::Result<Parts> {
        if let Some(parts) = self.parts.get(digest) {
            return Ok(parts.clone());
        }
        let parts = match read(blob, MAX_MANIFEST_BYTES as u64)?.map(|bytes| Manifest::parse(&bytes)) {
            Some(Ok(manifest)) => Parts {
                index: manifest.pieces().map(|pieces| pieces.index),
                shards: manifest.shards().iter().take(MAX_BLOBS).map(|shard| shard.digest).collect(),
            },
            Some(Err(_)) | None => Parts::default(),
        };
        if self.parts.len() < MAX_PARSED {
            self.parts.insert(*digest, parts.clone());
        }
        Ok(parts)
    }
}

/// All of a blob; `None` when it has more than `max_bytes`.
pub(crate) fn read(blob: &BlobReader, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    if blob.size_bytes() > max_bytes {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(blob.size_bytes()).map_err(io::Error::other)?];
    blob.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

/// Blobs, each once, in the order in which they were added.
#[derive(Default)]
struct Listed {
    blobs: Vec<Digest>,
    known: HashSet<Digest>,
}

impl Listed {
    fn is_full(&self) -> bool {
        self.blobs.len() >= MAX_BLOBS
    }

    fn add(&mut self, blob: Digest) {
        if !self.is_full() && self.known.insert(blob) {
            self.blobs.push(blob);
        }
    }
}
