//! What blocks, and must not on a task.

use crate::error::LoadError;

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    let ended = |_| LoadError::Worker(std::io::Error::other("it ended unexpectedly"));
    tokio::task::spawn_blocking(work).await.map_err(ended)
}
