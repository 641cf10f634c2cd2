//! Loading a model: from the cache, or piece by piece from sources.

pub(crate) mod blocking;
mod buffers;
mod cached;
mod driver;
mod files;
mod fill_wait;
mod have_poll;
mod head_start;
mod headers;
mod metadata;
mod options;
pub(crate) mod parity_buffer;
pub(crate) mod single_blob;
mod source_table;
mod tensors;
#[cfg(test)]
pub(crate) mod tests;
mod transfers;
mod workers;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifest::piece_index::PieceIndex;
use manifest::{Blame, Digest, Geometry, Manifest, PieceId};
use store::Map;
use store::{Cache, CacheError, Model, Partial};
use tokio::sync::mpsc;

use crate::error::LoadError;
use crate::observer::{Event, Observer, Report};
use crate::reuse::copy::Reuse;
use crate::source::SourceEvent;
use crate::tensors::Tensor;
pub use cached::cached;
pub use options::FetchOptions;
pub use tensors::{LoadedTensor, TensorChoice, fetch_tensors};
pub(crate) use tensors::{Wanted as WantedTensor, choose};

use blocking::blocking;
use buffers::buffer_count;
use cached::{close, find_cached, keep_manifest, tidy};
use driver::Driver;
use head_start::Plan;
use metadata::{Found, Wanted};
use options::USUAL_MEMORY_BYTES;
use single_blob::MAX_MANIFEST_BYTES;
use source_table::{Arrivals, SourceTable};
use workers::Workers;

/// How long to wait for the piece index when no source has it, before shards are checked as a whole instead.
const INDEX_WAIT: Duration = Duration::from_secs(1);
/// Queued results for the driver.
const QUEUE: usize = 256;

/// Loads the model of a manifest: what is in the cache is mapped, anything else is fetched from `sources` into the
/// cache first.
///
/// **Resume.** What an earlier run verified is not fetched again. Another process that fills the same model is waited
/// for while it gets on. **Cancel safety.** Dropping the future leaves everything verified so far to the next run.
///
/// # Errors
/// [`LoadError`]; after an integrity error nothing of the model is left in the cache.
pub async fn load(
    cache: &Cache,
    digest: Digest,
    sources: mpsc::Receiver<SourceEvent>,
    options: &FetchOptions,
    observer: &dyn Observer,
) -> Result<(Model, Report), LoadError> {
    let started = Instant::now();
    let mut report = Report::default();
    let found = {
        let (cache, options) = (cache.clone(), options.clone());
        blocking(move || cached(&cache, &digest, &options)).await??
    };
    let model = match found {
        Some(model) => {
            report.from_cache = true;
            model
        }
        None => {
            let fetch =
                Fetch { cache, digest, wait: options.wait, options, observer, known: SourceTable::default() };
            let (model, sources) = fetch.run(&mut Arrivals::new(sources), &mut report).await?;
            report.sources = sources;
            model
        }
    };
    report.elapsed = started.elapsed();
    Ok((model, report))
}

struct Fetch<'a> {
    cache: &'a Cache,
    digest: Digest,
    /// How long to go on without a source that could help.
    wait: Duration,
    options: &'a FetchOptions,
    observer: &'a dyn Observer,
    known: SourceTable,
}

impl Fetch<'_> {
    async fn run(
        mut self,
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(Model, Vec<crate::SourceReport>), LoadError> {
        self.cache.check_writable()?;
        self.known.connecting = true;
        match self.options.single_blob_max_bytes {
            None => {
                let manifest = self.manifest(events).await?;
                self.model(manifest, events, report).await
            }
            Some(max_bytes) => self.blob_or_model(max_bytes, events, report).await,
        }
    }

    /// The model, when the digest is that of a manifest; else the blob, tried in each of the sizes that sources claim.
    async fn blob_or_model(
        &mut self,
        max_bytes: u64,
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(Model, Vec<crate::SourceReport>), LoadError> {
        let (blob, cache) = (self.digest, self.cache.clone());
        if let Some(manifest) = blocking(move || cache.manifest(&blob)).await?? {
            return self.model(manifest, events, report).await;
        }
        let cache = self.cache.clone();
        tidy(move || single_blob::remove_left(&cache, &blob)).await;
        let (mut tried, mut unavailable, mut failed) = (Vec::new(), Vec::new(), None::<LoadError>);
        while tried.len() < single_blob::MAX_SIZES {
            let mut sizes =
                single_blob::sizes(blob, self.wait, &tried, &mut self.known, events, self.observer).await;
            if sizes.is_empty() {
                break;
            }
            // No waiting while other sizes may be claimed: sources that did not answer in time may know the right one.
            self.wait = Duration::ZERO;
            if sizes.iter().any(|size_bytes| single_blob::may_be_manifest(*size_bytes)) {
                let wanted = Wanted { blob, max_bytes: MAX_MANIFEST_BYTES, wait: Duration::ZERO };
                if let Found::Blob(bytes) =
                    metadata::find(wanted, &mut self.known, events, self.observer).await
                {
                    sizes = vec![bytes.len() as u64];
                    match keep_manifest(self.cache, bytes).await {
                        Ok(manifest) => {
                            self.wait = self.options.wait;
                            return self.model(manifest, events, report).await;
                        }
                        // It is the blob.
                        Err(LoadError::NotAManifest { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            for size_bytes in sizes {
                tried.push(size_bytes);
                let wasted_bytes = report.wasted_bytes;
                let error = match self.blob(blob, size_bytes, max_bytes, events, report).await {
                    Err(error) if error.is_disk_full() => error,
                    Err(error) if error.blame() == Blame::Network || error.blame() == Blame::Caller => error,
                    done => return done,
                };
                match (error, failed.take()) {
                    (LoadError::Unavailable { .. }, first) => {
                        unavailable.push((report.wasted_bytes - wasted_bytes, size_bytes));
                        failed = first;
                    }
                    (error, Some(first)) if first.is_disk_full() || !error.is_disk_full() => {
                        failed = Some(first);
                    }
                    (error, _) => failed = Some(error),
                }
            }
        }
        let had_no_room = failed.as_ref().is_some_and(LoadError::is_disk_full);
        let likely = unavailable.into_iter().min_by_key(|(wasted_bytes, _)| *wasted_bytes);
        // Wrong sizes are not waited for when the right one may be one that did not fit on the disk.
        if let Some((_, size_bytes)) = likely.filter(|(wasted_bytes, _)| *wasted_bytes == 0 || !had_no_room) {
            // It is the most likely one. More sources may connect.
            self.wait = self.options.wait;
            return self.blob(blob, size_bytes, max_bytes, events, report).await;
        }
        let unavailable = || LoadError::ManifestUnavailable { digest: blob, asked: self.known.reports() };
        Err(failed.unwrap_or_else(unavailable))
    }

    /// The blob, if it has this size.
    async fn blob(
        &mut self,
        blob: Digest,
        size_bytes: u64,
        max_bytes: u64,
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(Model, Vec<crate::SourceReport>), LoadError> {
        let manifest = Manifest::of_single_blob(blob, size_bytes).filter(|_| size_bytes <= max_bytes);
        let too_large = LoadError::BlobTooLarge { digest: blob, claimed_bytes: size_bytes, max_bytes };
        let (digest, manifest) = single_blob::store(self.cache, &manifest.ok_or(too_large)?).await?;
        self.digest = digest;
        let done = self.model(manifest, events, report).await;
        if done.is_err() {
            let cache = self.cache.clone();
            tidy(move || cache.remove_unverified(&digest)).await;
        }
        done
    }

    /// Fetches the model of a manifest, which is in the cache.
    async fn model(
        &mut self,
        manifest: Arc<Manifest>,
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(Model, Vec<crate::SourceReport>), LoadError> {
        self.observer.on_event(&Event::Manifest { digest: self.digest, manifest: &manifest });
        let files = files::wanted(self.digest, &manifest, self.options)?;
        let lock = fill_wait::fill(self.cache, self.digest, self.options.wait, self.observer).await?;
        // The former lock holder may have finished it.
        if let Some(model) = find_cached(self.cache, self.digest, self.options).await? {
            report.resumed_bytes = manifest.total_size_bytes();
            return Ok((model, self.known.reports()));
        }
        let store = {
            let (cache, manifest) = (self.cache.clone(), Arc::clone(&manifest));
            let (durable, files) = (self.options.durable, files.clone());
            let open = move || {
                let geometry = Geometry::new(manifest);
                cache.heal(&lock, &geometry)?;
                match &files {
                    Some(files) => cache.partial_of(lock, geometry, files, durable),
                    None => cache.partial(lock, geometry, durable),
                }
            };
            blocking(open).await??
        };
        self.observer.on_event(&Event::Filling { offer: store.offer() });
        let store = Arc::new(store);
        let wanted = files.as_ref().map(|files| files::pieces(store.geometry(), files));
        if let Err(error) = self.fill(&store, &manifest, wanted, events, report).await {
            // Space and lock are free for the next load.
            let error = blocking(move || close(store, error)).await?;
            if error.is_integrity() {
                self.discard().await;
            }
            return Err(error);
        }
        self.observer.on_event(&Event::Finishing);
        // The workers and the requests are gone, so this is the only owner.
        let Some(store) = Arc::into_inner(store) else {
            return Err(LoadError::Worker(std::io::Error::other("the partial files are still in use")));
        };
        let finish = move || match files {
            Some(files) => store.place(&files),
            None => store.finish(false),
        };
        let model = blocking(finish).await??;
        Ok((model, self.known.reports()))
    }

    /// Gets everything that is wanted into `store`. Nothing keeps it open afterwards, also on failure.
    async fn fill(
        &mut self,
        store: &Arc<Partial>,
        manifest: &Arc<Manifest>,
        wanted: Option<BTreeSet<PieceId>>,
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(), LoadError> {
        let ahead = self.ahead(store, wanted.as_ref()).await?;
        self.index(store, manifest, events).await?;
        self.pieces(Arc::clone(store), wanted, ahead, events, report).await
    }

    /// Asks whoever sent the manifest for its first pieces before the index is here, unless there may be some in the cache.
    async fn ahead(
        &mut self,
        store: &Arc<Partial>,
        wanted: Option<&BTreeSet<PieceId>>,
    ) -> Result<Option<Plan>, LoadError> {
        let geometry = store.geometry();
        let Some(giver) = self.known.has_given else { return Ok(None) };
        if geometry.manifest().pieces().is_none()
            || !store.claims().is_empty()
            || !store.verified().is_empty()
        {
            return Ok(None);
        }
        let (cache, digest, manifest) = (self.cache.clone(), self.digest, Arc::clone(geometry.manifest()));
        let now_s = driver::unix_time_s();
        let (has_donors, bans) = blocking(move || {
            Ok::<_, CacheError>((!cache.donors(&digest, &manifest)?.is_empty(), cache.bans(now_s)))
        })
        .await??;
        self.known.bans = bans;
        let is_far = self.known.get(giver).is_some_and(|source| source.is_far());
        if !is_far || has_donors || self.known.is_banned(giver, now_s) {
            return Ok(None);
        }
        let mut plan = Plan::new(self.digest, geometry, true, self.options.memory_bytes);
        if let Some(wanted) = wanted {
            plan.planner.want(wanted.iter().copied());
        }
        plan.begin(giver, &self.known);
        Ok(Some(plan))
    }

    /// The manifest, from the cache or from a source.
    async fn manifest(&mut self, events: &mut Arrivals) -> Result<Arc<Manifest>, LoadError> {
        let (cache, digest) = (self.cache.clone(), self.digest);
        if let Some(manifest) = blocking(move || cache.manifest(&digest)).await?? {
            return Ok(manifest);
        }
        let wanted = Wanted { blob: digest, max_bytes: MAX_MANIFEST_BYTES, wait: self.options.wait };
        let bytes = match metadata::find(wanted, &mut self.known, events, self.observer).await {
            Found::Blob(bytes) => bytes,
            Found::Nowhere { too_large: Some((source_id, claimed_bytes)) } => {
                let max_bytes = MAX_MANIFEST_BYTES;
                return Err(LoadError::ManifestTooLarge { digest, claimed_bytes, source_id, max_bytes });
            }
            Found::Nowhere { too_large: None } => {
                return Err(LoadError::ManifestUnavailable { digest, asked: self.known.reports() });
            }
        };
        keep_manifest(self.cache, bytes).await
    }

    /// Gets the piece index into `store`, when the manifest has one and a source holds it. Without it shards are
    /// checked as a whole.
    async fn index(
        &mut self,
        store: &Arc<Partial>,
        manifest: &Manifest,
        events: &mut Arrivals,
    ) -> Result<(), LoadError> {
        let Some(pieces) = manifest.pieces() else { return Ok(()) };
        if index(store).await?.is_some() {
            return Ok(());
        }
        let wait = self.options.wait.min(INDEX_WAIT);
        let wanted = Wanted { blob: pieces.index, max_bytes: manifest.index_size_bytes(), wait };
        match metadata::find(wanted, &mut self.known, events, self.observer).await {
            Found::Blob(bytes) => {
                let store = Arc::clone(store);
                match blocking(move || store.store_index(&bytes)).await? {
                    Ok(()) => Ok(()),
                    Err(CacheError::Index { digest, source }) => Err(LoadError::BadIndex { digest, source }),
                    Err(error) => Err(error.into()),
                }
            }
            Found::Nowhere { .. } => {
                tracing::warn!("no source has the piece index: shards are checked as a whole");
                Ok(())
            }
        }
    }

    /// Copies, fetches and rebuilds until all weights that are wanted are in `store`.
    async fn pieces(
        &mut self,
        store: Arc<Partial>,
        wanted: Option<BTreeSet<PieceId>>,
        ahead: Option<Plan>,
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(), LoadError> {
        let geometry = store.geometry().clone();
        // They are hashed while the rest is fetched.
        let claims = store.claims();
        if !claims.is_empty() {
            let bytes = claims.iter().map(|piece: &PieceId| geometry.piece_bytes(*piece)).sum();
            self.observer.on_event(&Event::Claimed { bytes });
        }
        if let Some(wanted) = &wanted {
            let bytes = wanted.iter().map(|piece| geometry.piece_bytes(*piece)).sum();
            self.observer.on_event(&Event::Wanted { bytes });
        }
        let index = index(&store).await?;
        self.reuse(&store, index.clone(), None, wanted.clone(), report).await?;
        if index.is_some() && self.may_share_tensors(geometry.manifest()).await? {
            // Tensors that have moved are found by their names, once the headers are here.
            while let Some(pieces) = headers::missing(&store, wanted.as_ref()).await? {
                self.drive(Arc::clone(&store), Some(pieces), index.clone(), None, events, report).await?;
            }
            let tensors = headers::tensors(&store).await?;
            self.reuse(&store, index.clone(), Some(tensors), wanted.clone(), report).await?;
        }
        // Without an index shards are checked as a whole, and planned in another way.
        let ahead = ahead.filter(|_| index.is_some());
        self.drive(store, wanted, index, ahead, events, report).await
    }

    async fn may_share_tensors(&self, manifest: &Arc<Manifest>) -> Result<bool, LoadError> {
        let (cache, digest, manifest) = (self.cache.clone(), self.digest, Arc::clone(manifest));
        Ok(blocking(move || Reuse::may_share_tensors(&cache, &digest, &manifest)).await??)
    }

    /// Copies what other models in the cache have.
    async fn reuse(
        &mut self,
        store: &Arc<Partial>,
        index: Option<Arc<PieceIndex<Map>>>,
        tensors: Option<Vec<Tensor>>,
        wanted: Option<BTreeSet<PieceId>>,
        report: &mut Report,
    ) -> Result<(), LoadError> {
        let here = [store.claims(), store.verified()].concat();
        let reuse = Reuse {
            cache: self.cache.clone(),
            digest: self.digest,
            store: Arc::clone(store),
            index,
            geometry: store.geometry().clone(),
            threads: self.options.threads.max(1),
            tensors,
            wanted,
        };
        let found = reuse.run(&here, self.observer).await?;
        for (model, bytes) in found.from {
            report.reused_bytes += bytes;
            match report.reused_from.iter_mut().find(|(known, _)| *known == model) {
                Some((_, sum)) => *sum += bytes,
                None => report.reused_from.push((model, bytes)),
            }
        }
        Ok(())
    }

    /// Fetches and rebuilds until all weights that are wanted are in `store`. Nothing of this keeps it open afterwards.
    async fn drive(
        &mut self,
        store: Arc<Partial>,
        wanted: Option<BTreeSet<PieceId>>,
        index: Option<Arc<PieceIndex<Map>>>,
        ahead: Option<Plan>,
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(), LoadError> {
        let geometry = store.geometry().clone();
        let (claims, verified) = (store.claims(), store.verified());
        // What was found in the cache meanwhile is not fetched.
        let is_empty = claims.is_empty() && verified.is_empty();
        let plan = match ahead.filter(|ahead| is_empty && ahead.is_valid(&self.known)) {
            Some(ahead) => ahead,
            None => {
                let mut plan = Plan::new(self.digest, &geometry, index.is_some(), self.options.memory_bytes);
                if let Some(wanted) = wanted {
                    plan.planner.want(wanted);
                }
                plan.planner.resume(verified);
                plan.planner.claim(claims.iter().copied());
                plan
            }
        };
        let (done_sender, done) = mpsc::channel(QUEUE);
        let usual_bytes = self.options.memory_bytes.min(USUAL_MEMORY_BYTES);
        let buffer_count = buffer_count(usual_bytes, geometry.manifest().piece_size_bytes());
        let workers = Workers::start(
            self.options.threads.max(1),
            buffer_count / 4,
            claims,
            store,
            index,
            geometry.clone(),
            done_sender,
        )
        .map_err(LoadError::Worker)?;
        self.known.bans = {
            let cache = self.cache.clone();
            blocking(move || cache.bans(driver::unix_time_s())).await?
        };
        let driver = Driver {
            digest: self.digest,
            planner: plan.planner,
            requests: plan.requests,
            moved: plan.moved,
            have_poll: plan.have_poll,
            assumed: plan.assumed.map(|(source, _)| source),
            done,
            workers,
            sources: &mut self.known,
            observer: self.observer,
            report,
            on_trial: HashMap::new(),
            supply: None,
            next_supply: Instant::now(),
            wait: self.wait,
            ahead: (0, self.options.ahead.clone()),
        };
        let result = driver.run(events).await;
        self.remember_liars().await;
        result
    }

    /// Saves the bans of liars for later runs.
    async fn remember_liars(&mut self) {
        let (cache, liars) = (self.cache.clone(), std::mem::take(&mut self.known.liars));
        if liars.is_empty() {
            return;
        }
        match blocking(move || cache.convict(&liars, driver::unix_time_s())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not remember who lied"),
            Err(error) => tracing::warn!(%error, "could not remember who lied"),
        }
    }

    /// Removes what is in the cache of a model that can never be loaded.
    async fn discard(&self) {
        let (cache, digest) = (self.cache.clone(), self.digest);
        tidy(move || cache.remove(&digest).map(drop)).await;
    }
}

/// The piece index, when it is there.
async fn index(store: &Arc<Partial>) -> Result<Option<Arc<PieceIndex<Map>>>, LoadError> {
    let store = Arc::clone(store);
    Ok(blocking(move || store.index()).await??)
}
