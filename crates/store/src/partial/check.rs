//! Verifying pieces and writing them: only hashed bytes count as verified.

use std::collections::HashMap;

use manifest::piece_index::{ShardHasher, VerifiedPiece};
use manifest::{ByteRange, Digest, PieceId};

use super::Partial;
use crate::journal::Record;
use crate::layout::{is_data, parity_path};
use crate::piece_states::{self, PieceState};
use crate::{BlobReader, CacheError};

/// A piece on the disk, hashed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rechecked {
    /// Which.
    pub piece: PieceId,
    /// Whether it is right. If not, it is missing.
    pub good: bool,
    /// Whether it was a claim of an earlier process.
    pub was_claimed: bool,
}

/// A shard that was hashed as it stands on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedShard {
    /// Whether it has its digest.
    pub good: bool,
    /// Whether the piece index, if there is one, agrees with all of its pieces.
    pub index_agrees: bool,
}

impl Partial {
    /// Writes verified pieces in place, and to every data shard with the same digest, and records them: from here on
    /// they survive a `kill -9`. Padding is not stored.
    ///
    /// # Errors
    /// [`CacheError::OtherModel`] for pieces of another manifest, and then nothing is written;
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn write_verified(&self, pieces: &[VerifiedPiece<'_>]) -> Result<(), CacheError> {
        self.check_model(pieces)?;
        pieces.iter().try_for_each(|found| self.write(found.piece(), found.bytes()))?;
        self.record(pieces.iter().map(VerifiedPiece::piece))
    }

    /// The same for pieces of data shards that are in a file, each at an offset of it: their blocks are shared where the
    /// file system can.
    ///
    /// # Errors
    /// Those of [`Self::write_verified`].
    pub fn copy_verified(&self, pieces: &[(VerifiedPiece<'_>, &BlobReader, u64)]) -> Result<(), CacheError> {
        pieces.iter().try_for_each(|(found, _, _)| self.check_model(&[*found]))?;
        for (found, from, offset) in pieces {
            self.copy(found.piece(), found.bytes(), from, *offset)?;
        }
        self.record(pieces.iter().map(|(found, _, _)| found.piece()))
    }

    /// Writes a piece that is unverified until [its shard is checked](Self::check_shard). If the piece was recorded, the
    /// shard's records are voided.
    ///
    /// # Errors
    /// [`CacheError::OutOfBounds`] when there is no such piece, [`CacheError::WrongLength`] when `bytes` is not as
    /// long as it, [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn write_unverified(&self, piece: PieceId, bytes: &[u8]) -> Result<(), CacheError> {
        self.void_if_recorded(piece, bytes)?;
        self.write(piece, bytes)
    }

    /// The same for a piece of a data shard that is in a file, at an offset of it.
    ///
    /// # Errors
    /// Those of [`Self::write_unverified`].
    pub fn copy_unverified(
        &self,
        piece: PieceId,
        bytes: &[u8],
        from: &BlobReader,
        offset: u64,
    ) -> Result<(), CacheError> {
        self.void_if_recorded(piece, bytes)?;
        self.copy(piece, bytes, from, offset)
    }

    /// Hashes pieces of one shard that are here, together. Right ones count as verified, wrong or unreadable ones as missing.
    /// Without a piece index all pieces of a shard are right or wrong together; `go_on` is asked between them, and false
    /// ends it without a result or change.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`] when what was found cannot be written down.
    pub fn recheck(
        &self,
        pieces: &[PieceId],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Rechecked>, CacheError> {
        let good = match (self.index.get(), pieces.first()) {
            (Some(_), _) => self.are_right(pieces),
            (None, Some(PieceId { shard, .. })) => match self.is_right(*shard, pieces.len(), go_on) {
                Some(is_right) => vec![is_right; pieces.len()],
                None => return Ok(Vec::new()),
            },
            (None, None) => return Ok(Vec::new()),
        };
        let chosen = |wanted: bool| {
            let found = pieces.iter().zip(&good).filter(move |(_, good)| **good == wanted);
            found.map(|(piece, _)| *piece).collect::<Vec<_>>()
        };
        let confirmed = self.confirm(&chosen(true));
        self.void(&chosen(false))?;
        let found = pieces.iter().zip(&good);
        let rechecked = |(piece, good): (&PieceId, &bool)| Rechecked {
            piece: *piece,
            good: *good,
            was_claimed: confirmed.contains(piece),
        };
        Ok(found.map(rechecked).collect())
    }

    /// Hashes a whole shard from the disk. `padding` stands at the end of some of its pieces, by their numbers, instead of
    /// zeros. When it has its digest, and needs no such padding for it, all of its pieces count. `None` when `go_on` says
    /// no, which it is asked before each piece.
    ///
    /// # Panics
    /// When there is more padding than the piece has bytes.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn check_shard(
        &self,
        shard: u32,
        padding: &HashMap<u32, Vec<u8>>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<CheckedShard>, CacheError> {
        let Some((digest, values)) = self.hash_shard(shard, padding, go_on)? else { return Ok(None) };
        let manifest = self.manifest();
        let good = digest == manifest.shards()[shard as usize].digest;
        let index_agrees = self.index.get().is_none_or(|index| index.agrees(shard, &values));
        if good && padding.is_empty() {
            self.record((0..manifest.piece_count(shard)).map(|piece| PieceId { shard, piece }))?;
        }
        Ok(Some(CheckedShard { good, index_agrees }))
    }

    /// Whether a piece was recorded, by this process or an earlier one.
    pub fn is_recorded(&self, piece: PieceId) -> bool {
        self.journal().1.state(&self.geometry, piece) > PieceState::Missing
    }

    fn check_model(&self, pieces: &[VerifiedPiece<'_>]) -> Result<(), CacheError> {
        match pieces.iter().find(|found| !found.is_of(self.manifest())) {
            None => Ok(()),
            Some(found) => Err(CacheError::OtherModel { digest: *self.lock.digest(), piece: found.piece() }),
        }
    }

    /// Voids records before a recorded piece is overwritten with unverified bytes.
    fn void_if_recorded(&self, piece: PieceId, bytes: &[u8]) -> Result<(), CacheError> {
        self.check_length(piece.shard, self.piece_range(piece)?, bytes)?;
        if self.is_recorded(piece) { self.forget(piece.shard) } else { Ok(()) }
    }

    fn write(&self, piece: PieceId, bytes: &[u8]) -> Result<(), CacheError> {
        let range = self.piece_range(piece)?;
        self.check_length(piece.shard, range, bytes)?;
        let first = self.geometry.canonical(piece.shard);
        if !is_data(&self.geometry, first) {
            let file = self.parity_file(first, true)?;
            let written = files::write_all_at(&file, bytes, range.start);
            return written.map_err(|source| CacheError::io("write", &parity_path(&self.dir, first), source));
        }
        for twin in self.geometry.same(first).filter(|shard| is_data(&self.geometry, *shard)) {
            let (stored, at) = self.stored(twin, range);
            self.weights.write_at(at, &bytes[..stored])?;
            if let Some(writeback) = &self.writeback {
                writeback.wrote(stored);
            }
        }
        Ok(())
    }

    fn copy(&self, piece: PieceId, bytes: &[u8], from: &BlobReader, offset: u64) -> Result<(), CacheError> {
        let range = self.piece_range(piece)?;
        self.check_length(piece.shard, range, bytes)?;
        let first = self.geometry.canonical(piece.shard);
        let (stored, at) = self.stored(first, range);
        // Twins would have to be copied one by one; they are rare.
        if self.geometry.same(first).nth(1).is_some() {
            return self.write(piece, bytes);
        }
        let range = ByteRange::new(at, at + stored as u64);
        let stretches: Vec<_> = self.weights.list().stretches(range).collect();
        for stretch in stretches {
            let start = offset + stretch.bytes.start as u64;
            let source = from.in_one_file(ByteRange::new(start, start + stretch.bytes.len() as u64));
            let part = ByteRange::new(at + stretch.bytes.start as u64, at + stretch.bytes.end as u64);
            match source {
                Some((source, start)) if self.weights.copy_from(part, &source, start)? => {}
                _ => self.weights.write_at(part.start, &bytes[stretch.bytes])?,
            }
        }
        if let Some(writeback) = &self.writeback {
            writeback.wrote(stored);
        }
        Ok(())
    }

    /// Records pieces as verified, after they were written.
    fn record(&self, pieces: impl IntoIterator<Item = PieceId>) -> Result<(), CacheError> {
        let (journal, progress) = &mut *self.journal();
        let fresh = |piece: &PieceId| progress.state(&self.geometry, *piece) < PieceState::Verified;
        let fresh: Vec<PieceId> = pieces.into_iter().filter(fresh).collect();
        let records = fresh.iter().map(|piece| Record::Piece(piece.shard, piece.piece));
        journal.append(records.clone())?;
        records.for_each(|record| progress.apply(&self.geometry, record, PieceState::Verified));
        self.offer.add(fresh);
        Ok(())
    }

    /// Marks hashed pieces as verified. Returns those that were claims.
    pub(crate) fn confirm(&self, pieces: &[PieceId]) -> Vec<PieceId> {
        let (_, progress) = &mut *self.journal();
        let is_claim = |piece: &PieceId| {
            piece_states::exists(&self.geometry, *piece)
                && progress.state(&self.geometry, *piece) == PieceState::Claimed
        };
        let claims: Vec<PieceId> = pieces.iter().copied().filter(is_claim).collect();
        for PieceId { shard, piece } in &claims {
            progress.apply(&self.geometry, Record::Piece(*shard, *piece), PieceState::Verified);
        }
        self.offer.add(claims.iter().copied());
        claims
    }

    /// Voids the records of pieces that are wrong.
    pub(crate) fn void(&self, pieces: &[PieceId]) -> Result<(), CacheError> {
        let (journal, progress) = &mut *self.journal();
        let is_recorded = |piece: &&PieceId| {
            piece_states::exists(&self.geometry, **piece)
                && progress.state(&self.geometry, **piece) > PieceState::Missing
        };
        let recorded: Vec<PieceId> = pieces.iter().filter(is_recorded).copied().collect();
        recorded.iter().for_each(|piece| self.offer.withdraw_piece(*piece));
        let records = recorded.iter().map(|piece| Record::Void(piece.shard, piece.piece));
        journal.append(records.clone())?;
        records.for_each(|record| progress.apply(&self.geometry, record, PieceState::Missing));
        Ok(())
    }

    /// Which pieces match the index.
    fn are_right(&self, pieces: &[PieceId]) -> Vec<bool> {
        let Some(index) = self.index.get() else { return vec![false; pieces.len()] };
        let read = |piece: &PieceId| -> Vec<u8> {
            let range = self.piece_range(*piece).unwrap_or(ByteRange::new(0, 0));
            let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or(0)];
            // What cannot be read is wrong: it has the wrong length.
            self.read(piece.shard, range, &mut bytes).map(|()| bytes).unwrap_or_default()
        };
        let bytes: Vec<Vec<u8>> = pieces.iter().map(read).collect();
        let pieces: Vec<_> = pieces.iter().copied().zip(bytes.iter().map(Vec::as_slice)).collect();
        index.verify(&pieces).iter().map(Option::is_some).collect()
    }

    /// Whether a shard all of whose pieces are here has its digest; `None` when cancelled.
    fn is_right(&self, shard: u32, here: usize, go_on: &dyn Fn() -> bool) -> Option<bool> {
        let entry = self.manifest().shards().get(shard as usize);
        let Some(entry) = entry.filter(|_| here == self.manifest().piece_count(shard) as usize) else {
            return Some(false);
        };
        match self.hash_shard(shard, &HashMap::new(), go_on) {
            Ok(hashed) => hashed.map(|(digest, _)| digest == entry.digest),
            // What cannot be read is fetched again.
            Err(_) => Some(false),
        }
    }

    /// The digest of a shard as it stands on the disk, and what a right index holds for it.
    fn hash_shard(
        &self,
        shard: u32,
        padding: &HashMap<u32, Vec<u8>>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Hashed>, CacheError> {
        self.piece_range(PieceId { shard, piece: 0 })?;
        let manifest = self.manifest();
        let mut hashers =
            [ShardHasher::new(manifest.shards()[shard as usize].size_bytes, manifest.piece_size_bytes())];
        let mut buf = Vec::new();
        for piece in 0..manifest.piece_count(shard) {
            if !go_on() {
                return Ok(None);
            }
            let range = manifest.piece_range(shard, piece);
            #[expect(clippy::cast_possible_truncation, reason = "a piece has at most 4 MiB")]
            buf.resize(range.len() as usize, 0);
            self.read(shard, range, &mut buf)?;
            if let Some(padding) = padding.get(&piece) {
                let start = buf.len() - padding.len();
                buf[start..].copy_from_slice(padding);
            }
            ShardHasher::update_all(&mut hashers, &[&buf]);
        }
        let [hasher] = hashers;
        Ok(Some(hasher.finish()))
    }

    fn piece_range(&self, piece: PieceId) -> Result<ByteRange, CacheError> {
        let manifest = self.manifest();
        let PieceId { shard, piece: number } = piece;
        if piece_states::exists(&self.geometry, piece) {
            return Ok(manifest.piece_range(shard, number));
        }
        let size_bytes = manifest.shards().get(shard as usize).map_or(0, |shard| shard.size_bytes);
        let start = u64::from(number) * u64::from(manifest.piece_size_bytes());
        let range = ByteRange::new(start, start + u64::from(manifest.piece_size_bytes()));
        Err(CacheError::OutOfBounds { shard, range, size_bytes })
    }

    /// How many bytes of `range` of a data shard are stored, and where in the weights they begin.
    pub(super) fn stored(&self, shard: u32, range: ByteRange) -> (usize, u64) {
        let Some(held) = self.manifest().weights_range(shard) else { return (0, 0) };
        let at = (held.start + range.start).min(held.end);
        let bytes = (held.end - at).min(range.len());
        // A range is as long as a buffer that is in memory, so this never saturates.
        (usize::try_from(bytes).unwrap_or(usize::MAX), at)
    }

    pub(super) fn check_length(&self, shard: u32, range: ByteRange, bytes: &[u8]) -> Result<(), CacheError> {
        if bytes.len() as u64 == range.len() {
            return Ok(());
        }
        Err(CacheError::WrongLength { shard, range, found_bytes: bytes.len() })
    }
}

/// A shard's digest, and the values of its pieces in a right index.
type Hashed = (Digest, Vec<[u8; 32]>);
