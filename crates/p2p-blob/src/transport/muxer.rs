//! Yamux, with larger frames than `libp2p-yamux` has: between nodes of this kind much larger ones.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::UpgradeInfo;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use tokio::time::Sleep;
use yamux::{Connection, ConnectionError, Mode};

/// Which frames a peer takes. The bytes on the wire are yamux in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    /// A node of this kind reads frames of any size that yamux allows.
    Large,
    /// Python peers read frames of less than 64 KiB.
    Standard,
}

impl Frames {
    /// The better one first.
    pub(super) const ALL: [Self; 2] = [Self::Large, Self::Standard];

    fn max_bytes(self) -> usize {
        match self {
            Self::Large => 256 << 10,
            Self::Standard => 63 << 10,
        }
    }
}

impl AsRef<str> for Frames {
    fn as_ref(&self) -> &str {
        match self {
            Self::Large => "/autonet/yamux-large/1.0.0",
            Self::Standard => "/yamux/1.0.0",
        }
    }
}

/// Streams of one connection, both ways; `yamux` ends a connection that has more.
const MAX_STREAMS: usize = 512;
/// What a stream may have under way without being read, at first: part of yamux.
const FIRST_WINDOW_BYTES: usize = 256 << 10;
/// By how much the windows of a connection's streams grow at most, all together: what 4 Gbit/s have under way over 150 ms, as
/// long as one connection carries all of it. They grow only by what is read.
const MAX_WINDOW_GROWTH_BYTES: usize = 80 << 20;
/// Streams that wait to be taken; further ones are reset. As many as `yamux` opens unacknowledged.
const MAX_WAITING_STREAMS: usize = 256;

/// How long a connection may take to close: with a peer that does not read it never does.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes connections into [`Muxer`]s.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Config;

/// The streams of `connection`.
pub(super) fn muxer<C: AsyncRead + AsyncWrite + Unpin>(
    connection: C,
    frames: Frames,
    mode: Mode,
) -> Muxer<C> {
    let mut config = yamux::Config::default();
    config
        .set_max_num_streams(MAX_STREAMS)
        .set_max_connection_receive_window(Some(MAX_STREAMS * FIRST_WINDOW_BYTES + MAX_WINDOW_GROWTH_BYTES))
        .set_split_send_size(frames.max_bytes());
    Muxer {
        connection: Connection::new(connection, config, mode),
        waiting: VecDeque::new(),
        inbound_waker: None,
        closing: None,
    }
}

impl UpgradeInfo for Config {
    type Info = Frames;
    type InfoIter = [Frames; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        Frames::ALL
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, connection: C, frames: Frames) -> Self::Future {
        ready(Ok(muxer(connection, frames, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, connection: C, frames: Frames) -> Self::Future {
        ready(Ok(muxer(connection, frames, Mode::Client)))
    }
}

/// The streams of one connection.
///
/// `yamux` moves the bytes of all streams when it is asked for the next inbound one, and in no other way.
#[derive(Debug)]
pub(crate) struct Muxer<C> {
    connection: Connection<C>,
    /// Streams that came up while only progress was asked for.
    waiting: VecDeque<yamux::Stream>,
    /// Woken when an inbound stream arrives.
    inbound_waker: Option<Waker>,
    /// When closing is given up.
    closing: Option<Pin<Box<Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, ConnectionError>> {
        self.connection.poll_next_inbound(cx).map(|next| next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.inbound_waker = Some(cx.waker().clone());
        }
        next.map_err(into_io)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.connection.poll_new_outbound(cx).map_err(into_io)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(closed) = self.connection.poll_close(cx) {
            return Poll::Ready(closed.map_err(into_io));
        }
        let closing = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_TIMEOUT)));
        closing.as_mut().poll(cx).map(Ok)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let stream = match self.poll_next(cx) {
            Poll::Ready(Ok(stream)) => stream,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(into_io(error))),
            Poll::Pending => return Poll::Pending,
        };
        if self.waiting.len() < MAX_WAITING_STREAMS {
            self.waiting.push_back(stream);
            if let Some(waker) = self.inbound_waker.take() {
                waker.wake();
            }
        } else {
            tracing::debug!(%stream, "a stream that nobody takes is reset");
        }
        // There may be more to do: others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn into_io(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::io::{AsyncReadExt as _, DuplexStream};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

    use super::*;

    const HEADER_BYTES: usize = 12;
    /// What a stream sends before the other end has answered.
    const SENT_BYTES: usize = FIRST_WINDOW_BYTES;

    async fn drive(muxer: &mut Muxer<Compat<DuplexStream>>) {
        let ended = poll_fn(|cx| Pin::new(&mut *muxer).poll(cx)).await;
        ended.unwrap();
    }

    /// The lengths of the data frames that carry a window full of bytes.
    async fn frame_lengths(frames: Frames) -> Vec<usize> {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let mut muxer = Config.upgrade_outbound(near.compat(), frames).into_inner().unwrap();
        let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx)).await.unwrap();
        let sent = vec![7; SENT_BYTES];
        let received = async {
            let (mut lengths, mut left_bytes) = (Vec::new(), SENT_BYTES);
            while left_bytes > 0 {
                let mut header = [0; HEADER_BYTES];
                far.read_exact(&mut header).await.unwrap();
                // Data is type 0; other frames have no body.
                if header[1] == 0 {
                    let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
                    far.read_exact(&mut vec![0; length]).await.unwrap();
                    lengths.push(length);
                    left_bytes -= length;
                }
            }
            lengths
        };
        tokio::select! {
            () = drive(&mut muxer) => unreachable!("the connection does nothing by itself"),
            (_, lengths) = async { futures::join!(stream.write_all(&sent), received) } => lengths,
        }
    }

    #[tokio::test]
    async fn frames_are_as_large_as_the_other_end_reads_them() {
        assert_eq!(frame_lengths(Frames::Large).await, [SENT_BYTES]);
        let lengths = frame_lengths(Frames::Standard).await;
        assert!(lengths.iter().all(|length| *length < 64 << 10), "{lengths:?}");
        assert_eq!(lengths.iter().sum::<usize>(), SENT_BYTES);
    }

    #[tokio::test]
    async fn a_stream_carries_bytes_both_ways_and_ends() {
        for frames in Config.protocol_info() {
            let (near, far) = tokio::io::duplex(64 << 10);
            let mut client = Config.upgrade_outbound(near.compat(), frames).into_inner().unwrap();
            let mut server = Config.upgrade_inbound(far.compat(), frames).into_inner().unwrap();
            let mut asking = poll_fn(|cx| Pin::new(&mut client).poll_outbound(cx)).await.unwrap();
            let question: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
            let exchange = async {
                let mut answer = Vec::new();
                futures::try_join!(
                    async {
                        asking.write_all(&question).await?;
                        asking.close().await
                    },
                    async {
                        let mut echo = vec![0; question.len()];
                        let mut answering = poll_fn(|cx| Pin::new(&mut server).poll_inbound(cx)).await?;
                        tokio::select! {
                            () = drive(&mut server) => unreachable!("the connection does nothing by itself"),
                            done = async {
                                answering.read_exact(&mut echo).await?;
                                answer = echo;
                                answering.close().await
                            } => done,
                        }
                    },
                )
                .unwrap();
                answer
            };
            tokio::select! {
                () = drive(&mut client) => unreachable!("the connection does nothing by itself"),
                answer = exchange => assert_eq!(answer, question),
            }
        }
    }
}
