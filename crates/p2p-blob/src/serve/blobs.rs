//! Serving 1.0.0: one whole blob per stream.

use std::sync::Arc;

use futures::{AsyncRead, AsyncWrite};
use manifest::ByteRange;

use super::read::{Outcome, Reader};
use super::service::{ServeError, Service};
use crate::limit::stall;
use crate::wire::v1;

/// Answers the one request and closes the stream.
pub(super) async fn serve(
    service: Service,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), ServeError> {
    let limit = service.progress_timeout;
    let mut request = [0; v1::REQUEST_BYTES];
    stall::read_exact(&mut stream, &mut request, limit, |_| ()).await?;
    let blob = v1::decode_request(&request)?;
    service.slot.begin_request();

    // This version cannot answer "busy": the request waits for a disk permit, and each chunk for an upload slot.
    let permit = service.disk_permit().await?;
    let store = Arc::clone(&service.store);
    let (mut reader, outcome) = Reader::default().first(permit, store, None, blob, None).await;
    let size_bytes = match outcome.map_err(ServeError::Store)? {
        Outcome::Read { size_bytes } => Some(size_bytes),
        Outcome::NotFound | Outcome::NotHeld | Outcome::OutOfBounds { .. } => None,
    };
    // The header goes out in one write: existing peers read it with one read.
    let header = v1::encode_size(size_bytes);
    stall::write_all(&mut stream, &header, limit).await?;
    let end = v1::decode_size(header).unwrap_or(0);
    let mut start = 0;
    while start < end {
        if start > 0 {
            reader = service.read_next(reader, ByteRange::new(start, end)).await?;
        }
        let chunk_bytes = reader.chunk().len() as u64;
        let slot = service.next_upload_slot(&blob, start, chunk_bytes).await;
        service.send(&mut stream, &slot, reader.chunk()).await?;
        start += chunk_bytes;
    }
    Ok(stall::close(&mut stream, limit).await?)
}
