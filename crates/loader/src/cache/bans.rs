//! Sources that lied, remembered for later runs.

use manifest::SourceId;

use super::lock::LockFile;
use super::{Cache, CacheError, atomic};
use crate::plan::{Bans, MAX_BANS_BYTES};

impl Cache {
    /// Who is banned. A file that cannot be understood bans nobody.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn bans(&self) -> Result<Bans, CacheError> {
        let bytes = atomic::read(&self.layout().bans(), MAX_BANS_BYTES)?.unwrap_or_default();
        Ok(Bans::from_text(&String::from_utf8_lossy(&bytes)))
    }

    /// Remembers that these sources were caught lying, at this time in Unix seconds.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn convict(&self, sources: &[SourceId], now_s: u64) -> Result<(), CacheError> {
        let _lock = LockFile::bans(&self.layout().locks()).exclusive()?;
        let mut bans = self.bans()?;
        sources.iter().for_each(|source| bans.convict(source, now_s));
        atomic::write_with(&self.layout().bans(), bans.to_text().as_bytes(), 0o644, false)
    }
}
