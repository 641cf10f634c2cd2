//! RPC endpoints that answer anything at all, whatever is asked.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An endpoint whose answers a test makes up: an HTTP status and body for each method. Dropping it stops it.
#[derive(Debug)]
pub struct Parrot {
    address: String,
    task: JoinHandle<()>,
}

type Says = dyn Fn(&str) -> (u16, String) + Send + Sync;

impl Parrot {
    /// One that says this to a method. To what is no JSON-RPC, such as the request for a WebSocket, it says what it would
    /// to a method without a name.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(says: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let says: Arc<Says> = Arc::new(says);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&says)));
            }
        });
        Self { address, task }
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one request.
async fn answer(mut stream: TcpStream, says: Arc<Says>) -> Option<()> {
    let mut received = Vec::new();
    let method = loop {
        if stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&received);
        match text.split_once("\r\n\r\n") {
            Some((head, _)) if head.starts_with("GET ") => break String::new(),
            Some((_, body)) => {
                if let Ok(request) = serde_json::from_str::<Value>(body) {
                    break request["method"].as_str().unwrap_or_default().to_owned();
                }
            }
            None => {}
        }
    };
    let (status, body) = says(&method);
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.ok()
}
