//! RPC endpoints in front of one EVM node: honest ones, and such as lag, lie, stall and fail as a test wants, by turns.
//!
//! ```ignore
//! let rpc = Rpc::honest(&chain).await;
//! rpc.set(Mood::Lagging(3));
//! rpc.set(Mood::all([Mood::Slow(TWO_SECONDS), Mood::error(-32000, "no {request}").on(&["eth_call"])]));
//! rpc.asked("eth_call", 1).await;
//! rpc.set(Mood::Honest);
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::chain::Growing;
use crate::{Chain, soon};

mod http;
mod keys;
mod mood;
mod serve;
mod view;

pub use keys::Keys;
pub use mood::{ANYTHING, Mood};

use http::Connection;

/// An endpoint in front of a chain's node, which outlives it. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Rpc {
    url: String,
    keys: Keys,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What a test and the connections have in common.
#[derive(Debug)]
struct Shared {
    /// Host and port of the node.
    node: String,
    growing: Growing,
    now: Mutex<Now>,
    /// How often each method was asked.
    asked: watch::Sender<HashMap<String, u64>>,
}

/// How it behaves now.
#[derive(Debug, Default)]
struct Now {
    mood: Arc<Mood>,
    /// Methods of which [`Mood::Losing`] has lost an answer.
    lost: Vec<String>,
}

impl Rpc {
    /// One that is honest until it is told otherwise.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn honest(chain: &Chain) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            node: chain.devnet().rpc_url().to_string(),
            growing: Arc::clone(chain.growing()),
            now: Mutex::default(),
            asked: watch::Sender::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { url: format!("http://{address}"), keys: Keys::new(&address.to_string()), shared, task }
    }

    /// One that names the model `lie` where the contract names `truth`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn lying(chain: &Chain, truth: &str, lie: &str) -> Self {
        let rpc = Self::honest(chain).await;
        rpc.set(Mood::Lying { truth: truth.to_owned(), lie: lie.to_owned() });
        rpc
    }

    /// How it behaves from the next request on. Requests that it is silent about stay without an answer.
    pub fn set(&self, mood: Mood) {
        *self.shared.now.lock().unwrap_or_else(PoisonError::into_inner) =
            Now { mood: Arc::new(mood), lost: Vec::new() };
    }

    /// Its URL, without a key: none is asked for.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL with keys everywhere: in the user's name, the password, the path and the query.
    pub fn url_with_key(&self) -> String {
        self.keys.url()
    }

    /// The keys of that URL, and of a header.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How often a method was asked.
    pub fn count(&self, method: &str) -> u64 {
        self.shared.asked.borrow().get(method).copied().unwrap_or_default()
    }

    /// Waits until a method was asked so often in all.
    ///
    /// # Panics
    /// When it is not.
    pub async fn asked(&self, method: &str, times: u64) {
        let is_asked = |asked: &HashMap<String, u64>| asked.get(method).is_some_and(|count| *count >= times);
        let mut asked = self.shared.asked.subscribe();
        soon(&format!("{times} requests of {method}"), asked.wait_for(is_asked)).await.unwrap();
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let shared = Arc::clone(&shared);
                connections.spawn(async move { shared.attend(stream).await });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Shared {
    /// Answers the requests of one connection, until the client or the mood ends it.
    async fn attend(&self, stream: TcpStream) -> Option<()> {
        let (mut client, mut node) = (Connection::new(stream), None);
        while let Some(request) = client.receive().await {
            let json = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
            let method = json["method"].as_str().unwrap_or_default().to_owned();
            self.asked.send_modify(|asked| *asked.entry(method.clone()).or_default() += 1);
            self.answer(&mut client, &mut node, &request, json, &method).await?;
        }
        None
    }

    fn mood(&self) -> Arc<Mood> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner).mood)
    }

    /// Whether this is the first answer to the method in this mood.
    fn loses(&self, method: &str) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !now.lost.iter().any(|lost| lost == method);
        if is_first {
            now.lost.push(method.to_owned());
        }
        is_first
    }
}

#[cfg(test)]
mod tests;
