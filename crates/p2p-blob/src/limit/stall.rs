//! Reads and writes with a stall timeout: given up when no byte moves for a while, however long they take in all.

use std::io;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Why a read or write ended early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// No byte moved for the whole limit.
    Stalled,
    /// The stream has ended, with what the transport says.
    Closed(Option<io::Error>),
}

/// Fills `buf`; `on_bytes` is called with the number of bytes as they arrive.
pub(crate) async fn read_exact<R: AsyncRead + Unpin>(
    reader: &mut R,
    mut buf: &mut [u8],
    limit: Duration,
    mut on_bytes: impl FnMut(usize),
) -> Result<(), Halt> {
    while !buf.is_empty() {
        let read_bytes = within(limit, reader.read(buf)).await?;
        if read_bytes == 0 {
            return Err(Halt::Closed(None));
        }
        on_bytes(read_bytes);
        buf = &mut buf[read_bytes..];
    }
    Ok(())
}

/// Writes some of `bytes`, and says how many.
pub(crate) async fn write_some<W: AsyncWrite + Unpin>(
    writer: &mut W,
    bytes: &[u8],
    limit: Duration,
) -> Result<usize, Halt> {
    match within(limit, writer.write(bytes)).await? {
        0 => Err(Halt::Closed(None)),
        written_bytes => Ok(written_bytes),
    }
}

/// Writes all of `bytes`.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    writer: &mut W,
    mut bytes: &[u8],
    limit: Duration,
) -> Result<(), Halt> {
    while !bytes.is_empty() {
        bytes = &bytes[write_some(writer, bytes, limit).await?..];
    }
    Ok(())
}

/// Sends what is buffered.
pub(crate) async fn flush<W: AsyncWrite + Unpin>(writer: &mut W, limit: Duration) -> Result<(), Halt> {
    within(limit, writer.flush()).await
}

/// Ends the writing half and sends what is buffered.
pub(crate) async fn close<W: AsyncWrite + Unpin>(writer: &mut W, limit: Duration) -> Result<(), Halt> {
    within(limit, writer.close()).await
}

/// One step, which moves bytes or is given up after `limit`.
pub(crate) async fn within<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, Halt> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result.map_err(|error| Halt::Closed(Some(error))),
        Err(_) => Err(Halt::Stalled),
    }
}
