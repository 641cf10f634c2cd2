//! Looking for a small blob in virtual time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use manifest::Have;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::observer::Silent;
use crate::source::{BlobStream, RangeRead};

const BLOB: &[u8] = &[7; 300_000];
const MAX_BYTES: u64 = 16 << 20;
const TICK: Duration = Duration::from_millis(50);

/// What a source does when it is asked.
#[derive(Clone, Copy)]
enum Habit {
    /// Sends the blob at so many bytes a second, after a while.
    Honest { after: Duration, bytes_per_s: u64 },
    /// Sends nothing, ever.
    Silent,
    /// Does not have it until then.
    Lacks { until: Instant },
    /// Sends so many bytes every tick, of whatever it is, until there are as many as there may be.
    Liar { bytes_per_tick: u64 },
    /// Sends so many bytes at once, and nothing more.
    Stalls { after_bytes: u64 },
}

const QUICK: Habit = Habit::Honest { after: Duration::from_millis(100), bytes_per_s: 10_000_000 };

/// The bytes that are held of answers: now, and at most so far.
#[derive(Default)]
struct Memory(Mutex<(u64, u64)>);

struct Held {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Held {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        let (now, most) = &mut *self.memory.0.lock().unwrap();
        *now += bytes;
        *most = (*now).max(*most);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.lock().unwrap().0 -= self.bytes;
    }
}

struct Fake {
    id: SourceId,
    habit: Habit,
    received_bytes: AtomicU64,
    memory: Arc<Memory>,
}

impl Fake {
    fn receive(&self, held: &mut Held, bytes: u64) {
        held.add(bytes);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Source for Fake {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn serves_ranges(&self) -> bool {
        true
    }

    fn read(&self, _: RangeRead, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        unreachable!("no piece is asked for")
    }

    fn open(&self, _: Digest, _: u64) -> BoxFuture<'_, Result<Box<dyn BlobStream>, SourceError>> {
        unreachable!("no shard is asked for")
    }

    fn read_blob(&self, _: Digest, max_bytes: u64) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            let mut held = Held { memory: Arc::clone(&self.memory), bytes: 0 };
            match self.habit {
                Habit::Honest { after, bytes_per_s } => {
                    sleep(after).await;
                    let per_tick = bytes_per_s / 20;
                    while held.bytes < BLOB.len() as u64 {
                        let left = BLOB.len() as u64 - held.bytes;
                        self.receive(&mut held, per_tick.min(left));
                        sleep(TICK).await;
                    }
                    Ok(BLOB.to_vec())
                }
                Habit::Silent => std::future::pending().await,
                Habit::Lacks { until } if Instant::now() < until => Err(SourceError::NotHeld),
                Habit::Lacks { .. } => Ok(BLOB.to_vec()),
                Habit::Liar { bytes_per_tick } => {
                    while held.bytes < max_bytes {
                        let left = max_bytes - held.bytes;
                        self.receive(&mut held, bytes_per_tick.min(left));
                        sleep(TICK).await;
                    }
                    Ok(b"whatever".to_vec())
                }
                Habit::Stalls { after_bytes } => {
                    self.receive(&mut held, after_bytes);
                    std::future::pending().await
                }
            }
        }
        .boxed()
    }

    fn blob_size(&self, _: Digest) -> BoxFuture<'_, Result<u64, SourceError>> {
        unreachable!("no size is asked for")
    }

    fn have(&self, _: Digest, _: Arc<[u32]>, _: u64) -> BoxFuture<'_, Result<Option<Have>, SourceError>> {
        unreachable!("nothing is asked of shards")
    }

    fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }
}

/// Looks for the blob at these sources. Gives what came of it, how long it took, and how much memory it used.
async fn look(habits: &[Habit]) -> (Found, Duration, u64) {
    look_again(habits, &mut SourceTable::default()).await
}

/// The same with what is known of the sources already.
async fn look_again(habits: &[Habit], sources: &mut SourceTable) -> (Found, Duration, u64) {
    let memory = Arc::<Memory>::default();
    let (events, receiver) = mpsc::channel(habits.len() + 1);
    for (number, habit) in habits.iter().enumerate() {
        let (id, received_bytes) = (SourceId::new(number.to_string()), AtomicU64::new(0));
        let fake = Fake { id, habit: *habit, received_bytes, memory: Arc::clone(&memory) };
        events.try_send(SourceEvent::Up(Arc::new(fake))).ok().unwrap();
    }
    drop(events);
    let wanted = Wanted { blob: Digest::of(BLOB), max_bytes: MAX_BYTES, wait: Duration::from_secs(30) };
    let started = Instant::now();
    let found = find(wanted, sources, &mut Arrivals::new(receiver), &Silent).await;
    let (now, most) = *memory.0.lock().unwrap();
    assert_eq!(now, 0, "nothing is asked any more");
    (found, started.elapsed(), most)
}

fn is_found(found: &Found) -> bool {
    matches!(found, Found::Blob(bytes) if bytes == BLOB)
}

/// As many sources of this kind as a fetch has, before an honest one.
fn after_49(habit: Habit) -> Vec<Habit> {
    std::iter::repeat_n(habit, 49).chain([QUICK]).collect()
}

#[tokio::test(start_paused = true)]
async fn an_honest_source_is_found_soon_behind_49_of_any_other_kind() {
    let kinds = [
        (Habit::Silent, 4),
        (Habit::Stalls { after_bytes: 1 }, 7),
        (Habit::Stalls { after_bytes: MAX_BYTES - 1 }, 14),
        (Habit::Liar { bytes_per_tick: 1 }, 7),
        (Habit::Liar { bytes_per_tick: 5_000 }, 16),
        (Habit::Liar { bytes_per_tick: MAX_BYTES }, 4),
    ];
    for (number, (habit, within_s)) in kinds.into_iter().enumerate() {
        let (found, took, most_bytes) = look(&after_49(habit)).await;
        assert!(is_found(&found), "kind {number}");
        assert!(took < Duration::from_secs(within_s), "kind {number}: {took:?}");
        // Those that began between two looks are there for a moment.
        assert!(most_bytes <= 2 * MAX_SENDING as u64 * MAX_BYTES, "kind {number}: {most_bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_waited_for_when_there_is_no_other_and_heard_out_when_there_are() {
    let slow = Habit::Honest { after: Duration::from_secs(3), bytes_per_s: 10_000 };
    let (found, took, _) = look(&[slow]).await;
    assert!(is_found(&found) && took < Duration::from_secs(34), "{took:?}");
    // Its turns get longer.
    let (found, took, _) = look(&[slow, Habit::Liar { bytes_per_tick: 10 }, Habit::Silent]).await;
    assert!(is_found(&found) && took < Duration::from_secs(80), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn looking_ends_when_nobody_has_it_however_they_say_so() {
    for habit in [Habit::Silent, Habit::Stalls { after_bytes: 9 }, Habit::Liar { bytes_per_tick: 1 }] {
        let (found, took, _) = look(&[habit; 3]).await;
        assert!(matches!(found, Found::Nowhere { too_large: None }));
        assert!(took < Duration::from_secs(400), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_have_it_yet_is_asked_again_until_the_wait_is_over() {
    let lacks = |seconds| Habit::Lacks { until: Instant::now() + Duration::from_secs(seconds) };
    let (found, took, _) = look(&[lacks(5), lacks(1000)]).await;
    assert!(is_found(&found) && took < Duration::from_secs(10), "{took:?}");
    let (found, took, _) = look(&[lacks(3600)]).await;
    assert!(matches!(found, Found::Nowhere { .. }));
    assert!(took <= Duration::from_secs(31), "{took:?}");
    // It is not in the way of one that is slow.
    let slow = Habit::Honest { after: Duration::from_secs(3), bytes_per_s: 10_000 };
    let (found, took, _) = look(&[lacks(3600), slow]).await;
    assert!(is_found(&found) && took < Duration::from_secs(35), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_gave_the_manifest_is_asked_for_the_index_first() {
    let (habits, mut sources) = (after_49(Habit::Silent), SourceTable::default());
    let (_, first, _) = look_again(&habits, &mut sources).await;
    let (found, again, _) = look_again(&habits, &mut sources).await;
    assert!(is_found(&found) && first > Duration::from_secs(1) && again < HEAD_START, "{first:?}, {again:?}");
}
