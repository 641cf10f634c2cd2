//! As much HTTP/1.1 as two programs on one machine need: bodies of a known length, and connections that stay.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::chain::Growing;

/// What is longer is no message of the node or of our own program.
const MAX_BYTES: usize = 16 << 20;

/// A connection, to a client or to the node.
pub(super) struct Connection {
    stream: TcpStream,
    /// What was read of the next message.
    read: Vec<u8>,
}

/// A request or an answer.
pub(super) struct Message {
    /// The first line and the headers.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// The next message; `None` when the connection ends before it does.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            if self.read.len() > MAX_BYTES || self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Message> {
        let end = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let whole = end.checked_add(4)?.checked_add(length)?;
        let body = self.read.get(end + 4..whole)?.to_vec();
        self.read.drain(..whole);
        Some(Message { head, body })
    }

    /// Answers with this status, these further headers, each with its line end, and this body.
    pub(super) async fn answer(&mut self, status: u16, headers: &str, body: &str) -> Option<()> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n{headers}\r\n");
        self.stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.ok()
    }

    /// Answers with a result that is so long, as far as the client reads.
    pub(super) async fn answer_at_length(&mut self, length: u64) -> Option<()> {
        let (start, end) = (r#"{"jsonrpc":"2.0","id":0,"result":"0x"#, "\"}");
        let whole = length.saturating_add((start.len() + end.len()) as u64);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {whole}\r\n\r\n{start}");
        self.stream.write_all(head.as_bytes()).await.ok()?;
        let (chunk, mut left) = (vec![b'a'; 1 << 16], length);
        while left > 0 {
            let next = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            self.stream.write_all(&chunk[..next]).await.ok()?;
            left -= next as u64;
        }
        self.stream.write_all(end.as_bytes()).await.ok()
    }

    /// Waits until the client gives up.
    pub(super) async fn until_closed(&mut self) {
        let mut ignored = [0; 1024];
        while let Ok(1..) = self.stream.read(&mut ignored).await {}
    }
}

/// The node, which is asked over one connection as long as that holds.
pub(super) struct Node<'a> {
    pub(super) address: &'a str,
    pub(super) growing: &'a Growing,
    pub(super) connection: &'a mut Option<Connection>,
}

impl Node<'_> {
    /// Its answer, a JSON-RPC object; `None` when it is gone.
    pub(super) async fn ask(&mut self, request: &Value) -> Option<Value> {
        let body = request.to_string();
        let address = self.address;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let message = [head.as_bytes(), body.as_bytes()].concat();
        let _still = self.growing.read().await;
        // A connection that was kept may have ended meanwhile.
        if let Some(kept) = self.connection.take()
            && let Some(answer) = self.exchange(kept, &message).await
        {
            return Some(answer);
        }
        let fresh = Connection::new(TcpStream::connect(address).await.ok()?);
        self.exchange(fresh, &message).await
    }

    async fn exchange(&mut self, mut connection: Connection, message: &[u8]) -> Option<Value> {
        connection.stream.write_all(message).await.ok()?;
        let answer = connection.receive().await?;
        *self.connection = Some(connection);
        serde_json::from_slice(&answer.body).ok()
    }

    /// The result of a method, `null` when it has none.
    pub(super) async fn result(&mut self, method: &str, params: Value) -> Option<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params});
        Some(self.ask(&request).await?["result"].take())
    }
}

/// A header's value; names are in any case.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
impl Connection {
    /// Sends a request with nothing but a method, to this target and with these headers.
    pub(super) async fn ask_raw(&mut self, target: &str, headers: &str, method: &str) {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method}).to_string();
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}");
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }
}
