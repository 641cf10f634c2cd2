//! A bounded number of files that stay open.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files that stay open, by their numbers: the last that were used, so that no number of files uses up the descriptors.
#[derive(Debug)]
pub struct OpenFiles {
    max: usize,
    /// The last that was used is the first; and whether it can be written to.
    open: Mutex<VecDeque<(usize, Arc<File>, bool)>>,
}

impl OpenFiles {
    /// At most `max` at a time, besides those that callers hold.
    pub fn new(max: usize) -> Self {
        Self { max, open: Mutex::default() }
    }

    /// A file, if it is open; `to_write`: and can be written to.
    pub fn get(&self, file: usize, to_write: bool) -> Option<Arc<File>> {
        let mut open = self.open();
        let place = open.iter().position(|(index, _, can)| *index == file && (*can || !to_write))?;
        let found = open.remove(place)?;
        let file = Arc::clone(&found.1);
        open.push_front(found);
        Some(file)
    }

    /// A file, opened by `open` if need be.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn get_or_open<E>(
        &self,
        file: usize,
        to_write: bool,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<Arc<File>, E> {
        if let Some(open) = self.get(file, to_write) {
            return Ok(open);
        }
        let opened = Arc::new(open()?);
        let mut all = self.open();
        all.retain(|(index, ..)| *index != file);
        all.push_front((file, Arc::clone(&opened), to_write));
        all.truncate(self.max);
        Ok(opened)
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<(usize, Arc<File>, bool)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn file() -> io::Result<File> {
        tempfile::tempfile()
    }

    #[test]
    fn the_last_that_were_used_stay_open_and_no_more() {
        let open = OpenFiles::new(2);
        let first = open.get_or_open(1, false, file).unwrap();
        open.get_or_open(2, false, file).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &open.get_or_open(1, false, || panic!("it is open") as io::Result<File>).unwrap()
        ));
        open.get_or_open(3, false, file).unwrap();
        assert!(open.get(1, false).is_some() && open.get(3, false).is_some());
        assert!(open.get(2, false).is_none(), "it was used before the others");
    }

    #[test]
    fn what_can_only_be_read_is_opened_again_to_be_written_to() {
        let open = OpenFiles::new(2);
        let read = open.get_or_open(1, false, file).unwrap();
        assert!(open.get(1, true).is_none());
        let write = open.get_or_open(1, true, file).unwrap();
        assert!(!Arc::ptr_eq(&read, &write));
        assert!(Arc::ptr_eq(&write, &open.get(1, false).unwrap()), "the one that can be written to stays");
    }
}
