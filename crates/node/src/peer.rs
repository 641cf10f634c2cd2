//! One connected peer as a source of blobs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use loader::{BlobStream, RangeRead, Source, SourceError};
use manifest::{Blame, ByteRange, Digest, Have, HaveChange, PieceSet, SourceId};
use p2p_blob::{
    BlobBody, Client, Connection, Contact, FetchError, GetRequest, PeerId, RangeSession, Session, blob_size,
    read_blob,
};
use tokio_util::sync::CancellationToken;

use crate::lane::{Lane, LanePermit};

/// Sessions with one peer above which no more are opened on its connections: with those of further connections, and two that are
/// no lanes, a node has no more than peers allow (32).
const MAX_LANES: usize = 20;
/// From this round trip on requests are spread over all of them: what a stream may have under way grows from 256 KiB on, by
/// the round trip.
const FAR: Duration = Duration::from_millis(40);
/// What a new stream may have under way.
const FIRST_WINDOW_BYTES: u32 = 256 << 10;
/// Until a far peer has sent so much, pieces are asked for in parts: with its head each is a little less than that.
const SPLIT_BYTES: u64 = 32 << 20;
const PART_BYTES: usize = 240 << 10;
/// How often a part is asked for again while the peer is busy, and how long that waits at most.
const MAX_BUSY: usize = 4;
const MAX_BUSY_PAUSE: Duration = Duration::from_millis(500);

/// What the lanes on a connection have carried.
#[derive(Default)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    /// Whether there are requests.
    pub(crate) is_busy: bool,
}

/// How often a request is made again when its lane was closed.
const MAX_CLOSED: usize = 2;

/// A peer, and the sessions that its requests are spread over, each on a connection of its own.
pub(crate) struct Peer {
    id: SourceId,
    peer: PeerId,
    client: Client,
    ranges: bool,
    /// Whether it is asked for shards of a manifest that it does not know.
    assume_holds: bool,
    /// At least one.
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// A session for requests that must not queue behind pieces; opened on first use, and again when it broke.
    asking: tokio::sync::Mutex<Option<RangeSession>>,
    /// Sessions outside of the lanes, while their bytes arrive.
    extra: Mutex<Vec<Arc<Session>>>,
    /// Bytes received in sessions that have ended.
    earlier_bytes: AtomicU64,
    /// The shortest time to an answer.
    round_trip: Mutex<Option<Duration>>,
    /// It has said that it is busy: requests are not spread any more, which takes places of others.
    was_busy: AtomicBool,
    /// When it last sent right bytes.
    useful: Mutex<Option<Instant>>,
    dismissed: CancellationToken,
}

impl Peer {
    pub(crate) fn new(client: Client, session: Session, assume_holds: bool) -> Self {
        let peer = session.peer();
        Self {
            id: p2p_blob::source_id(&peer),
            peer,
            client,
            ranges: matches!(session, Session::Ranges(_)),
            assume_holds,
            lanes: Mutex::new(vec![Arc::new(Lane::new(session))]),
            asking: tokio::sync::Mutex::default(),
            extra: Mutex::default(),
            earlier_bytes: AtomicU64::new(0),
            round_trip: Mutex::default(),
            was_busy: AtomicBool::new(false),
            useful: Mutex::default(),
            dismissed: CancellationToken::new(),
        }
    }

    /// When it last sent right bytes.
    pub(crate) fn last_useful(&self) -> Option<Instant> {
        *self.useful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the fetch dismisses it.
    pub(crate) async fn dismissed(&self) {
        self.dismissed.cancelled().await;
    }

    /// Spreads requests over one more session.
    pub(crate) fn add(&self, session: Session) {
        self.lanes().push(Arc::new(Lane::new(session)));
    }

    /// What each connection has carried in its lanes.
    pub(crate) fn carried(&self) -> HashMap<Connection, Carried> {
        let mut carried = HashMap::<_, Carried>::new();
        for lane in self.lanes().iter() {
            if let Some(connection) = lane.connection() {
                let on = carried.entry(connection).or_default();
                on.bytes += lane.received_bytes();
                on.is_busy |= lane.is_busy();
            }
        }
        carried
    }

    /// Whether it can be asked for other peers.
    pub(crate) fn serves_others(&self) -> bool {
        self.ranges
    }

    /// Other holders of the manifest, by PEERS.
    pub(crate) async fn others(&self, manifest: Digest) -> Result<Vec<Contact>, SourceError> {
        let (session, permit) = self.ranges().await?;
        match session.peers(manifest).await {
            Ok(others) => Ok(others),
            Err(error) => Err(self.failed(&permit, error).await),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane's session has broken. While there is another lane, this one is closed: its connection may be dead.
    async fn broke(&self, permit: &LanePermit) {
        {
            let mut lanes = self.lanes();
            // An earlier request of the lane may have removed it.
            if lanes.iter().any(|lane| !permit.is_in(lane)) {
                let gone = lanes.extract_if(.., |lane| permit.is_in(lane)).map(|lane| lane.received_bytes());
                self.earlier_bytes.fetch_add(gone.sum(), Ordering::Relaxed);
                return;
            }
        }
        permit.forget_session().await;
    }

    /// Counts the bytes of a session outside of the lanes, until this is dropped.
    fn count(&self, session: &Session) -> impl Drop + use<'_> {
        let session = Arc::new(session.clone());
        self.extra().push(Arc::clone(&session));
        Counted { peer: self, session }
    }

    fn extra(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shortest time to an answer so far.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        *self.round_trip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The round trip to a peer that is far away, once it has answered.
    pub(crate) fn far(&self) -> Option<Duration> {
        self.round_trip().filter(|time| *time >= FAR)
    }

    fn answered(&self, asked: Instant) {
        let mut round_trip = self.round_trip.lock().unwrap_or_else(PoisonError::into_inner);
        let took = asked.elapsed();
        *round_trip = Some(round_trip.map_or(took, |shortest| shortest.min(took)));
    }

    /// A slot for so many bytes in the lane with the fewest requests in flight; far away, in a new one rather than behind
    /// others, or where they arrive first.
    fn lane(&self, bytes: u64) -> LanePermit {
        let may_spread = self.may_spread();
        let mut lanes = self.lanes();
        if !may_spread && lanes.len() > 1 {
            let is_over = |lane: &mut Arc<Lane>| lane.is_extra && !lane.is_busy();
            let ended = lanes.extract_if(.., is_over).map(|lane| lane.received_bytes());
            self.earlier_bytes.fetch_add(ended.sum(), Ordering::Relaxed);
        }
        if may_spread && lanes.len() < MAX_LANES && lanes.iter().all(|lane| lane.is_busy())
            || lanes.is_empty()
        {
            lanes.push(Arc::new(Lane::extra()));
        }
        match self.far().filter(|_| may_spread) {
            Some(round_trip) => {
                let first_window_bytes = u128::from(FIRST_WINDOW_BYTES) * 1000;
                let per_s = first_window_bytes / round_trip.as_millis().max(1);
                LanePermit::of_soonest(&lanes, bytes, u64::try_from(per_s).unwrap_or(u64::MAX))
            }
            None => LanePermit::of_idlest(&lanes, bytes),
        }
    }

    /// Whether requests are spread over many streams.
    fn may_spread(&self) -> bool {
        self.ranges && self.far().is_some() && !self.was_busy.load(Ordering::Relaxed)
    }

    /// A session in the idlest lane.
    async fn session(&self) -> Result<(Session, LanePermit), SourceError> {
        let permit = self.lane(0);
        let session = permit.session(&self.client, self.peer).await.map_err(source_error)?;
        Ok((session, permit))
    }

    async fn ranges(&self) -> Result<(RangeSession, LanePermit), SourceError> {
        match self.session().await? {
            (Session::Ranges(session), permit) => Ok((session, permit)),
            // It spoke 2.0.0 when it connected: this is a new connection, to an older node.
            (Session::Blobs(_), _) => Err(SourceError::NotHeld),
        }
    }
}

impl Peer {
    /// A range, in parts that arrive at the same time.
    async fn read_parts(&self, read: RangeRead) -> Result<Vec<u8>, SourceError> {
        let starts = (read.range.start..read.range.end).step_by(PART_BYTES);
        let parts = starts.map(|start| {
            let range = ByteRange::new(start, (start + PART_BYTES as u64).min(read.range.end));
            self.read_part(RangeRead { range, ..read })
        });
        Ok(try_join_all(parts).await?.concat())
    }

    /// A part; the others are not given up when the peer is busy.
    async fn read_part(&self, read: RangeRead) -> Result<Vec<u8>, SourceError> {
        let mut tries = 0;
        loop {
            let buf = vec![0; usize::try_from(read.range.len()).unwrap_or(0)];
            match self.get(read, buf).await {
                Err(SourceError::Busy { retry_after }) if tries < MAX_BUSY => {
                    tries += 1;
                    tokio::time::sleep(retry_after.min(MAX_BUSY_PAUSE)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn get(&self, read: RangeRead, buf: Vec<u8>) -> Result<Vec<u8>, SourceError> {
        let request = GetRequest {
            manifest: Some(read.manifest),
            blob: read.blob,
            blob_size_bytes: Some(read.blob_size_bytes),
            range: read.range,
        };
        let (mut buf, mut tries) = (buf, 0);
        loop {
            let permit = self.lane(read.range.len());
            let answer = match permit.session(&self.client, self.peer).await {
                Ok(Session::Ranges(session)) => session.get(request, buf).await,
                // It spoke 2.0.0 when it connected: this is a new connection, to an older node.
                Ok(Session::Blobs(_)) => return Err(SourceError::NotHeld),
                Err(error) => Err(error),
            };
            match answer {
                Ok(buf) => {
                    permit.arrived();
                    return Ok(buf);
                }
                // Its connection was dead, or its stream idle for long: another lane is there, or can be opened.
                Err(error @ FetchError::Closed { .. }) if tries < MAX_CLOSED => {
                    tries += 1;
                    self.broke(&permit).await;
                    tracing::debug!(peer = %self.id, %error, "asked again in another lane");
                    buf = vec![0; usize::try_from(read.range.len()).unwrap_or(0)];
                }
                Err(error) => return Err(self.failed(&permit, error).await),
            }
        }
    }

    /// Closes the session if the error breaks it, and translates the error.
    async fn failed(&self, permit: &LanePermit, error: FetchError) -> SourceError {
        if matches!(error, FetchError::Busy { .. }) {
            self.was_busy.store(true, Ordering::Relaxed);
        }
        if !is_refusal(&error) {
            self.broke(permit).await;
        }
        source_error(error)
    }
}

/// Whether the session survives it.
fn is_refusal(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::NotFound { .. }
            | FetchError::NotHeld { .. }
            | FetchError::Busy { .. }
            | FetchError::BadRequest { .. }
            | FetchError::TooLarge { .. }
    )
}

fn source_error(error: FetchError) -> SourceError {
    match error {
        FetchError::NotFound { .. } | FetchError::NotHeld { .. } => SourceError::NotHeld,
        FetchError::Busy { retry_after, .. } => SourceError::Busy { retry_after },
        FetchError::TooLarge { got_bytes, .. } => SourceError::TooLarge { claimed_bytes: got_bytes },
        error if error.blame() == Blame::Peer => SourceError::Misbehaved(Box::new(error)),
        error => SourceError::Lost(Box::new(error)),
    }
}

impl Source for Peer {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn serves_ranges(&self) -> bool {
        self.ranges
    }

    fn read(&self, read: RangeRead, buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            let is_new = self.may_spread() && self.received_bytes() < SPLIT_BYTES;
            if !is_new || read.range.len() <= PART_BYTES as u64 {
                return self.get(read, buf).await;
            }
            // The parts take as much.
            drop(buf);
            self.read_parts(read).await
        }
        .boxed()
    }

    fn open(&self, blob: Digest, size_bytes: u64) -> BoxFuture<'_, Result<Box<dyn BlobStream>, SourceError>> {
        async move {
            let (Session::Blobs(session), permit) = self.session().await? else {
                return Err(SourceError::NotHeld);
            };
            let body = match session.request(blob).await {
                Ok(body) => body.ok_or(SourceError::NotHeld)?,
                Err(error) => return Err(self.failed(&permit, error).await),
            };
            if body.size_bytes() != size_bytes {
                return Err(source_error(FetchError::WrongSize {
                    peer: self.id.clone(),
                    blob,
                    expected_bytes: size_bytes,
                    got_bytes: body.size_bytes(),
                }));
            }
            Ok(Box::new(Body(body)) as Box<dyn BlobStream>)
        }
        .boxed()
    }

    fn read_blob(&self, blob: Digest, max_bytes: u64) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            let asked = Instant::now();
            // On a stream of its own, without asking for the size before: 2.0.0 would take a round trip more.
            if self.ranges
                && let Ok(session) = self.client.open_for_blobs(self.peer).await
            {
                let _counted = self.count(&session);
                match read_blob(&session, blob, max_bytes).await {
                    Ok(bytes) => {
                        self.answered(asked);
                        return bytes.ok_or(SourceError::NotHeld);
                    }
                    Err(error @ FetchError::TooLarge { .. }) => return Err(source_error(error)),
                    Err(error) => tracing::debug!(%error, "no blob in 1.0.0"),
                }
            }
            let (session, permit) = self.session().await?;
            match read_blob(&session, blob, max_bytes).await {
                Ok(bytes) => bytes.ok_or(SourceError::NotHeld),
                Err(error) => Err(self.failed(&permit, error).await),
            }
        }
        .boxed()
    }

    fn blob_size(&self, blob: Digest) -> BoxFuture<'_, Result<u64, SourceError>> {
        async move {
            let (session, permit) = self.session().await?;
            match blob_size(&session, blob).await {
                Ok(size_bytes) => size_bytes.ok_or(SourceError::NotHeld),
                Err(error) => Err(self.failed(&permit, error).await),
            }
        }
        .boxed()
    }

    fn have(
        &self,
        manifest: Digest,
        piece_counts: Arc<[u32]>,
        since: u64,
    ) -> BoxFuture<'_, Result<Option<Have>, SourceError>> {
        async move {
            let mut asking = self.asking.lock().await;
            let asked = Instant::now();
            let session = match &*asking {
                Some(session) => session.clone(),
                None => match self.client.open(self.peer).await.map_err(source_error)? {
                    Session::Ranges(session) => asking.insert(session).clone(),
                    Session::Blobs(_) => return Err(SourceError::NotHeld),
                },
            };
            match session.have(manifest, since, Arc::clone(&piece_counts)).await {
                Ok(Some(have)) => {
                    self.answered(asked);
                    Ok(Some(have))
                }
                // It may still hold some of the blobs, for another manifest.
                Ok(None) if self.assume_holds => Ok(None),
                Ok(None) => {
                    let none = piece_counts.iter().map(|count| PieceSet::none(*count)).collect();
                    Ok(Some(Have { version: 0, change: HaveChange::Holds(none) }))
                }
                Err(error) => {
                    if !is_refusal(&error) {
                        *asking = None;
                    }
                    Err(source_error(error))
                }
            }
        }
        .boxed()
    }

    fn is_far(&self) -> bool {
        self.far().is_some()
    }

    fn note_useful(&self) {
        *self.useful.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn dismiss(&self) {
        self.dismissed.cancel();
    }

    fn received_bytes(&self) -> u64 {
        let lanes: u64 = self.lanes().iter().map(|lane| lane.received_bytes()).sum();
        let others: u64 = self.extra().iter().map(|session| session.received_bytes()).sum();
        self.earlier_bytes.load(Ordering::Relaxed) + lanes + others
    }
}

/// A session that [`Peer::received_bytes`] counts.
struct Counted<'a> {
    peer: &'a Peer,
    session: Arc<Session>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut others = self.peer.extra();
        others.retain(|other| !Arc::ptr_eq(other, &self.session));
        self.peer.earlier_bytes.fetch_add(self.session.received_bytes(), Ordering::Relaxed);
    }
}

struct Body(BlobBody);

impl BlobStream for Body {
    fn read_exact(&mut self, mut buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            self.0.read_exact(&mut buf).await.map_err(source_error)?;
            Ok(buf)
        }
        .boxed()
    }
}
