//! HTTP as a test wants to speak it, well or badly.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Process, soon};

/// What a node answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status; 0 when it just closed the connection.
    pub status: u16,
    /// The lines before the body.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Where a node answers over HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Http(SocketAddr);

impl Http {
    /// That of a process which was started with `--http`.
    ///
    /// # Panics
    /// When it does not say where.
    pub async fn of(process: &mut Process) -> Self {
        let mark = "is shown at http://";
        let said =
            process.notes(|text| text.split_once(mark).is_some_and(|(_, rest)| rest.contains("/\n"))).await;
        let (_, rest) = said.split_once(mark).unwrap();
        Self(rest.split_once('/').unwrap().0.parse().unwrap())
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.0
    }

    /// A connection.
    ///
    /// # Panics
    /// When there is none.
    pub async fn connect(&self) -> TcpStream {
        // A node that listens everywhere is reached here.
        let address = SocketAddr::new("127.0.0.1".parse().unwrap(), self.0.port());
        TcpStream::connect(address).await.unwrap()
    }

    /// What comes of these bytes.
    ///
    /// # Panics
    /// When the answer is none.
    pub async fn send(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        // A node that refuses a request may not read all of it.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = soon("an answer over HTTP", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Asks for a path.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &self.0.to_string()).await
    }

    /// The same by another method or name.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn ask(&self, method: &str, path: &str, host: &str) -> Reply {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        self.send(request.as_bytes()).await
    }

    /// What is counted under this name, with all of these labels, each as `name="value"`; `None` when nothing is.
    ///
    /// # Panics
    /// When there are no numbers.
    pub async fn count(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let reply = self.get("/metrics").await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let is_it = |line: &&str| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        };
        let line = reply.body.lines().find(is_it)?;
        Some(line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until that is more than nothing.
    ///
    /// # Panics
    /// When it stays so.
    pub async fn counts(&self, name: &str, labels: &[&str]) {
        let counted = async { while self.count(name, labels).await.unwrap_or(0.0) <= 0.0 {} };
        soon(&format!("{name} {labels:?}"), counted).await;
    }

    /// Waits until a path is answered like this.
    ///
    /// # Panics
    /// When it is not.
    pub async fn answers(&self, path: &str, is_it: impl Fn(&Reply) -> bool) -> Reply {
        let answered = async {
            loop {
                let reply = self.get(path).await;
                if is_it(&reply) {
                    return reply;
                }
            }
        };
        soon(path, answered).await
    }
}
