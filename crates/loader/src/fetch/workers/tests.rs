//! The threads, stuck and panicking.

use manifest::Codec;
use store::{Cache, Offer};

use super::super::buffers::Buffers;
use super::*;
use crate::encode::tests::{options, publish_bytes, sample};

struct World {
    _dir: tempfile::TempDir,
    /// Its first piece.
    first: Vec<u8>,
    store: Arc<Partial>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = Cache::open(&dir.path().join("publisher")).unwrap();
        let published = publish_bytes(&from, &sample(300_001, 1), &options(3, 2, Codec::Rs));
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let (digest, manifest) = cache.store_manifest(&published.manifest.to_json()).unwrap();
        let store = cache
            .partial(cache.lock_fill(&digest).unwrap(), manifest::Geometry::new(manifest), true)
            .unwrap();
        store.store_index(&std::fs::read(published.model.dir().join("pieces")).unwrap()).unwrap();
        let range = store.manifest().piece_range(0, 0);
        let mut first = vec![0; usize::try_from(range.len()).unwrap()];
        published.model.shard(0).unwrap().unwrap().read_at(0, &mut first).unwrap();
        Self { _dir: dir, first, store: Arc::new(store) }
    }

    fn start(&self) -> (Workers, mpsc::Receiver<Done>) {
        let (sender, done) = mpsc::channel(16);
        let (index, geometry) = (self.store.index().unwrap(), self.store.geometry().clone());
        let store = Arc::clone(&self.store);
        (Workers::start(2, 4, Vec::new(), store, index, geometry, sender).unwrap(), done)
    }

    async fn job(&self) -> CheckJob {
        let mut buf = Buffers::new(1).take(self.first.len()).await.unwrap();
        buf.bytes.copy_from_slice(&self.first);
        CheckJob { piece: PieceId { shard: 0, piece: 0 }, source: None, buf, indexed: true }
    }
}

/// Has a thread take the job, and be stuck with it until `held` is dropped.
async fn stick(workers: &Workers, world: &World) {
    workers.check(world.job().await);
    while !workers.shared.0.queue.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn dropping_them_waits_for_no_thread_and_ending_them_for_all() {
    let world = World::new();
    let offer = Arc::<Offer>::clone(world.store.offer());
    let (workers, done) = world.start();
    let held = offer.hold();
    stick(&workers, &world).await;
    // This would never return.
    drop((workers, done));
    assert!(Arc::strong_count(&world.store) > 1, "the thread is still at it");
    drop(held);

    let (workers, _done) = world.start();
    let held = offer.hold();
    stick(&workers, &world).await;
    let mut end = Box::pin(workers.end());
    for _ in 0..10 {
        assert!(futures::poll!(&mut end).is_pending(), "a thread is still at it");
        tokio::task::yield_now().await;
    }
    drop(held);
    end.await;
}

#[tokio::test]
async fn whoever_waits_for_a_job_that_panics_hears_of_it() {
    let world = World::new();
    let (workers, mut done) = world.start();
    // No piece has so much padding.
    let padding = vec![0; 8 << 20];
    workers.shared.0.dirty_padding.lock().unwrap().insert(PieceId { shard: 0, piece: 0 }, padding);
    workers.check_shard(0);
    assert!(matches!(done.recv().await, Some(Done::Panicked)));
    // The others go on.
    workers.check(world.job().await);
    assert!(matches!(done.recv().await, Some(Done::Checked { outcome: planner::Checked::Good, .. })));
    workers.end().await;
    let store = Arc::into_inner(world.store).expect("nobody else holds on to it");
    assert!(store.is_recorded(PieceId { shard: 0, piece: 0 }));
}
