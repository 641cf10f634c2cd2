//! Blocking work, off the tasks.

use crate::error::LoadError;

/// Runs blocking work on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    let ended = |_| LoadError::Worker(std::io::Error::other("it ended unexpectedly"));
    tokio::task::spawn_blocking(work).await.map_err(ended)
}
