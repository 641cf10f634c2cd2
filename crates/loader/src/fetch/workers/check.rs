//! Hashing, writing and rebuilding pieces.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use manifest::piece_index::VerifiedPiece;
use manifest::{Digest, PieceId};
use planner::{Checked, SourceKey};
use sha256_lanes::MAX_LANES;
use store::{CacheError, CheckedShard};

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
        self.store_good(&mut outcomes, |piece| !is_parity(piece))?;
        let outcomes: Vec<_> = outcomes.iter().map(Outcome::checked).collect();
        for (job, outcome) in indexed.into_iter().zip(outcomes) {
            done.push(into_done(outcome, job.piece, job.source));
            if matches!(outcome, Some(Checked::Good)) && is_parity(job.piece) {
                self.parity.keep(job.piece, job.buf);
            }
        }
        while let Some((piece, buf)) = self.parity.excess() {
            // Memory is trusted, but only hashed pieces can be recorded.
            self.store_good(&mut self.verify(&[(piece, &buf.bytes)]), |_| true)?;
            self.parity.drop(piece);
        }
        for job in &unindexed {
            let outcome = self.store_unproven(job.piece, &job.buf.bytes)?;
            done.push(into_done(outcome.checked(), job.piece, job.source));
            // The buffered piece was checked against an index that has become suspect.
            self.parity.drop(job.piece);
        }
        Ok(done)
    }

    /// Hashes pieces together: each is verified or wrong.
    fn verify<'a>(&self, pieces: &[(PieceId, &'a [u8])]) -> Vec<Outcome<'a>> {
        let verified = match &self.index {
            Some(index) => index.verify(pieces),
            None => vec![None; pieces.len()],
        };
        let outcome = |(verified, (_, bytes)): (Option<VerifiedPiece<'a>>, &(PieceId, &[u8]))| match verified
        {
            Some(verified) => Outcome::Good(verified),
            None => Outcome::Wrong(fingerprint(bytes)),
        };
        verified.into_iter().zip(pieces).map(outcome).collect()
    }

    /// Writes those good pieces that are `wanted` on the disk.
    fn store_good(
        &self,
        outcomes: &mut [Outcome<'_>],
        wanted: impl Fn(PieceId) -> bool,
    ) -> Result<(), CacheError> {
        let mut good = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let Outcome::Good(piece) = outcome else { continue };
            if !wanted(piece.piece()) {
                continue;
            }
            if self.dirty_padding(piece.piece(), piece.bytes()).is_some() {
                *outcome = Outcome::DirtyPadding;
                continue;
            }
            self.paddings().remove(&piece.piece());
            good.push(*piece);
        }
        self.store.write_verified(&good)
    }

    /// Writes a piece that is proven only with its whole shard.
    fn store_unproven(&self, piece: PieceId, bytes: &[u8]) -> Result<Outcome<'static>, CacheError> {
        // The check of the whole shard shows whether a peer or the publisher is at fault.
        match self.dirty_padding(piece, bytes) {
            Some(padding) => self.paddings().insert(piece, padding.to_vec()),
            None => self.paddings().remove(&piece),
        };
        self.store.write_unverified(piece, bytes)?;
        Ok(Outcome::Written)
    }

    /// What a piece has behind the end of the weights, unless it is zeros.
    fn dirty_padding<'a>(&self, piece: PieceId, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let stored_bytes = usize::try_from(self.geometry.weights_of(piece)?.len()).ok()?;
        bytes.get(stored_bytes..).filter(|padding| padding.iter().any(|byte| *byte != 0))
    }

    fn paddings(&self) -> MutexGuard<'_, HashMap<PieceId, Vec<u8>>> {
        self.dirty_padding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rebuild(
        &self,
        rebuilder: &mut Rebuilder,
        job: &RebuildJob,
    ) -> Result<Vec<Done>, CacheError> {
        let rebuilt = rebuilder.rebuild(job, &self.store, &self.parity)?;
        let pieces = job.pieces.iter().copied().zip(rebuilt.iter().map(Vec::as_slice)).zip(&job.indexed);
        let (indexed, whole): (Vec<_>, Vec<_>) = pieces.partition(|(_, indexed)| **indexed);
        let indexed: Vec<(PieceId, &[u8])> = indexed.into_iter().map(|(piece, _)| piece).collect();
        let mut done = Vec::with_capacity(job.pieces.len());
        for batch in indexed.chunks(MAX_LANES) {
            let mut outcomes = self.verify(batch);
            self.store_good(&mut outcomes, |_| true)?;
            let outcomes = batch.iter().zip(outcomes);
            done.extend(outcomes.map(|((id, _), outcome)| into_done(outcome.checked(), *id, None)));
        }
        for ((id, bytes), _) in whole {
            done.push(into_done(self.store_unproven(id, bytes)?.checked(), id, None));
        }
        Ok(done)
    }

    /// Hashes claimed pieces of one shard. Unreadable ones count as wrong: they are fetched and written again.
    pub(super) fn recheck(&self, pieces: &[PieceId]) -> Result<Vec<Done>, CacheError> {
        let (in_memory, on_disk): (Vec<PieceId>, Vec<PieceId>) =
            pieces.iter().partition(|piece| self.parity.get(**piece).is_some());
        let mut done = Vec::with_capacity(pieces.len());
        for piece in in_memory {
            let Some(held) = self.parity.get(piece) else { continue };
            let good = matches!(self.verify(&[(piece, &held.bytes)])[..], [Outcome::Good(_)]);
            if !good {
                self.parity.drop(piece);
            }
            done.push(Done::Rechecked { piece, good, resumed: false });
        }
        for found in self.store.recheck(&on_disk, &|| !self.queue.is_closed())? {
            let PieceId { shard, piece } = found.piece;
            if !found.good {
                tracing::warn!(shard, piece, "bytes on the disk are not what was verified");
            }
            done.push(Done::Rechecked { piece: found.piece, good: found.good, resumed: found.was_claimed });
        }
        Ok(done)
    }

    /// Hashes a whole shard from the disk.
    pub(super) fn check_shard(&self, shard: u32) -> Result<Vec<Done>, CacheError> {
        let mut padding = HashMap::new();
        self.paddings().retain(|piece, bytes| {
            if piece.shard == shard {
                padding.insert(piece.piece, std::mem::take(bytes));
            }
            piece.shard != shard
        });
        let checked = self.store.check_shard(shard, &padding, &|| !self.queue.is_closed())?;
        Ok(match checked {
            None => Vec::new(),
            Some(checked) if checked.good && !padding.is_empty() => vec![Done::DirtyPadding { shard }],
            Some(CheckedShard { good, index_agrees, .. }) => {
                vec![Done::ShardChecked { shard, good, index_agrees }]
            }
        })
    }
}

/// What the bytes of a piece turned out to be.
#[derive(Clone, Copy)]
enum Outcome<'a> {
    Good(VerifiedPiece<'a>),
    Written,
    Wrong(u64),
    DirtyPadding,
}

impl Outcome<'_> {
    /// `None`: the publisher is at fault.
    fn checked(&self) -> Option<Checked> {
        match self {
            Self::Good(_) => Some(Checked::Good),
            Self::Written => Some(Checked::Stored),
            Self::Wrong(fingerprint) => Some(Checked::Bad { fingerprint: *fingerprint }),
            Self::DirtyPadding => None,
        }
    }
}

fn into_done(checked: Option<Checked>, piece: PieceId, source: Option<SourceKey>) -> Done {
    match checked {
        Some(outcome) => Done::Checked { piece, source, outcome },
        None => Done::DirtyPadding { shard: piece.shard },
    }
}

/// Tells wrong bytes apart: computed only for the few pieces that are wrong.
fn fingerprint(bytes: &[u8]) -> u64 {
    let digest = Digest::of(bytes);
    digest.as_bytes().iter().take(8).fold(0, |print, byte| print << 8 | u64::from(*byte))
}
