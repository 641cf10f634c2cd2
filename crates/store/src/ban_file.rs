//! Bans of sources that lied, kept across runs.

use manifest::SourceId;

use super::ban_list::{BanList, MAX_BANS_BYTES};
use super::lock::LockFile;
use super::{Cache, CacheError, atomic};

impl Cache {
    /// The bans at this time in Unix seconds. A file that cannot be read or parsed has none. Those from the future, by a
    /// wrong clock, count from now on.
    pub fn bans(&self, now_s: u64) -> BanList {
        let (bans, is_changed) = self.read_bans(now_s);
        if is_changed && !self.is_read_only() {
            // Otherwise they would restart in each run.
            let written = self.change_bans(now_s, |_| ());
            if let Err(error) = written {
                tracing::warn!(%error, "cannot correct the times of bans");
            }
        }
        bans
    }

    /// Records that these sources were caught lying, at this time in Unix seconds.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn convict(&self, sources: &[SourceId], now_s: u64) -> Result<(), CacheError> {
        self.check_writable()?;
        self.change_bans(now_s, |bans| sources.iter().for_each(|source| bans.convict(source, now_s)))
    }

    fn change_bans(&self, now_s: u64, change: impl FnOnce(&mut BanList)) -> Result<(), CacheError> {
        let _lock = LockFile::bans(&self.layout().locks()).exclusive()?;
        let (mut bans, _) = self.read_bans(now_s);
        change(&mut bans);
        atomic::write_with(&self.layout().bans(), bans.to_text().as_bytes(), 0o644, false)
    }

    /// Also returns whether a time was corrected.
    fn read_bans(&self, now_s: u64) -> (BanList, bool) {
        let path = self.layout().bans();
        let bytes = match atomic::read(&path, MAX_BANS_BYTES) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "cannot read who is banned: nobody is");
                Vec::new()
            }
        };
        if bytes.len() as u64 > MAX_BANS_BYTES {
            tracing::warn!(path = %path.display(), "this is no list of bans, it is too long: nobody is banned");
            return (BanList::default(), false);
        }
        let mut bans = BanList::from_text(&String::from_utf8_lossy(&bytes));
        let is_changed = bans.end_future(now_s);
        (bans, is_changed)
    }
}
