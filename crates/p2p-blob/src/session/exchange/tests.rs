//! One session with a peer in memory.

use libp2p::PeerId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admit::ConnectionSlots;
use crate::config::Limits;

const LENGTH: u32 = 100_000;

struct Session {
    asks: mpsc::Sender<Ask>,
    peer: DuplexStream,
}

fn start() -> Session {
    let (asks, receiver) = mpsc::channel(16);
    let (near, peer) = duplex(1 << 20);
    let id = PeerId::random();
    let limits = Limits::default();
    let exchange = Exchange {
        peer: crate::identity::source_id(&id),
        limit: Duration::from_secs(10),
        received_bytes: Arc::default(),
        uploads: Uploads::new(&limits, ConnectionSlots::new(&limits)),
        abandoned: CancellationToken::new(),
    };
    tokio::spawn(exchange.run(near.compat(), receiver, Download::new(id, None)));
    Session { asks, peer }
}

impl Session {
    /// Sends a request; gives what was lent, and where the answer comes.
    async fn get(&self) -> (Lent, oneshot::Receiver<Result<(u64, Vec<u8>), FetchError>>) {
        let blob = Digest::of(b"blob");
        let range = ByteRange::new(0, u64::from(LENGTH));
        let request = GetRequest { manifest: None, blob, blob_size_bytes: None, range };
        let buf = Lent::new(vec![0; LENGTH as usize]);
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Get { request, length: LENGTH, buf: buf.clone(), reply };
        self.asks.send(ask).await.ok().unwrap();
        (buf, answer)
    }

    /// As the peer, waits for a request.
    async fn requested(&mut self) {
        let length = self.peer.read_u32().await.unwrap();
        self.peer.read_exact(&mut vec![0; length as usize]).await.unwrap();
    }

    /// As the peer, sends an answer, but for so many of its last bytes.
    async fn answer(&mut self, byte: u8, but: usize) {
        let mut frame = GetHead { size_bytes: u64::from(LENGTH), length: LENGTH }.encode().to_vec();
        frame.extend(vec![byte; LENGTH as usize - but]);
        self.peer.write_all(&frame).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_forgets_a_request_has_its_buffer_back_whatever_the_peer_does() {
    let mut session = start();
    let (first, first_answer) = session.get().await;
    session.requested().await;
    let (second, second_answer) = session.get().await;
    session.requested().await;
    // As dropping the future of a GET does.
    drop((second.take_back_on_drop(), second_answer));
    assert!(second.take().is_none(), "the peer has not answered, and owes it for as long as it likes");
    assert!(first.take().is_some());
    drop(first_answer);
    // Both were sent: what comes belongs to them.
    session.answer(1, 0).await;
    session.answer(2, 0).await;
    let (_, third_answer) = session.get().await;
    session.requested().await;
    session.answer(3, 0).await;
    let (size_bytes, bytes) = third_answer.await.unwrap().unwrap();
    assert!(size_bytes == u64::from(LENGTH) && bytes == vec![3; LENGTH as usize]);
}

#[tokio::test]
async fn an_answer_that_is_forgotten_while_it_comes_is_skipped_to_its_end() {
    for but in [0, 1, LENGTH as usize / 2, LENGTH as usize] {
        let mut session = start();
        let (_, forgotten) = session.get().await;
        session.requested().await;
        session.answer(1, but).await;
        tokio::task::yield_now().await;
        drop(forgotten);
        tokio::task::yield_now().await;
        session.peer.write_all(&vec![1; but]).await.unwrap();
        let (_, answer) = session.get().await;
        session.requested().await;
        session.answer(2, 0).await;
        assert!(answer.await.unwrap().unwrap().1 == vec![2; LENGTH as usize], "{but}");
    }
}
