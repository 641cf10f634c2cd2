//! The download rate limit.

use std::time::Duration;

use futures::AsyncRead;
use libp2p::PeerId;

use super::RateLimit;
use crate::limit::stall::{self, Halt};

/// One stream's use of the rate limit that all streams of the node share.
#[derive(Debug)]
pub(crate) struct Download {
    peer: PeerId,
    rate: Option<RateLimit<PeerId>>,
    /// Allowed and not read yet.
    allowed_bytes: usize,
}

impl Download {
    /// Without a rate, unlimited.
    pub(crate) fn new(peer: PeerId, rate: Option<RateLimit<PeerId>>) -> Self {
        Self { peer, rate, allowed_bytes: 0 }
    }

    /// The sender.
    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Fills `buf`; `on_bytes` is called with the number of bytes as they arrive. Waiting for the rate limit does not
    /// count as a stall of the peer.
    ///
    /// **Cancel safety.** Bytes read until then were reported, and count for the rate.
    pub(crate) async fn read_exact<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        mut buf: &mut [u8],
        limit: Duration,
        mut on_bytes: impl FnMut(usize),
    ) -> Result<(), Halt> {
        let Some(rate) = &self.rate else {
            return stall::read_exact(reader, buf, limit, on_bytes).await;
        };
        while !buf.is_empty() {
            if self.allowed_bytes == 0 {
                self.allowed_bytes = rate.take(self.peer).await;
            }
            let (now, later) = buf.split_at_mut(self.allowed_bytes.min(buf.len()));
            let allowed_bytes = &mut self.allowed_bytes;
            let count = |bytes| {
                *allowed_bytes -= bytes;
                on_bytes(bytes);
            };
            stall::read_exact(reader, now, limit, count).await?;
            buf = later;
        }
        Ok(())
    }
}
