//! A line to a peer that dies without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use node::Multiaddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::soon;

const BUFFER_BYTES: usize = 64 << 10;

/// Passes connections on to a peer, until one of them is dead: open at both ends, and nothing comes through.
#[derive(Debug)]
pub struct Line {
    address: String,
    dead: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// The connection with this number, from 0, dies when so many bytes of the peer have passed.
    ///
    /// # Panics
    /// When `address` is not that of a peer on TCP.
    pub async fn dying(address: &str, number: usize, after_bytes: usize) -> Self {
        let (at, id) = address.rsplit_once("/p2p/").unwrap();
        let peer = socket_of(&at.parse().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (died, dead) = watch::channel(false);
        let (died, next) = (Arc::new(died), AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(peer).await.unwrap();
                let is_dying = next.fetch_add(1, Ordering::Relaxed) == number;
                connections.spawn(pass(near, far, is_dying.then_some(after_bytes), Arc::clone(&died)));
            }
        });
        Self { address: format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}"), dead, _tasks: tasks }
    }

    /// Where the peer is found at the other end.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until the connection is dead.
    ///
    /// # Panics
    /// When it never is.
    pub async fn died(&self) {
        soon("a dead connection", self.dead.clone().wait_for(|dead| *dead)).await.unwrap();
    }
}

/// Both ways; an error ends it.
async fn pass(near: TcpStream, far: TcpStream, limit_bytes: Option<usize>, died: Arc<watch::Sender<bool>>) {
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    let there = async {
        let _ = tokio::io::copy(&mut from_near, &mut to_far).await;
    };
    let back = async {
        let (mut buffer, mut passed_bytes) = (vec![0; BUFFER_BYTES], 0);
        while let Ok(count @ 1..) = from_far.read(&mut buffer).await {
            if limit_bytes.is_some_and(|limit_bytes| passed_bytes >= limit_bytes) {
                died.send_replace(true);
                return;
            }
            passed_bytes += count;
            if to_near.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
    if *died.borrow() {
        // The halves stay open.
        std::future::pending::<()>().await;
    }
}

fn socket_of(address: &Multiaddr) -> SocketAddr {
    let text = address.to_string();
    let mut parts = text.split('/').skip(2);
    let (ip, port) = (parts.next().unwrap(), parts.nth(1).unwrap());
    SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap())
}
