//! The blobs that the cache can serve, by digest.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use manifest::{Digest, Have, HaveChange, Manifest, PieceSet};

use super::availability::first_version;
use super::cache::Holder;
use super::left::Mark;
use super::{BlobDir, BlobReader, Cache, CacheError, Model, Offer, Offered, Trust, atomic};

/// How often the cache is scanned for models that other processes have finished, or that have changed.
const REFRESH: Duration = Duration::from_secs(1);
/// Less often where a scan takes long, as with many files: it takes this part of the time.
const SCAN_SHARE: u32 = 50;

/// Manifests whose announced shards are remembered, to find changes.
const MAX_REMEMBERED: usize = 1024;

/// All blobs of finished models and of blob folders: manifests, piece indexes, data and parity shards, complete and
/// verified; and the verified pieces of models that are being filled, or were left incomplete.
///
/// Finished models in it cannot be removed from the cache while it lives. Everything here blocks.
#[derive(Debug)]
pub struct Blobs {
    cache: Cache,
    dirs: Vec<BlobDir>,
    table: Arc<RwLock<Table>>,
    /// When the cache was last scanned, and when it is next. Locked during a scan, so that one thread does it at a time.
    refreshed: Mutex<(Instant, Duration)>,
}

#[derive(Debug, Default)]
struct Table {
    models: HashMap<Digest, Model>,
    places: HashMap<Digest, Place>,
    /// Models that are being filled, or were left incomplete.
    offers: HashMap<Digest, Arc<Offer>>,
    /// The last announcement of manifests whose shards are complete or missing.
    announced: HashMap<Digest, Announced>,
    /// Models that earlier runs left incomplete, once their pieces were hashed.
    left: HashMap<Digest, Left>,
    /// Models that have to be hashed before they are served.
    pending: BTreeSet<Digest>,
    /// Models that are not served, already logged.
    refused: HashSet<Digest>,
}

/// What was found of a model that an earlier run left incomplete. Its offer is among the others.
#[derive(Debug)]
struct Left {
    mark: Mark,
    offer: Option<Arc<Offer>>,
}

/// Whether each shard was here, and the version of the announcement.
#[derive(Debug)]
struct Announced {
    version: u64,
    shards: Vec<bool>,
}

/// Where a blob is.
#[derive(Debug, Clone)]
enum Place {
    Manifest,
    Index(Digest),
    /// A shard of the model with this manifest.
    Shard(Digest, u32),
}

impl Blobs {
    /// Opens the finished models of `cache` that are known to be right, and the folders `dirs`. Models that have to be hashed
    /// first are left to [`Self::tend`]; one that cannot be opened is logged and left out.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the cache cannot be listed.
    pub fn open(cache: Cache, dirs: Vec<BlobDir>) -> Result<Self, CacheError> {
        let table = Arc::<RwLock<Table>>::default();
        let holder: Weak<RwLock<Table>> = Arc::downgrade(&table);
        cache.add_holder(holder);
        let blobs = Self { cache, dirs, table, refreshed: Mutex::new((Instant::now(), REFRESH)) };
        blobs.look_through()?;
        Ok(blobs)
    }

    /// Serves this model from now on, in place of its offer.
    pub fn add(&self, model: &Model) {
        self.change().add(model.clone());
    }

    /// Serves the verified pieces of a model that is being filled, until [`Self::add`] or [`Self::withdraw`].
    pub fn offer(&self, offer: Arc<Offer>) {
        let mut table = self.change();
        table.left.remove(offer.digest());
        table.offers.insert(*offer.digest(), offer);
    }

    /// Ends [`Self::offer`], if it is still that one.
    pub fn withdraw(&self, offer: &Arc<Offer>) {
        let mut table = self.change();
        if table.offers.get(offer.digest()).is_some_and(|current| Arc::ptr_eq(current, offer)) {
            table.offers.remove(offer.digest());
        }
    }

    /// Stops serving this model, unless the next scan still finds it.
    pub fn remove(&self, manifest: &Digest) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(manifest);
    }

    /// The blob with this digest; `None` when it is not here, complete and verified. A blob of a folder is hashed when it is
    /// first requested.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn lookup(&self, blob: &Digest) -> io::Result<Option<BlobReader>> {
        self.refresh().map_err(io::Error::other)?;
        if let Some(held) = self.in_models(blob)? {
            return Ok(Some(held));
        }
        for offer in self.offers() {
            if let Some(held) = offer.whole(blob)? {
                return Ok(Some(held));
            }
        }
        for dir in &self.dirs {
            if let Some(held) = dir.lookup(blob)? {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// The shard with this digest of a model that is being filled, of which perhaps only pieces are here.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn pieces(&self, manifest: &Digest, blob: &Digest) -> io::Result<Option<Offered>> {
        let Some(offer) = self.offer_of(manifest) else { return Ok(None) };
        offer.shard_named(blob).map_or(Ok(None), |shard| offer.shard(shard))
    }

    /// The piece sets of a manifest's shards: all, or the changes after version `since`. `None` when the manifest is not here.
    /// Files of folders are trusted by name and size until they are requested.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn have(&self, manifest: &Digest, since: u64) -> io::Result<Option<Have>> {
        self.refresh().map_err(io::Error::other)?;
        if let Some(offer) = self.offer_of(manifest) {
            let mut have = offer.have(since);
            for (pieces, is_here) in
                have.change.shards_mut().iter_mut().zip(self.whole_shards(offer.manifest()))
            {
                if is_here {
                    *pieces = PieceSet::all(pieces.count());
                }
            }
            return Ok(Some(have));
        }
        let Some(content) = self.manifest(manifest)? else { return Ok(None) };
        let shards = self.whole_shards(&content);
        Ok(Some(self.change().have_since(*manifest, &content, shards, since)))
    }

    /// Digests of the manifests of all models in it.
    pub fn models(&self) -> Vec<Digest> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.models.keys().copied().collect()
    }

    /// All digests here that a contract may name: of the manifests of all models, and of those in folders; and of weights
    /// that were loaded without one.
    ///
    /// # Errors
    /// When the cache or a folder cannot be listed.
    pub fn names(&self) -> io::Result<HashSet<Digest>> {
        self.refresh().map_err(io::Error::other)?;
        let mut names = HashSet::new();
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            let finished = table.models.iter().map(|(digest, model)| (digest, model.manifest()));
            let filling = table.offers.iter().map(|(digest, offer)| (digest, offer.manifest()));
            for (digest, manifest) in finished.chain(filling) {
                names.insert(*digest);
                names.extend(manifest.single_blob());
            }
        }
        for dir in &self.dirs {
            names.extend(dir.manifests()?);
        }
        Ok(names)
    }

    fn manifest(&self, digest: &Digest) -> io::Result<Option<Arc<Manifest>>> {
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(model) = table.models.get(digest) {
                return Ok(Some(Arc::clone(model.manifest())));
            }
        }
        for dir in &self.dirs {
            if let Some(manifest) = dir.manifest(digest)? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    fn in_models(&self, blob: &Digest) -> io::Result<Option<BlobReader>> {
        let (place, model) = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            let Some(place) = table.places.get(blob) else { return Ok(None) };
            let model = match place {
                Place::Manifest => table.models.get(blob),
                Place::Index(model) | Place::Shard(model, _) => table.models.get(model),
            };
            let Some(model) = model else { return Ok(None) };
            (place.clone(), model.clone())
        };
        match place {
            Place::Manifest => BlobReader::file(atomic::open(&self.cache.layout().manifest(blob))?).map(Some),
            Place::Index(_) => BlobReader::file(atomic::open(&model.index_path())?).map(Some),
            Place::Shard(_, shard) => model.shard(shard),
        }
    }

    /// Which shards of a manifest are here in finished models or folders.
    fn whole_shards(&self, manifest: &Manifest) -> Vec<bool> {
        let in_models: Vec<bool> = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            manifest.shards().iter().map(|shard| table.places.contains_key(&shard.digest)).collect()
        };
        let in_dirs = |digest, size_bytes| self.dirs.iter().any(|dir| dir.has(digest, size_bytes));
        let shards = in_models.into_iter().zip(manifest.shards());
        shards.map(|(held, shard)| held || in_dirs(&shard.digest, shard.size_bytes)).collect()
    }

    fn offers(&self) -> Vec<Arc<Offer>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.offers.values().cloned().collect()
    }

    fn offer_of(&self, manifest: &Digest) -> Option<Arc<Offer>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.offers.get(manifest).cloned()
    }

    fn change(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maintenance: scans the cache, and hashes one of the unverified models, or else what was left of one. To be called every
    /// second or so, on a thread of its own; it ends soon once `stop` is set.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the cache cannot be listed.
    pub fn tend(&self, stop: &AtomicBool) -> Result<(), CacheError> {
        self.refresh()?;
        let Some(digest) = self.change().pending.pop_first() else { return self.tend_left(stop) };
        // The process that fills it is about to stamp it. In a read-only cache, none does.
        let _filling = match self.cache.is_read_only() {
            true => None,
            false => match self.cache.try_lock_fill(&digest)? {
                None => return Ok(()),
                filling => filling,
            },
        };
        match self.cache.hashed(&digest, stop) {
            Ok(Some(model)) => self.add(&model),
            Ok(None) => {}
            Err(_) if stop.load(Ordering::Relaxed) => {}
            Err(error) => self.refuse(digest, &error),
        }
        Ok(())
    }

    /// Offers what earlier runs left of models, hashing that of one of them; while this process fills none itself.
    fn tend_left(&self, stop: &AtomicBool) -> Result<(), CacheError> {
        let begun = self.cache.begun_all()?;
        let gone = |(digest, left): (&Digest, &Left)| (!begun.contains(digest)).then(|| left.offer.clone());
        let gone: Vec<Arc<Offer>> = {
            let mut table = self.change();
            let gone = table.left.iter().filter_map(gone).flatten().collect();
            table.left.retain(|digest, _| begun.contains(digest));
            gone
        };
        gone.iter().for_each(|offer| self.withdraw(offer));
        let go_on = || !stop.load(Ordering::Relaxed) && !self.is_filling();
        for digest in begun {
            if !go_on() {
                break;
            }
            let Some(mark) = self.cache.mark_of_left(&digest)? else { continue };
            let is_known = |table: &Table| {
                table.models.contains_key(&digest)
                    || table.left.get(&digest).is_some_and(|left| left.mark == mark)
            };
            if is_known(&self.table.read().unwrap_or_else(PoisonError::into_inner))
                || self.cache.is_being_filled(&digest)?
            {
                continue;
            }
            let offer = match self.cache.offer_left(&digest, &go_on) {
                Ok(offer) => offer,
                Err(error) => {
                    tracing::warn!(%digest, %error, "what there is of this model is not served");
                    None
                }
            };
            if go_on() {
                self.change().offer_left(digest, Left { mark, offer });
            }
            break;
        }
        Ok(())
    }

    /// Whether this process fills a model.
    fn is_filling(&self) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.offers.iter().any(|(digest, offer)| !table.is_left(digest, offer))
    }

    /// Scans the cache, unless that was done less than [`REFRESH`] ago, or is being done.
    fn refresh(&self) -> Result<(), CacheError> {
        let Ok(mut refreshed) = self.refreshed.try_lock() else { return Ok(()) };
        let (last, pause) = *refreshed;
        if last.elapsed() < pause {
            return Ok(());
        }
        let started = Instant::now();
        self.look_through()?;
        *refreshed = (Instant::now(), REFRESH.max(started.elapsed() * SCAN_SHARE));
        Ok(())
    }

    fn look_through(&self) -> Result<(), CacheError> {
        self.withdraw_untrusted();
        for digest in self.cache.finished()? {
            if self.table.read().unwrap_or_else(PoisonError::into_inner).models.contains_key(&digest) {
                continue;
            }
            match self.cache.trusted(&digest) {
                Ok(Trust::Good(model)) => self.add(&model),
                Ok(Trust::Unknown) => {
                    self.change().pending.insert(digest);
                }
                Ok(Trust::Nothing) => {}
                Err(error) => self.refuse(digest, &error),
            }
        }
        Ok(())
    }

    /// Stops serving models that were found bad, or have changed, since they were opened.
    fn withdraw_untrusted(&self) {
        let models: Vec<Model> = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            table.models.values().cloned().collect()
        };
        for model in models.iter().filter(|model| !self.cache.is_trusted(model)) {
            tracing::warn!(digest = %model.digest(), "this model is not what it was: it is not served any more");
            self.change().remove(model.digest());
        }
    }

    /// Makes the next refresh scan the cache.
    #[cfg(test)]
    pub(super) fn look_again(&self) {
        let mut refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
        refreshed.1 = Duration::ZERO;
    }

    /// Logs once that a model is not served.
    fn refuse(&self, digest: Digest, error: &CacheError) {
        if self.change().refused.insert(digest) {
            tracing::warn!(%digest, %error, "this model is not served");
        }
    }
}

impl Holder for RwLock<Table> {
    fn holds(&self, digest: &Digest) -> bool {
        self.read().unwrap_or_else(PoisonError::into_inner).models.contains_key(digest)
    }

    fn release(&self, digest: &Digest) {
        let mut table = self.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(digest);
        if let Some(left) = table.left.remove(digest).and_then(|left| left.offer) {
            table.offers.retain(|_, offer| !Arc::ptr_eq(offer, &left));
        }
    }
}

impl Table {
    fn is_left(&self, digest: &Digest, offer: &Arc<Offer>) -> bool {
        let left = self.left.get(digest).and_then(|left| left.offer.as_ref());
        left.is_some_and(|left| Arc::ptr_eq(left, offer))
    }

    /// Offers this in place of what was left before.
    fn offer_left(&mut self, digest: Digest, left: Left) {
        let before = self.left.remove(&digest).and_then(|before| before.offer);
        let current = self.offers.remove(&digest);
        let is_same =
            |current: &Arc<Offer>| before.as_ref().is_some_and(|before| Arc::ptr_eq(before, current));
        // One that this process has begun to fill stays.
        let next = current.filter(|current| !is_same(current)).or_else(|| left.offer.clone());
        next.into_iter().for_each(|offer| drop(self.offers.insert(digest, offer)));
        self.left.insert(digest, left);
    }

    fn add(&mut self, model: Model) {
        let digest = *model.digest();
        let manifest = model.manifest();
        self.pending.remove(&digest);
        self.refused.remove(&digest);
        self.places.insert(digest, Place::Manifest);
        if let Some(pieces) = manifest.pieces().filter(|_| model.has_index()) {
            self.places.insert(pieces.index, Place::Index(digest));
        }
        // Data shards last: a parity shard that equals one is then served from the weights.
        let data = 0..manifest.data_shard_count();
        for shard in model.parity_kept().iter().copied().chain(data) {
            if let Some(entry) = manifest.shards().get(shard as usize) {
                self.places.insert(entry.digest, Place::Shard(digest, shard));
            }
        }
        self.models.insert(digest, model);
        if let Some(offer) = self.offers.remove(&digest) {
            // Peers that have a version of the offer must get the rest.
            self.announced.insert(digest, Announced { version: offer.version() + 1, shards: Vec::new() });
        }
    }

    /// The answer to HAVE for a manifest whose `shards` are complete or missing.
    fn have_since(&mut self, digest: Digest, manifest: &Manifest, shards: Vec<bool>, since: u64) -> Have {
        if self.announced.len() >= MAX_REMEMBERED && !self.announced.contains_key(&digest) {
            // The next answer about a forgotten one is a full one.
            self.announced.clear();
        }
        let first = || Announced { version: first_version(), shards: shards.clone() };
        let announced = self.announced.entry(digest).or_insert_with(first);
        if announced.shards != shards {
            announced.version += 1;
            announced.shards.clone_from(&shards);
        }
        let shards = (0..).zip(shards);
        let (none, all) = (
            |shard| PieceSet::none(manifest.piece_count(shard)),
            |shard| PieceSet::all(manifest.piece_count(shard)),
        );
        let change = match since == announced.version {
            true => HaveChange::Gained(shards.map(|(shard, _)| none(shard)).collect()),
            false => HaveChange::Holds(
                shards.map(|(shard, is_here)| if is_here { all(shard) } else { none(shard) }).collect(),
            ),
        };
        Have { version: announced.version, change }
    }

    /// Blobs that other models have as well stay, under one of those.
    fn remove(&mut self, digest: &Digest) {
        if self.models.remove(digest).is_none() {
            return;
        }
        self.places.clear();
        for model in std::mem::take(&mut self.models).into_values() {
            self.add(model);
        }
    }
}

#[cfg(test)]
mod tests;
