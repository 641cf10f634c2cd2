//! The thread that reads tensors, waiting for their pieces.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifest::{ByteRange, Digest, Manifest};
use store::{Model, Offer, VerifiedReader};

use super::ahead::Ahead;
use super::channel::TensorSender;
use crate::error::LoadError;
use crate::fetch::{TensorChoice, WantedTensor, choose};
use crate::reuse::guess::{files_with_tensors, placed};
use crate::tensors::{self, LENGTH_BYTES};

/// How far ahead of what is read next the fetch is told.
const WINDOW_BYTES: u64 = 32 << 20;
/// What is waited for, and then read, at once.
const PART_BYTES: usize = 16 << 20;

/// What is read while it is filled.
#[derive(Clone)]
pub(super) struct Filling {
    pub(super) offer: Arc<Offer>,
    /// The load has ended well.
    pub(super) is_complete: Arc<AtomicBool>,
}

/// Where the weights are.
pub(super) enum Place {
    Filling(Filling),
    Here(Model),
}

pub(super) struct Reader {
    pub(super) place: Place,
    pub(super) choices: Vec<TensorChoice>,
    pub(super) verify: bool,
    pub(super) threads: usize,
    pub(super) ahead: Ahead,
    pub(super) sender: TensorSender,
}

/// Why it ends before the last tensor.
enum End {
    /// Nobody wants more, or the load has ended, which is told elsewhere.
    Closed,
    Failed(LoadError),
}

impl Reader {
    pub(super) fn run(self) {
        if let Err(End::Failed(error)) = self.read_all() {
            // Whoever has gone does not need it.
            let _ = self.sender.blocking_send(Err(error));
        }
    }

    fn read_all(&self) -> Result<(), End> {
        let mut verified = None;
        let mut chosen = vec![false; self.choices.len()];
        for file in files_with_tensors(self.manifest()).filter(|file| file.len() >= LENGTH_BYTES) {
            self.ahead.set(vec![ByteRange::new(file.start, file.start.saturating_add(WINDOW_BYTES))]);
            let mut first = [0; 8];
            self.read(file.start, &mut first, &mut verified)?;
            let Some(end) = tensors::data_start(first, file.len()) else { continue };
            let mut header = vec![0; usize::try_from(end).unwrap_or(0)];
            self.read(file.start, &mut header, &mut verified)?;
            let of_header = |offset: u64, buffer: &mut [u8]| {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = start.checked_add(buffer.len()).and_then(|end| header.get(start..end));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            };
            let Some(found) = tensors::read(file.len(), of_header) else { continue };
            let wanted = choose(placed(file, found), &self.choices, &mut chosen);
            self.read_file(file, wanted, &mut verified)?;
        }
        match chosen.iter().position(|chosen| !chosen) {
            Some(number) => {
                let selection = self.choices[number].names.clone();
                Err(End::Failed(LoadError::NoSuchTensors { digest: *self.digest(), selection }))
            }
            None => Ok(()),
        }
    }

    fn read_file(
        &self,
        file: ByteRange,
        wanted: Vec<WantedTensor>,
        verified: &mut Option<VerifiedReader>,
    ) -> Result<(), End> {
        let ranges: Vec<ByteRange> = wanted.iter().map(WantedTensor::range).collect();
        for (number, wanted) in wanted.into_iter().enumerate() {
            let range = wanted.range();
            let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or(usize::MAX)];
            let mut start = range.start;
            for part in bytes.chunks_mut(PART_BYTES) {
                let current = ByteRange::new(start, range.end);
                self.ahead.set(self.window(current, &ranges[number + 1..], file));
                self.read(start, part, verified)?;
                start += part.len() as u64;
            }
            self.sender.blocking_send(Ok(wanted.loaded(bytes))).map_err(|_| End::Closed)?;
        }
        Ok(())
    }

    /// What is read next; after the last tensor of a file, what follows the file, if all is wanted.
    fn window(&self, current: ByteRange, next: &[ByteRange], file: ByteRange) -> Vec<ByteRange> {
        let following = ByteRange::new(file.end, file.end.saturating_add(WINDOW_BYTES));
        let following = self.choices.is_empty().then_some(following);
        let mut left_bytes = WINDOW_BYTES;
        let mut window = Vec::new();
        for range in [current].into_iter().chain(next.iter().copied()).chain(following) {
            if left_bytes == 0 {
                break;
            }
            let bytes = range.len().min(left_bytes);
            window.push(ByteRange::new(range.start, range.start + bytes));
            left_bytes -= bytes;
        }
        window
    }

    /// Fills `buffer` with the weights from `start` on, once they are verified.
    fn read(&self, start: u64, buffer: &mut [u8], verified: &mut Option<VerifiedReader>) -> Result<(), End> {
        let range = ByteRange::new(start, start.saturating_add(buffer.len() as u64));
        if let Place::Filling(filling) = &self.place
            && !filling.offer.wait_for(range)
        {
            return Err(match filling.is_complete.load(Ordering::Relaxed) {
                // Never without a word: whoever reads would take what came for all there is.
                true => End::Failed(LoadError::Worker(io::Error::other(format!(
                    "the load has ended well, and bytes {} to {} of the weights are not verified",
                    range.start, range.end
                )))),
                false => End::Closed,
            });
        }
        if self.verify && verified.is_none() {
            let reader = match &self.place {
                Place::Filling(filling) => filling.offer.verified_reader(),
                Place::Here(model) => model.verified_reader(),
            };
            *verified = reader.map_err(failed)?;
        }
        let read = match (self.verify, verified, &self.place) {
            (true, Some(reader), _) => reader.read_weights(start, buffer, self.threads),
            (true, None, _) => return Err(End::Failed(LoadError::NoPieceIndex { digest: *self.digest() })),
            (false, _, Place::Filling(filling)) => filling.offer.read_weights(start, buffer),
            (false, _, Place::Here(model)) => model.read_weights(start, buffer),
        };
        read.map_err(failed)
    }

    fn manifest(&self) -> &Manifest {
        match &self.place {
            Place::Filling(filling) => filling.offer.manifest(),
            Place::Here(model) => model.manifest(),
        }
    }

    fn digest(&self) -> &Digest {
        match &self.place {
            Place::Filling(filling) => filling.offer.digest(),
            Place::Here(model) => model.digest(),
        }
    }
}

fn failed(error: store::CacheError) -> End {
    End::Failed(error.into())
}
