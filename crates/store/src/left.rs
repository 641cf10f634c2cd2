//! What earlier runs left of models that are not complete, for serving.
//!
//! It is read without the model's fill lock, so that nobody who wants to go on filling it has to wait: pieces are hashed
//! before they are offered, and nobody overwrites a right one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::SystemTime;

use manifest::piece_index::PieceIndex;
use manifest::{Digest, Geometry, Manifest, PieceId};

use super::layout::{JOURNAL, PIECES};
use super::piece_states::{PieceState, PieceStates};
use super::{Cache, CacheError, Map, ModelFiles, Offer, WeightsFiles, journal, lock, model};

/// Pieces that are hashed together.
const BATCH: usize = 8;

/// What tells one state of a journal from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    inode: u64,
    changed: Option<SystemTime>,
    size_bytes: u64,
}

impl Cache {
    /// The state of what is left of a model; `None` when nothing is.
    pub(super) fn mark_of_left(&self, digest: &Digest) -> Result<Option<Mark>, CacheError> {
        let path = self.layout().partial(digest).join(JOURNAL);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io("inspect", &path, error)),
        };
        Ok(Some(Mark { inode: found.ino(), changed: found.modified().ok(), size_bytes: found.len() }))
    }

    /// Whether another process fills it. Nobody can in a read-only cache.
    pub(super) fn is_being_filled(&self, digest: &Digest) -> Result<bool, CacheError> {
        Ok(!self.is_read_only() && lock::try_fill(&self.layout().locks(), digest)?.is_none())
    }

    /// Hashes the pieces that were left of a model, and offers those that are right. `None` when that cannot be said of any,
    /// and when `go_on` says no, which it is asked again and again.
    pub(super) fn offer_left(
        &self,
        digest: &Digest,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Arc<Offer>>, CacheError> {
        let Some(manifest) = self.manifest(digest)? else { return Ok(None) };
        let dir = self.layout().partial(digest);
        let Some(index) = self.index_of_left(digest, &manifest)? else { return Ok(None) };
        let geometry = Geometry::new(manifest);
        let mut states = PieceStates::new(&geometry);
        let claim = |record| states.apply(&geometry, record, PieceState::Claimed);
        journal::read(&dir.join(JOURNAL), digest, claim)?;
        let claims: Vec<PieceId> = states.pieces(&geometry, PieceState::Claimed).collect();
        let list = WeightsFiles::of(geometry.manifest());
        let files = Arc::new(ModelFiles::left(list, dir.clone(), self.layout().model(digest)));
        let offer = Arc::new(Offer::new(self, *digest, geometry, dir, files));
        let mut is_any = false;
        for pieces in claims.chunks(BATCH) {
            if !go_on() {
                return Ok(None);
            }
            let bytes: Vec<Vec<u8>> = pieces.iter().map(|piece| read(&offer, *piece)).collect();
            let found: Vec<_> = pieces.iter().copied().zip(bytes.iter().map(Vec::as_slice)).collect();
            let verified = index.verify(&found);
            let right: Vec<PieceId> = verified.iter().flatten().map(|right| right.piece()).collect();
            is_any |= !right.is_empty();
            offer.add(right);
        }
        Ok(is_any.then_some(offer))
    }

    fn index_of_left(
        &self,
        digest: &Digest,
        manifest: &Arc<Manifest>,
    ) -> Result<Option<PieceIndex<Map>>, CacheError> {
        match model::open_index(&self.layout().partial(digest).join(PIECES), digest, manifest) {
            // Who fills it replaces it.
            Err(CacheError::Index { .. }) => Ok(None),
            found => found,
        }
    }
}

/// A piece as it stands on the disk. What cannot be read is wrong: it has the wrong length.
fn read(offer: &Arc<Offer>, piece: PieceId) -> Vec<u8> {
    let range = offer.manifest().piece_range(piece.shard, piece.piece);
    let Ok(Some(shard)) = offer.shard(piece.shard) else { return Vec::new() };
    let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or(0)];
    shard.read_unverified(range.start, &mut bytes).map(|()| bytes).unwrap_or_default()
}
