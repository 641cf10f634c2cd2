//! Hashing, writing and rebuilding pieces.

use std::collections::HashMap;
use std::sync::PoisonError;

use manifest::piece_index::{PieceCheck, PieceIndex, ShardHasher};
use manifest::{ByteRange, Digest, PieceId};
use planner::{Checked, SourceKey};
use sha256_lanes::MAX_LANES;
use store::CacheError;
use store::Map;

use super::{CheckJob, Done, Shared};
use crate::reconstruct::{RebuildJob, Rebuilder};

impl Shared {
    pub(super) fn check(&self, jobs: Vec<CheckJob>) -> Result<Vec<Done>, CacheError> {
        let (indexed, unindexed): (Vec<CheckJob>, Vec<CheckJob>) =
            jobs.into_iter().partition(|job| job.indexed);
        let mut done = Vec::with_capacity(indexed.len() + unindexed.len());
        let pieces: Vec<(PieceId, &[u8])> =
            indexed.iter().map(|job| (job.piece, job.buf.bytes.as_slice())).collect();
        let mut outcomes = self.verify(&pieces);
        let is_parity = |piece: PieceId| piece.shard >= self.geometry.manifest().data_shard_count();
        self.store_good(&pieces, &mut outcomes, |piece| !is_parity(piece))?;
        for (job, outcome) in indexed.into_iter().zip(outcomes) {
            done.push(outcome.into_done(job.piece, job.source));
            if matches!(outcome, Outcome::Good) && is_parity(job.piece) {
                self.held.keep(job.piece, job.buf);
            }
        }
        while let Some((piece, buf)) = self.held.excess() {
            self.store_good(&[(piece, &buf.bytes)], &mut [Outcome::Good], |_| true)?;
            self.held.drop(piece);
        }
        for job in &unindexed {
            done.push(self.write(job.piece, &job.buf.bytes, false)?.into_done(job.piece, job.source));
            // What was held is of an index that has become suspect.
            self.held.drop(job.piece);
        }
        Ok(done)
    }

    /// Hashes pieces together: each is good or wrong.
    fn verify(&self, pieces: &[(PieceId, &[u8])]) -> Vec<Outcome> {
        let Some(index) = &self.index else { return vec![Outcome::Wrong(0); pieces.len()] };
        let mut checks: Vec<PieceCheck<'_>> = pieces
            .iter()
            .map(|(id, bytes)| PieceCheck { shard: id.shard, piece: id.piece, bytes, good: false })
            .collect();
        index.verify(self.geometry.manifest(), &mut checks);
        let outcome = |check: &PieceCheck<'_>| match check.good {
            true => Outcome::Good,
            false => Outcome::Wrong(fingerprint(check.bytes)),
        };
        checks.iter().map(outcome).collect()
    }

    /// Writes those good pieces that are `wanted` on the disk, and records them.
    fn store_good(
        &self,
        pieces: &[(PieceId, &[u8])],
        outcomes: &mut [Outcome],
        wanted: impl Fn(PieceId) -> bool,
    ) -> Result<(), CacheError> {
        let mut stored = Vec::with_capacity(pieces.len());
        for ((id, bytes), outcome) in pieces.iter().zip(outcomes) {
            if !matches!(outcome, Outcome::Good) || !wanted(*id) {
                continue;
            }
            match self.write(*id, bytes, true)? {
                Outcome::Written => stored.push((id.shard, id.piece)),
                dirty => *outcome = dirty,
            }
        }
        self.store.record(&stored)
    }

    fn write(&self, piece: PieceId, bytes: &[u8], indexed: bool) -> Result<Outcome, CacheError> {
        let weights = self.geometry.weights_of(piece);
        let padding =
            weights.and_then(|weights| usize::try_from(weights.len()).ok()).and_then(|len| bytes.get(len..));
        let dirty = padding.is_some_and(|padding| padding.iter().any(|byte| *byte != 0));
        if dirty && indexed {
            return Ok(Outcome::DirtyPadding);
        }
        let mut dirty_padding = self.dirty_padding.lock().unwrap_or_else(PoisonError::into_inner);
        match padding {
            // Not proven yet: whether a peer or the publisher is at fault, the check of the whole shard tells.
            Some(padding) if dirty => dirty_padding.insert(piece, padding.to_vec()),
            _ => dirty_padding.remove(&piece),
        };
        drop(dirty_padding);
        // What goes over a proven piece was not checked: the index that proved that one has become suspect.
        if !indexed && self.store.is_recorded(piece.shard, piece.piece) {
            self.store.forget(piece.shard)?;
        }
        self.store.write_piece(piece.shard, piece.piece, bytes)?;
        Ok(Outcome::Written)
    }

    pub(super) fn rebuild(
        &self,
        rebuilder: &mut Rebuilder,
        job: &RebuildJob,
    ) -> Result<Vec<Done>, CacheError> {
        let rebuilt = rebuilder.rebuild(job, &self.store, &self.held)?;
        let pieces = job.pieces.iter().copied().zip(rebuilt.iter().map(Vec::as_slice)).zip(&job.indexed);
        let (indexed, whole): (Vec<_>, Vec<_>) = pieces.partition(|(_, indexed)| **indexed);
        let indexed: Vec<(PieceId, &[u8])> = indexed.into_iter().map(|(piece, _)| piece).collect();
        let mut done = Vec::with_capacity(job.pieces.len());
        for batch in indexed.chunks(MAX_LANES) {
            let mut outcomes = self.verify(batch);
            self.store_good(batch, &mut outcomes, |_| true)?;
            done.extend(batch.iter().zip(outcomes).map(|((id, _), outcome)| outcome.into_done(*id, None)));
        }
        for ((id, bytes), _) in whole {
            done.push(self.write(id, bytes, false)?.into_done(id, None));
        }
        Ok(done)
    }

    /// Hashes pieces of one shard that are here. What cannot be read is wrong: it is fetched again, and written anew.
    pub(super) fn recheck(&self, pieces: &[PieceId]) -> Result<Vec<Done>, CacheError> {
        let good = match &self.index {
            Some(index) => self.recheck_by_piece(pieces, index),
            None => match self.is_shard_right(pieces) {
                Some(is_right) => vec![is_right; pieces.len()],
                // They stay claims.
                None => return Ok(Vec::new()),
            },
        };
        let pairs = |wanted: bool| {
            let wanted = pieces.iter().zip(&good).filter(move |(_, good)| **good == wanted);
            wanted.map(|(piece, _)| (piece.shard, piece.piece)).collect::<Vec<_>>()
        };
        let resumed = self.store.confirm(&pairs(true));
        self.store.void(&pairs(false))?;
        let done = pieces.iter().zip(&good).map(|(piece, good)| {
            if !good {
                self.held.drop(*piece);
                tracing::warn!(
                    shard = piece.shard,
                    piece = piece.piece,
                    "bytes on the disk are not what was verified"
                );
            }
            Done::Rechecked {
                piece: *piece,
                good: *good,
                resumed: resumed.contains(&(piece.shard, piece.piece)),
            }
        });
        Ok(done.collect())
    }

    fn recheck_by_piece(&self, pieces: &[PieceId], index: &PieceIndex<Map>) -> Vec<bool> {
        let manifest = self.geometry.manifest();
        let read = |id: &PieceId| -> Option<Vec<u8>> {
            if let Some(held) = self.held.get(*id) {
                return Some(held.bytes.clone());
            }
            let range = manifest.piece_range(id.shard, id.piece);
            let mut bytes = vec![0; usize::try_from(range.len()).ok()?];
            self.store.read(id.shard, range, &mut bytes).ok().map(|()| bytes)
        };
        let bytes: Vec<Option<Vec<u8>>> = pieces.iter().map(read).collect();
        let mut checks: Vec<PieceCheck<'_>> = pieces
            .iter()
            .zip(&bytes)
            .filter_map(|(id, bytes)| Some((id, bytes.as_deref()?)))
            .map(|(id, bytes)| PieceCheck { shard: id.shard, piece: id.piece, bytes, good: false })
            .collect();
        index.verify(manifest, &mut checks);
        let is_good = |id: &PieceId| {
            checks.iter().any(|check| (check.shard, check.piece) == (id.shard, id.piece) && check.good)
        };
        pieces.iter().map(is_good).collect()
    }

    /// Whether a shard all of whose pieces are claimed has its digest; `None` when nobody needs to know any more.
    fn is_shard_right(&self, claimed: &[PieceId]) -> Option<bool> {
        let Some(PieceId { shard, .. }) = claimed.first() else { return Some(false) };
        let entry = &self.geometry.manifest().shards()[*shard as usize];
        if claimed.len() != self.geometry.manifest().piece_count(*shard) as usize {
            return Some(false);
        }
        match self.hash_shard(*shard, &HashMap::new()) {
            Ok(hashed) => hashed.map(|(digest, _)| digest == entry.digest),
            Err(_) => Some(false),
        }
    }

    /// Hashes a whole shard from the disk.
    pub(super) fn check_shard(&self, shard: u32) -> Result<Vec<Done>, CacheError> {
        let manifest = self.geometry.manifest();
        let mut dirty = HashMap::new();
        self.dirty_padding.lock().unwrap_or_else(PoisonError::into_inner).retain(|piece, padding| {
            if piece.shard == shard {
                dirty.insert(piece.piece, std::mem::take(padding));
            }
            piece.shard != shard
        });
        let Some((digest, values)) = self.hash_shard(shard, &dirty)? else { return Ok(Vec::new()) };
        let good = digest == manifest.shards()[shard as usize].digest;
        let index_agrees = self.index.as_ref().is_none_or(|index| index.agrees(manifest, shard, &values));
        if good && !dirty.is_empty() {
            return Ok(vec![Done::DirtyPadding { shard }]);
        }
        if good {
            let pieces = (0..manifest.piece_count(shard)).map(|piece| (shard, piece));
            self.store.record(&pieces.collect::<Vec<_>>())?;
        }
        Ok(vec![Done::ShardChecked { shard, good, index_agrees }])
    }

    /// The digest of a shard as it stands on the disk, with `padding` at the end of some of its pieces; and what a right
    /// index holds for it. `None` when nobody needs to know any more.
    fn hash_shard(&self, shard: u32, padding: &HashMap<u32, Vec<u8>>) -> Result<Option<Hashed>, CacheError> {
        let manifest = self.geometry.manifest();
        let mut hashers =
            [ShardHasher::new(manifest.shards()[shard as usize].size_bytes, manifest.piece_size_bytes())];
        let mut buf = Vec::new();
        for piece in 0..manifest.piece_count(shard) {
            if self.queue.is_closed() {
                return Ok(None);
            }
            let range: ByteRange = manifest.piece_range(shard, piece);
            #[expect(clippy::cast_possible_truncation, reason = "a piece has at most 4 MiB")]
            buf.resize(range.len() as usize, 0);
            self.store.read(shard, range, &mut buf)?;
            if let Some(padding) = padding.get(&piece) {
                let start = buf.len() - padding.len();
                buf[start..].copy_from_slice(padding);
            }
            ShardHasher::update_all(&mut hashers, &[&buf]);
        }
        let [hasher] = hashers;
        Ok(Some(hasher.finish()))
    }
}

/// A shard's digest, and the values of its pieces in a right index.
type Hashed = (Digest, Vec<[u8; 32]>);

/// What the bytes of a piece turned out to be.
#[derive(Clone, Copy)]
enum Outcome {
    Good,
    Written,
    Wrong(u64),
    DirtyPadding,
}

impl Outcome {
    fn into_done(self, piece: PieceId, source: Option<SourceKey>) -> Done {
        let outcome = match self {
            Self::Good => Checked::Good,
            Self::Written => Checked::Stored,
            Self::Wrong(fingerprint) => Checked::Bad { fingerprint },
            Self::DirtyPadding => return Done::DirtyPadding { shard: piece.shard },
        };
        Done::Checked { piece, source, outcome }
    }
}

/// Tells wrong bytes apart: computed only for the few pieces that are wrong.
fn fingerprint(bytes: &[u8]) -> u64 {
    let digest = Digest::of(bytes);
    digest.as_bytes().iter().take(8).fold(0, |print, byte| print << 8 | u64::from(*byte))
}
