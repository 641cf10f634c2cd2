//! One stream of it: a text with its length, then the end, and no answer.

use std::collections::HashSet;
use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::Stream;
use manifest::Digest;
use tokio::sync::Semaphore;

use crate::wire::capability::{MAX_TOLD_BYTES, NAME, blobs_in};

/// How long the other end may take to end its side. A stream that is dropped before that is reset, which some transports
/// let overtake the bytes.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a stream was of no use. Nobody is blamed for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Useless {
    #[error("too many are being read")]
    Busy,
    #[error("a text of {0} bytes")]
    TooLong(u32),
    #[error("the stream was cut")]
    Cut(#[from] io::Error),
}

/// Reads what a peer tells.
#[derive(Debug, Clone)]
pub(crate) struct Hear {
    /// Those that may be read at a time: of all peers, and on this connection.
    pub(super) all: Arc<Semaphore>,
    pub(super) here: Arc<Semaphore>,
}

impl UpgradeInfo for Hear {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(NAME)
    }
}

impl InboundUpgrade<Stream> for Hear {
    type Output = HashSet<Digest>;
    type Error = Useless;
    type Future = BoxFuture<'static, Result<HashSet<Digest>, Useless>>;

    fn upgrade_inbound(self, mut stream: Stream, _: &'static str) -> Self::Future {
        let permits = (self.here.try_acquire_owned(), self.all.try_acquire_owned());
        async move {
            let (Ok(_here), Ok(_all)) = permits else { return Err(Useless::Busy) };
            let mut length = [0; 4];
            stream.read_exact(&mut length).await?;
            let length = u32::from_be_bytes(length);
            if length > MAX_TOLD_BYTES {
                return Err(Useless::TooLong(length));
            }
            // As much memory as has come, not as much as is claimed.
            let mut text = Vec::new();
            (&mut stream).take(length.into()).read_to_end(&mut text).await?;
            farewell(&mut stream).await;
            Ok(blobs_in(&text))
        }
        .boxed()
    }
}

/// Tells a peer: the frame, length included.
#[derive(Debug, Clone)]
pub(crate) struct Tell(pub(super) Arc<[u8]>);

impl UpgradeInfo for Tell {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(NAME)
    }
}

impl OutboundUpgrade<Stream> for Tell {
    type Output = ();
    type Error = Useless;
    type Future = BoxFuture<'static, Result<(), Useless>>;

    fn upgrade_outbound(self, mut stream: Stream, _: &'static str) -> Self::Future {
        async move {
            stream.write_all(&self.0).await?;
            farewell(&mut stream).await;
            Ok(())
        }
        .boxed()
    }
}

/// Ends this side and waits for the end of the other one, which may be gone already.
async fn farewell(stream: &mut Stream) {
    let ended = async {
        stream.close().await?;
        stream.read(&mut [0]).await
    };
    let _ = tokio::time::timeout(FAREWELL, ended).await;
}
