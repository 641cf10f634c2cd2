//! RPC endpoints in front of one EVM node, honest or lying.

use chain_reader::RpcUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Chain;

/// An endpoint that passes everything on to a chain's node. Dropping it stops it.
#[derive(Debug)]
pub struct Rpc {
    url: String,
    task: JoinHandle<()>,
}

impl Rpc {
    /// One that is honest.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn honest(chain: &Chain) -> Self {
        Self::start(chain.devnet().rpc_url(), None).await
    }

    /// One that names the model `lie` where the contract names `truth`: texts of the same length.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn lying(chain: &Chain, truth: &str, lie: &str) -> Self {
        assert_eq!(truth.len(), lie.len());
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self::start(chain.devnet().rpc_url(), Some((hex(truth), hex(lie)))).await
    }

    async fn start(node: &RpcUrl, swap: Option<(String, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (node, address) = (node.to_string(), listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&node).await;
                tokio::spawn(pass(client, server.ok(), swap.clone()));
            }
        });
        Self { url: format!("http://{address}"), task }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes everything both ways until one side ends, an answer at a time.
async fn pass(client: TcpStream, server: Option<TcpStream>, swap: Option<(String, String)>) -> Option<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server?.into_split();
    let requests = async { copy(&mut from_client, &mut to_server).await.ok().map(drop) };
    let answers = async {
        let mut answer = Vec::with_capacity(1 << 16);
        while from_server.read_buf(&mut answer).await.ok()? > 0 {
            let mut text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((truth, lie)) = &swap {
                text = text.replace(truth, lie);
            }
            to_client.write_all(text.as_bytes()).await.ok()?;
            answer.clear();
        }
        None
    };
    tokio::select! {
        done = requests => done,
        done = answers => done,
    }
}
