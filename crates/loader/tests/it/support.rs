//! Sources in memory, good and bad, and models to fetch from them.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use loader::encode::{Input, Options, publish};
use loader::{
    BlobStream, Event, FetchOptions, LoadError, Observer, RangeRead, Report, Silent, Source, SourceError,
    SourceEvent,
};
use manifest::{Codec, Digest, Have, Manifest, SourceId};
use store::{Cache, Model};
use tokio::sync::mpsc;

/// A published model and all its blobs.
pub(crate) struct Origin {
    pub(crate) digest: Digest,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) weights: Vec<u8>,
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
}

/// `total_bytes` that repeat nowhere.
pub(crate) fn weights(total_bytes: usize) -> Vec<u8> {
    let word = |index: u64| {
        let mixed = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_le_bytes()
    };
    (0..=total_bytes as u64 / 8).flat_map(word).take(total_bytes).collect()
}

impl Origin {
    pub(crate) fn uniform(total_bytes: usize, data: u32, parity: u32, codec: Codec, index: bool) -> Self {
        Self::of(weights(total_bytes), data, parity, codec, index)
    }

    pub(crate) fn of(bytes: Vec<u8>, data: u32, parity: u32, codec: Codec, index: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        std::fs::File::create(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
            .unwrap();
        Self::publish(dir.path(), &Input::File(path), bytes, data, parity, codec, index)
    }

    pub(crate) fn layers(sizes: &[usize], data: u32, parity: u32, codec: Codec, index: bool) -> Self {
        let bytes = weights(sizes.iter().sum());
        let mut rest = bytes.as_slice();
        let layers = sizes.iter().map(|size| rest.split_off(..*size).unwrap().to_vec());
        Self::of_layers(&layers.collect::<Vec<_>>(), data, parity, codec, index)
    }

    pub(crate) fn of_layers(layers: &[Vec<u8>], data: u32, parity: u32, codec: Codec, index: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            let path = dir.path().join(format!("layer-{number}"));
            std::fs::File::create(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, layer))
                .unwrap();
            paths.push(path);
        }
        let bytes = layers.concat();
        Self::publish(dir.path(), &Input::Layers(paths), bytes, data, parity, codec, index)
    }

    fn publish(
        dir: &Path,
        input: &Input,
        weights: Vec<u8>,
        data: u32,
        parity: u32,
        codec: Codec,
        index: bool,
    ) -> Self {
        let cache = Cache::open(&dir.join("cache")).unwrap();
        let options = Options::default()
            .with_model_kind("llm-backbone".into())
            .with_data(data)
            .with_parity(parity)
            .with_codec(codec)
            .with_piece_size_bytes(index.then_some(16 << 10));
        let published = publish(&cache, input, &options, &|_, _| {}).unwrap();
        let model = published.model;
        assert!(model.weights().unwrap().as_ref() == weights, "the published weights are those of the input");
        let mut blobs = HashMap::new();
        blobs.insert(published.digest, published.manifest.to_json());
        for (shard, entry) in (0..).zip(published.manifest.shards()) {
            if let Some(bytes) = shard_bytes(&model, shard) {
                assert_eq!(Digest::of(&bytes), entry.digest);
                blobs.insert(entry.digest, bytes);
            }
        }
        for shard in published.manifest.shards() {
            assert!(blobs.contains_key(&shard.digest), "every shard is kept by its publisher");
        }
        if let Some(pieces) = published.manifest.pieces() {
            let path = cache.dir().join(format!("models/{}/pieces", published.digest));
            blobs.insert(pieces.index, std::fs::read(path).unwrap());
        }
        Self { digest: published.digest, manifest: published.manifest, weights, blobs }
    }

    /// A source of everything but these shards.
    pub(crate) fn without(&self, shards: &[u32]) -> Memory {
        let mut blobs = self.blobs.clone();
        for shard in shards {
            blobs.remove(&self.manifest.shards()[*shard as usize].digest);
        }
        Memory { blobs, ..Memory::default() }
    }

    /// A source of everything that sends wrong bytes for every shard.
    pub(crate) fn lying(&self) -> Memory {
        let lies = self.manifest.shards().iter().map(|shard| shard.digest).collect();
        Memory { lies, ..self.without(&[]) }
    }
}

fn shard_bytes(model: &Model, shard: u32) -> Option<Vec<u8>> {
    let held = model.shard(shard).unwrap()?;
    let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
    held.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

/// A source in memory.
#[derive(Default, Clone)]
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
    /// Only whole blobs.
    pub(crate) whole: bool,
    /// Blobs that it sends with a flipped bit.
    pub(crate) lies: HashSet<Digest>,
    /// How often it is lost when it is asked for a size.
    pub(crate) losses: Arc<AtomicU64>,
    /// Blobs that it never sends, though it accepts the request.
    pub(crate) stalls: HashSet<Digest>,
}

struct MemorySource {
    id: SourceId,
    memory: Memory,
    sent_bytes: AtomicU64,
}

impl Memory {
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    pub(crate) fn up(self) -> SourceEvent {
        let id = SourceId::new(self.name.clone());
        SourceEvent::Up(Arc::new(MemorySource { id, memory: self, sent_bytes: AtomicU64::new(0) }))
    }
}

impl MemorySource {
    async fn blob(&self, digest: Digest) -> Result<Vec<u8>, SourceError> {
        let mut bytes = self.memory.blobs.get(&digest).ok_or(SourceError::NotHeld)?.clone();
        if self.memory.stalls.contains(&digest) {
            std::future::pending::<()>().await;
        }
        if self.memory.lies.contains(&digest) {
            for byte in bytes.iter_mut().step_by(1000) {
                *byte ^= 1;
            }
        }
        Ok(bytes)
    }
}

/// As the network does: whoever has it in another size has something else.
fn require_size(bytes: &[u8], size_bytes: u64) -> Result<(), SourceError> {
    match bytes.len() as u64 == size_bytes {
        true => Ok(()),
        false => Err(SourceError::Misbehaved("it has another size".into())),
    }
}

impl Source for MemorySource {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn serves_ranges(&self) -> bool {
        !self.memory.whole
    }

    fn read(&self, read: RangeRead, mut buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            tokio::task::yield_now().await;
            let bytes = self.blob(read.blob).await?;
            require_size(&bytes, read.blob_size_bytes)?;
            let (start, end) =
                (usize::try_from(read.range.start).unwrap(), usize::try_from(read.range.end).unwrap());
            buf.copy_from_slice(&bytes[start..end]);
            self.sent_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
            Ok(buf)
        }
        .boxed()
    }

    fn open(&self, blob: Digest, size: u64) -> BoxFuture<'_, Result<Box<dyn BlobStream>, SourceError>> {
        async move {
            let bytes = self.blob(blob).await?;
            require_size(&bytes, size)?;
            Ok(Box::new(MemoryStream(bytes, 0)) as Box<dyn BlobStream>)
        }
        .boxed()
    }

    fn read_blob(&self, blob: Digest, max_bytes: u64) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            let bytes = self.blob(blob).await?;
            match bytes.len() as u64 {
                claimed_bytes if claimed_bytes > max_bytes => Err(SourceError::TooLarge { claimed_bytes }),
                _ => Ok(bytes),
            }
        }
        .boxed()
    }

    fn blob_size(&self, blob: Digest) -> BoxFuture<'_, Result<u64, SourceError>> {
        let lose = |losses: u64| losses.checked_sub(1);
        let is_lost = self.memory.losses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose).is_ok();
        let held = match self.memory.blobs.get(&blob) {
            _ if is_lost => Err(SourceError::Lost("it hashes".into())),
            held => held.map(|bytes| bytes.len() as u64).ok_or(SourceError::NotHeld),
        };
        async move { held }.boxed()
    }

    fn have(&self, _: Digest, _: Arc<[u32]>, _: u64) -> BoxFuture<'_, Result<Option<Have>, SourceError>> {
        async move { Ok(None) }.boxed()
    }

    fn received_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

struct MemoryStream(Vec<u8>, usize);

impl BlobStream for MemoryStream {
    fn read_exact(&mut self, mut buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            tokio::task::yield_now().await;
            let end = self.1 + buf.len();
            buf.copy_from_slice(&self.0[self.1..end]);
            self.1 = end;
            Ok(buf)
        }
        .boxed()
    }
}

pub(crate) fn options() -> FetchOptions {
    FetchOptions::default().with_wait(Duration::from_millis(100)).with_memory_bytes(1 << 20).with_threads(2)
}

/// Loads `digest` into the cache at `dir` from these sources.
pub(crate) async fn load(
    dir: &Path,
    digest: Digest,
    sources: Vec<Memory>,
) -> Result<(Model, Report), LoadError> {
    load_with(dir, digest, sources, &options()).await
}

/// Loads into the cache at `dir` from a source that lies, and from another that comes up once that has happened.
pub(crate) async fn load_after_lies(
    dir: &Path,
    digest: Digest,
    options: FetchOptions,
    liar: &Memory,
    honest: &Memory,
) -> Report {
    let has_lied = |event: &Event<'_>| matches!(event, Event::WrongBytes { .. } | Event::ShardWrong { .. });
    load_rescued(dir, digest, options, liar, honest, has_lied).await
}

/// Loads into the cache at `dir` from one source, and from another that comes up at an event.
pub(crate) async fn load_rescued(
    dir: &Path,
    digest: Digest,
    options: FetchOptions,
    first: &Memory,
    other: &Memory,
    is_time: fn(&Event<'_>) -> bool,
) -> Report {
    let (events, receiver) = mpsc::channel(2);
    events.try_send(first.clone().up()).ok().unwrap();
    let rescue = Rescue { other: other.clone(), events: Mutex::new(Some(events)), is_time };
    let cache = Cache::open(dir).unwrap();
    let options = options.with_wait(Duration::from_secs(30));
    let loading = loader::load(&cache, digest, receiver, &options, &rescue);
    tokio::time::timeout(Duration::from_secs(30), loading).await.unwrap().unwrap().1
}

/// Lets the other source come up.
struct Rescue {
    other: Memory,
    events: Mutex<Option<mpsc::Sender<SourceEvent>>>,
    is_time: fn(&Event<'_>) -> bool,
}

impl Observer for Rescue {
    fn on_event(&self, event: &Event<'_>) {
        if (self.is_time)(event)
            && let Some(events) = self.events.lock().unwrap().take()
        {
            events.try_send(self.other.clone().up()).ok().unwrap();
        }
    }
}

pub(crate) async fn load_with(
    dir: &Path,
    digest: Digest,
    sources: Vec<Memory>,
    options: &FetchOptions,
) -> Result<(Model, Report), LoadError> {
    let cache = Cache::open(dir).unwrap();
    let (events, receiver) = mpsc::channel(sources.len() + 1);
    for source in sources {
        events.try_send(source.up()).ok().unwrap();
    }
    events.try_send(SourceEvent::Connecting(false)).ok().unwrap();
    let loading = loader::load(&cache, digest, receiver, options, &Silent);
    tokio::time::timeout(Duration::from_secs(30), loading).await.unwrap()
}
