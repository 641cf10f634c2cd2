//! Where in an old model the bytes of a new one may be. A guess costs a hash, and never a wrong byte.

use std::collections::HashMap;

use manifest::{ByteRange, Digest, Manifest};
use store::Model;

use crate::tensors::{self, Kind, Tensor};

/// Some bytes of the new weights, and where in the old ones they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Guess {
    new: ByteRange,
    old_start: u64,
}

/// The guesses about one old model.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    /// In the order of the new weights, none over another.
    files: Vec<Guess>,
    /// The same; these go first.
    tensors: Vec<Guess>,
}

/// A part of the old weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

impl Guesses {
    /// At the same offset of the file with the same path, or else with the same SHA-256; of the weights, where they have no
    /// names.
    pub(crate) fn by_file(new: &Manifest, old: &Manifest) -> Self {
        let of = |manifest: &Manifest| manifest.files().iter().map(|file| file.range()).collect::<Vec<_>>();
        if new.files().is_empty() || old.files().is_empty() {
            let bytes = new.total_size_bytes().min(old.total_size_bytes());
            let guess = Guess { new: ByteRange::new(0, bytes), old_start: 0 };
            return Self { files: vec![guess], tensors: Vec::new() };
        }
        let ranges = of(old);
        let by_path: HashMap<&str, ByteRange> =
            old.files().iter().map(|file| file.path().as_str()).zip(ranges.iter().copied()).collect();
        let by_digest: HashMap<Digest, ByteRange> =
            old.files().iter().map(|file| *file.sha256()).zip(ranges.iter().copied()).collect();
        let guess = |file: &manifest::ModelFile| {
            let same = by_digest.get(file.sha256()).filter(|range| range.len() == file.size_bytes());
            let old = same.or_else(|| by_path.get(file.path().as_str()))?;
            let bytes = file.size_bytes().min(old.len());
            let new = ByteRange::new(file.range().start, file.range().start + bytes);
            (bytes > 0).then_some(Guess { new, old_start: old.start })
        };
        Self { files: new.files().iter().filter_map(guess).collect(), tensors: Vec::new() }
    }

    /// And where the tensors of the same name, type and shape are.
    pub(crate) fn with_tensors(self, new: &[Tensor], old: &HashMap<Kind, u64>) -> Self {
        let guess = |tensor: &Tensor| {
            let old_start = *old.get(&tensor.kind)?;
            (!tensor.range.is_empty()).then_some(Guess { new: tensor.range, old_start })
        };
        Self { tensors: new.iter().filter_map(guess).collect(), ..self }
    }

    /// The parts of the old weights that may be these bytes of the new ones, in order; `None` when there is no guess for all
    /// of them.
    pub(crate) fn parts(&self, range: ByteRange) -> Option<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (old_start, end) = match find(&self.tensors, at) {
                Ok(guess) => (guess.old_start + (at - guess.new.start), guess.new.end),
                Err(next_tensor) => {
                    let guess = find(&self.files, at).ok()?;
                    (guess.old_start + (at - guess.new.start), guess.new.end.min(next_tensor))
                }
            };
            let bytes = end.min(range.end) - at;
            match parts.last_mut() {
                Some(last) if last.start + last.bytes == old_start => last.bytes += bytes,
                _ => parts.push(Part { start: old_start, bytes }),
            }
            at += bytes;
        }
        Some(parts)
    }
}

/// The guess for a byte, or where the next one begins.
fn find(guesses: &[Guess], at: u64) -> Result<&Guess, u64> {
    let next = guesses.partition_point(|guess| guess.new.end <= at);
    match guesses.get(next) {
        Some(guess) if guess.new.start <= at => Ok(guess),
        Some(guess) => Err(guess.new.start),
        None => Err(u64::MAX),
    }
}

/// The tensors of a model in the cache, by what they are: where in its weights each begins. Headers that cannot be read have
/// none.
pub(crate) fn tensors_of(model: &Model) -> HashMap<Kind, u64> {
    let mut found = HashMap::new();
    for (range, tensors) in files_with_tensors(model.manifest()).map(|range| (range, read(model, range))) {
        for tensor in tensors {
            found.entry(tensor.kind).or_insert(range.start + tensor.range.start);
        }
    }
    found
}

/// The same, in the order of the weights, placed in them.
pub(crate) fn all_tensors(model: &Model) -> Vec<Tensor> {
    let files = files_with_tensors(model.manifest());
    files.flat_map(|range| placed(range, read(model, range))).collect()
}

/// The files of a model that may have tensors: which bytes of the weights each is.
pub(crate) fn files_with_tensors(manifest: &Manifest) -> impl Iterator<Item = ByteRange> {
    let unnamed = manifest.files().is_empty().then(|| ByteRange::new(0, manifest.total_size_bytes()));
    let named = manifest.files().iter().filter(|file| tensors::may_have_tensors(file.path().as_str()));
    unnamed.into_iter().chain(named.map(manifest::ModelFile::range))
}

/// Tensors of a file, placed in the weights.
pub(crate) fn placed(file: ByteRange, tensors: Vec<Tensor>) -> impl Iterator<Item = Tensor> {
    tensors.into_iter().map(move |tensor| Tensor {
        range: ByteRange::new(file.start + tensor.range.start, file.start + tensor.range.end),
        ..tensor
    })
}

fn read(model: &Model, file: ByteRange) -> Vec<Tensor> {
    let total_bytes = model.manifest().total_size_bytes();
    let weights = model.padded(total_bytes, total_bytes);
    let found = tensors::read(file.len(), |offset, buffer| weights.read_at(file.start + offset, buffer));
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(from: u64, to: u64, old_start: u64) -> Guess {
        Guess { new: ByteRange::new(from, to), old_start }
    }

    fn part(start: u64, bytes: u64) -> Part {
        Part { start, bytes }
    }

    #[test]
    fn parts_follow_the_guesses_and_tensors_go_first() {
        let guesses = Guesses {
            files: vec![guess(0, 10, 100), guess(10, 20, 110), guess(30, 40, 0)],
            tensors: vec![guess(12, 15, 500), guess(15, 18, 503)],
        };
        let parts = |from, to| guesses.parts(ByteRange::new(from, to));
        assert_eq!(parts(2, 8), Some(vec![part(102, 6)]));
        assert_eq!(parts(8, 12), Some(vec![part(108, 4)]), "two files that lie side by side are one part");
        assert_eq!(parts(11, 20), Some(vec![part(111, 1), part(500, 6), part(118, 2)]));
        assert_eq!(parts(19, 21), None);
        assert_eq!(parts(30, 41), None);
        assert_eq!(parts(5, 5), Some(vec![]));
    }
}
