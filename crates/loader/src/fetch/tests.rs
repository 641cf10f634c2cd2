//! Loads that are dropped on the only thread of a runtime, in each phase, while other threads are stuck at their work.
//! Whoever waited for those would never return.

use std::pin::pin;
use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, select};
use manifest::{ByteRange, Codec, Have, SourceId};
use store::Offer;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::encode::Published;
use crate::encode::tests::{options, publish_bytes, sample};
use crate::source::{BlobStream, RangeRead, Source, SourceError};

const SIZE: usize = 600_001;

/// Has every blob of a model, and counts what it is asked for.
pub(crate) struct Shelf {
    id: SourceId,
    blobs: HashMap<Digest, Vec<u8>>,
    /// A blob that it never sends.
    kept_back: Option<Digest>,
    /// Bytes of each shard that it sends only once it may.
    pub(crate) gate: Option<(ByteRange, watch::Receiver<bool>)>,
    asked: watch::Sender<usize>,
}

impl Shelf {
    pub(crate) fn of(published: &Published) -> Self {
        let mut blobs = HashMap::from([(published.digest, published.manifest.to_json())]);
        for (shard, entry) in (0..).zip(published.manifest.shards()) {
            let held = published.model.shard(shard).unwrap().unwrap();
            let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
            held.read_at(0, &mut bytes).unwrap();
            blobs.insert(entry.digest, bytes);
        }
        let index = published.manifest.pieces().unwrap().index;
        blobs.insert(index, std::fs::read(published.model.dir().join("pieces")).unwrap());
        Self {
            id: SourceId::new("shelf"),
            blobs,
            kept_back: None,
            gate: None,
            asked: watch::Sender::default(),
        }
    }

    async fn blob(&self, digest: &Digest) -> &[u8] {
        self.asked.send_modify(|asked| *asked += 1);
        if self.kept_back == Some(*digest) {
            std::future::pending::<()>().await;
        }
        &self.blobs[digest]
    }
}

impl Source for Shelf {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn serves_ranges(&self) -> bool {
        true
    }

    fn read(&self, read: RangeRead, mut buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            if let Some((gated, may)) = &self.gate
                && read.range.start < gated.end
                && gated.start < read.range.end
            {
                may.clone().wait_for(|may| *may).await.unwrap();
            }
            let range = usize::try_from(read.range.start).unwrap()..usize::try_from(read.range.end).unwrap();
            buf.copy_from_slice(&self.blob(&read.blob).await[range]);
            Ok(buf)
        }
        .boxed()
    }

    fn open(&self, _: Digest, _: u64) -> BoxFuture<'_, Result<Box<dyn BlobStream>, SourceError>> {
        unreachable!("it serves ranges")
    }

    fn read_blob(&self, blob: Digest, _: u64) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move { Ok(self.blob(&blob).await.to_vec()) }.boxed()
    }

    fn blob_size(&self, _: Digest) -> BoxFuture<'_, Result<u64, SourceError>> {
        unreachable!("it is known")
    }

    fn have(&self, _: Digest, _: Arc<[u32]>, _: u64) -> BoxFuture<'_, Result<Option<Have>, SourceError>> {
        async move { Ok(None) }.boxed()
    }

    fn is_far(&self) -> bool {
        true
    }

    fn received_bytes(&self) -> u64 {
        0
    }
}

/// Notes which phases have begun.
#[derive(Default)]
struct Phases {
    seen: watch::Sender<Vec<&'static str>>,
    offer: Mutex<Option<Arc<Offer>>>,
}

impl Observer for Phases {
    fn on_event(&self, event: &Event<'_>) {
        let phase = match event {
            Event::Waiting { .. } => "waiting",
            Event::Filling { offer } => {
                *self.offer.lock().unwrap() = Some(Arc::clone(offer));
                "filling"
            }
            Event::Claimed { .. } => "claimed",
            Event::PieceFetched { .. } => "fetched",
            Event::Finishing => "finishing",
            _ => return,
        };
        self.seen.send_modify(|seen| seen.push(phase));
    }
}

impl Phases {
    async fn reach(&self, phase: &str) {
        self.seen.subscribe().wait_for(|seen| seen.contains(&phase)).await.unwrap();
    }
}

struct World {
    _publisher: TempDir,
    published: Published,
    _dir: TempDir,
    cache: Cache,
}

impl World {
    fn new() -> Self {
        let (publisher, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = Cache::open(publisher.path()).unwrap();
        let published = publish_bytes(&from, &sample(SIZE, 1), &options(3, 2, Codec::Rs));
        let cache = Cache::open(dir.path()).unwrap();
        Self { _publisher: publisher, published, _dir: dir, cache }
    }

    fn shelf(&self) -> Arc<Shelf> {
        Arc::new(Shelf::of(&self.published))
    }

    /// One that never sends this blob.
    fn shelf_without(&self, blob: Digest) -> Arc<Shelf> {
        Arc::new(Shelf { kept_back: Some(blob), ..Shelf::of(&self.published) })
    }

    async fn load(&self, shelf: &Arc<Shelf>, phases: &Phases) -> Result<Model, LoadError> {
        let (events, receiver) = mpsc::channel(1);
        events.send(SourceEvent::Up(Arc::<Shelf>::clone(shelf))).await.ok().unwrap();
        let options = FetchOptions::default().with_threads(2).with_memory_bytes(1 << 20);
        load(&self.cache, self.published.digest, receiver, &options, phases).await.map(|(model, _)| model)
    }

    /// Loads until `reached`, and drops the load then. From "filling" on, what is verified cannot be noted.
    async fn drop_at(&self, shelf: &Arc<Shelf>, is_stuck: bool, reached: impl AsyncFnOnce(&Phases)) {
        let phases = Phases::default();
        let mut load = Box::pin(self.load(shelf, &phases));
        let mut held = None;
        if is_stuck {
            until(&mut load, phases.reach("filling")).await;
            let offer = phases.offer.lock().unwrap().clone().unwrap();
            held = Some(offer);
        }
        let held = held.as_ref().map(|offer| offer.hold());
        until(&mut load, reached(&phases)).await;
        drop(load);
        drop(held);
    }

    /// What was dropped does no harm to those who come later.
    async fn is_loadable(&self) {
        let model = self.load(&self.shelf(), &Phases::default()).await.unwrap();
        assert!(model.weights().unwrap().as_ref() == sample(SIZE, 1));
    }
}

/// Goes on with the load until the other one is done.
async fn until(
    load: &mut (impl Future<Output = Result<Model, LoadError>> + Unpin),
    other: impl Future<Output = ()>,
) {
    if let Either::Left((loaded, _)) = select(load, pin!(other)).await {
        panic!("it ended: {loaded:?}");
    }
}

async fn asked(shelf: &Shelf, times: usize) {
    shelf.asked.subscribe().wait_for(|asked| *asked >= times).await.unwrap();
}

#[tokio::test]
async fn a_load_is_dropped_while_the_manifest_or_the_index_is_looked_for() {
    let world = World::new();
    let shelf = world.shelf_without(world.published.digest);
    world.drop_at(&shelf, false, async |_| asked(&shelf, 1).await).await;
    let shelf = world.shelf_without(world.published.manifest.pieces().unwrap().index);
    world.drop_at(&shelf, false, async |_| asked(&shelf, 2).await).await;
    world.is_loadable().await;
}

#[tokio::test]
async fn a_load_is_dropped_while_another_fills_the_model() {
    let world = World::new();
    let lock = world.cache.lock_fill(&world.published.digest).unwrap();
    world.drop_at(&world.shelf(), false, async |phases| phases.reach("waiting").await).await;
    drop(lock);
    world.is_loadable().await;
}

#[tokio::test]
async fn a_load_is_dropped_while_pieces_are_checked() {
    let world = World::new();
    let shelf = world.shelf();
    // After the manifest and the index, one piece: a source that has not given any gets no more.
    world.drop_at(&shelf, true, async |_| asked(&shelf, 2 + 1).await).await;
    world.is_loadable().await;
}

#[tokio::test]
async fn a_load_is_dropped_while_what_was_left_of_another_is_hashed() {
    let world = World::new();
    let shelf = world.shelf();
    world.drop_at(&shelf, false, async |phases| phases.reach("fetched").await).await;
    world.drop_at(&shelf, true, async |phases| phases.reach("claimed").await).await;
    world.is_loadable().await;
}

#[tokio::test]
async fn a_load_is_dropped_while_bytes_of_another_model_are_copied() {
    let world = World::new();
    let other = publish_bytes(&world.cache, &sample(SIZE, 1), &options(4, 1, Codec::Rs));
    assert_ne!(other.digest, world.published.digest);
    // Nothing tells when it has begun: it is the next thing that the load does.
    let reached = async |_: &Phases| {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    world.drop_at(&world.shelf(), true, reached).await;
    world.is_loadable().await;
}

#[tokio::test]
async fn a_load_is_dropped_while_the_model_is_brought_to_the_disk() {
    let world = World::new();
    world.drop_at(&world.shelf(), false, async |phases| phases.reach("finishing").await).await;
    world.is_loadable().await;
}

#[tokio::test]
async fn after_the_last_event_nobody_is_being_connected_to_and_nothing_comes() {
    let (events, receiver) = mpsc::channel(1);
    let mut arrivals = Arrivals::new(receiver);
    events.send(SourceEvent::Connecting(true)).await.ok().unwrap();
    drop(events);
    assert!(matches!(arrivals.next().await, SourceEvent::Connecting(true)));
    assert!(matches!(arrivals.next().await, SourceEvent::Connecting(false)));
    // One that were ready again and again would keep a core busy.
    assert!(arrivals.next().now_or_never().is_none());
}

#[tokio::test]
async fn pieces_are_asked_for_before_the_index_has_come_and_once() {
    const PATIENCE: Duration = Duration::from_secs(10);
    let world = World::new();
    let index = world.published.manifest.pieces().unwrap().index;
    let shelf = world.shelf_without(index);
    let phases = Phases::default();
    let mut load = Box::pin(world.load(&shelf, &phases));
    let mut asked = shelf.asked.subscribe();
    // The manifest, the index, and more.
    let is_ahead = async { drop(asked.wait_for(|asked| *asked > 2).await) };
    tokio::time::timeout(PATIENCE, until(&mut load, is_ahead)).await.unwrap();
    drop(load);

    let (world, phases) = (World::new(), Phases::default());
    let shelf = world.shelf();
    let _ = world.load(&shelf, &phases).await.unwrap();
    let manifest = &world.published.manifest;
    let pieces: u32 = (0..manifest.data_shard_count()).map(|shard| manifest.piece_count(shard)).sum();
    assert_eq!(*shelf.asked.borrow(), 2 + pieces as usize, "no piece was asked for twice");
}
