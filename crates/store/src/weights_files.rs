//! Which files hold a model's weights, and where in them a range of the weights is.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use manifest::{ByteRange, FilePath, Manifest};

use super::layout::{FILES, WEIGHTS};

/// Files of this size, and more, are made with their size before anything is written to them.
const LARGE_BYTES: u64 = 1 << 20;

/// The files that hold a model's weights, one after the other. Clones share it.
#[derive(Debug, Clone)]
pub struct WeightsFiles(Arc<List>);

#[derive(Debug)]
struct List {
    files: Box<[WeightsFile]>,
    /// Their numbers in the order of their paths, made when it is first asked for.
    by_path: OnceLock<Box<[usize]>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    /// Below the directory of the model.
    pub(crate) path: PathBuf,
    /// Which bytes of the weights it holds; none when it is empty.
    pub(crate) range: ByteRange,
}

/// A part of a range that is in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Which file.
    pub(crate) file: usize,
    /// Where in it the part begins.
    pub(crate) offset: u64,
    /// Which bytes of the range it is.
    pub(crate) bytes: Range<usize>,
}

impl WeightsFiles {
    /// The files of a model: those that its manifest names, or else one.
    pub fn of(manifest: &Manifest) -> Self {
        if manifest.files().is_empty() {
            return Self::unnamed(manifest.total_size_bytes());
        }
        Self::new(manifest.files().iter().map(|file| WeightsFile::named(file.path(), file.range())))
    }

    /// The one file of a model without names.
    pub fn unnamed(total_bytes: u64) -> Self {
        Self::new([WeightsFile { path: PathBuf::from(WEIGHTS), range: ByteRange::new(0, total_bytes) }])
    }

    /// Files of these names and sizes, in this order.
    pub fn named<'a>(files: impl IntoIterator<Item = (&'a FilePath, u64)>) -> Self {
        let mut start = 0;
        let place = |(path, size_bytes)| {
            let range = ByteRange::new(start, start + size_bytes);
            start = range.end;
            WeightsFile::named(path, range)
        };
        Self::new(files.into_iter().map(place))
    }

    fn new(files: impl IntoIterator<Item = WeightsFile>) -> Self {
        Self(Arc::new(List { files: files.into_iter().collect(), by_path: OnceLock::new() }))
    }

    /// The file of this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let files = &self.0.files;
        let sorted = self.0.by_path.get_or_init(|| {
            let mut sorted: Box<[usize]> = (0..files.len()).collect();
            sorted.sort_unstable_by(|a, b| files[*a].name().cmp(files[*b].name()));
            sorted
        });
        let found = sorted.binary_search_by(|file| files[*file].name().cmp(Path::new(name)));
        found.ok().map(|place| sorted[place])
    }

    pub(crate) fn len(&self) -> usize {
        self.0.files.len()
    }

    pub(crate) fn get(&self, file: usize) -> &WeightsFile {
        &self.0.files[file]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WeightsFile> {
        self.0.files.iter()
    }

    /// Whether space is reserved for a file before it is written: others are many, or small.
    pub(crate) fn is_large(&self, file: usize) -> bool {
        self.len() == 1 || self.get(file).range.len() >= LARGE_BYTES
    }

    /// Below the directory of a model: its file, or the folder of its files.
    pub(crate) fn root(&self) -> &Path {
        match &*self.0.files {
            [one] => &one.path,
            _ => Path::new(FILES),
        }
    }

    /// Where the bytes of a range are, in order. Bytes past the end of the weights are nowhere.
    pub(crate) fn stretches(&self, range: ByteRange) -> impl Iterator<Item = Stretch> {
        let all = &self.0.files;
        let first = all.partition_point(|file| file.range.end <= range.start);
        let files = (first..).zip(&all[first..]);
        files.take_while(move |(_, file)| file.range.start < range.end).filter_map(move |(index, file)| {
            let (start, end) = (file.range.start.max(range.start), file.range.end.min(range.end));
            let place = |at: u64| usize::try_from(at - range.start).unwrap_or(usize::MAX);
            (start < end).then(|| Stretch {
                file: index,
                offset: start - file.range.start,
                bytes: place(start)..place(end),
            })
        })
    }
}

impl WeightsFile {
    fn named(path: &FilePath, range: ByteRange) -> Self {
        Self { path: Path::new(FILES).join(path.as_str()), range }
    }

    /// Its name in the model.
    pub(crate) fn name(&self) -> &Path {
        self.path.strip_prefix(FILES).unwrap_or(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn files(sizes: &[u64]) -> WeightsFiles {
        let names: Vec<FilePath> = (0..sizes.len()).map(|n| format!("f{n}").parse().unwrap()).collect();
        WeightsFiles::named(names.iter().zip(sizes.iter().copied()))
    }

    #[test]
    fn a_range_is_cut_at_the_borders_of_files_and_empty_ones_hold_nothing() {
        let files = files(&[3, 0, 2, 0, 4]);
        let stretch = |file, offset, bytes| Stretch { file, offset, bytes };
        let found: Vec<_> = files.stretches(ByteRange::new(1, 7)).collect();
        assert_eq!(found, [stretch(0, 1, 0..2), stretch(2, 0, 2..4), stretch(4, 0, 4..6)]);
        let found: Vec<_> = files.stretches(ByteRange::new(3, 5)).collect();
        assert_eq!(found, [stretch(2, 0, 0..2)]);
        assert_eq!(files.stretches(ByteRange::new(4, 4)).count(), 0);
        assert_eq!(files.stretches(ByteRange::new(9, 12)).count(), 0);
    }

    proptest! {
        #[test]
        fn the_stretches_of_a_range_are_its_bytes_once_and_in_order(
            sizes in prop::collection::vec(0_u64..9, 1..12), start in 0_u64..80, len in 0_u64..80,
        ) {
            let files = files(&sizes);
            let total: u64 = sizes.iter().sum();
            let range = ByteRange::new(start.min(total), (start + len).min(total));
            let mut next = 0;
            for stretch in files.stretches(range) {
                prop_assert_eq!(stretch.bytes.start, next);
                prop_assert!(stretch.bytes.end > next);
                let file = files.get(stretch.file).range;
                prop_assert_eq!(file.start + stretch.offset, range.start + next as u64);
                prop_assert!(stretch.offset + stretch.bytes.len() as u64 <= file.len());
                next = stretch.bytes.end;
            }
            prop_assert_eq!(next as u64, range.len());
        }
    }
}
