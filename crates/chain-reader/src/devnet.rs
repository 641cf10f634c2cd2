//! A throw-away chain on this machine: anvil with the RPB contract on it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use alloy::primitives::{B256, Bytes, U64, U256};
use alloy::rpc::json_rpc::RpcSend;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, copy, sink};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::address::Address;
use crate::config::Policy;
use crate::contract;
use crate::endpoint::Endpoint;
use crate::error::DevnetError;
use crate::receipt::Mined;
use crate::rpc_url::RpcUrl;

/// anvil starts in 30 ms; a loaded machine gets this long, for that and for each transaction.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks for a transaction.
const PAUSE: Duration = Duration::from_millis(10);
/// anvil prints its accounts before its port.
const MAX_BANNER_BYTES: u64 = 64 << 10;

/// Accounts 0 and 1 of the mnemonic every development chain uses: public, worthless.
const OWNER: Address = Address(alloy::primitives::address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
const OWNER_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const STRANGER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

/// A running anvil, whose `safe` block is one and whose `finalized` block is two behind the latest. Dropping it ends
/// the process.
pub struct Devnet {
    node: Child,
    rpc_url: RpcUrl,
    endpoint: Endpoint,
    contract: Address,
}

impl std::fmt::Debug for Devnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devnet").field("rpc_url", &self.rpc_url).field("contract", &self.contract).finish()
    }
}

impl Devnet {
    /// Starts the program at `anvil` on a free port and deploys the contract from its JSON, `{abi, bytecode}`. The
    /// contract is in block 1, so it takes two more blocks to be final: see [`mine`](Self::mine).
    ///
    /// # Errors
    /// [`DevnetError`]; a started anvil does not outlive it.
    pub async fn start(anvil: &Path, contract_json: &str) -> Result<Self, DevnetError> {
        // Not --silent: the port would not be printed.
        let spawned = Command::new(anvil)
            .args(["--port", "0", "--slots-in-an-epoch", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut node = spawned.map_err(|source| DevnetError::Spawn { path: anvil.to_owned(), source })?;
        let stdout = node.stdout.take();
        let listening = async { listening_url(stdout?).await };
        let rpc_url = timeout(PATIENCE, listening)
            .await
            .ok()
            .flatten()
            .ok_or_else(|| DevnetError::NotReady { path: anvil.to_owned(), after: PATIENCE })?;
        let policy = Policy { request_timeout: PATIENCE, ..Policy::default() };
        let endpoint = Endpoint::new(&rpc_url, policy)?;
        let mut devnet = Self { node, rpc_url, endpoint, contract: OWNER };
        devnet.contract = devnet.deploy(contract_json).await?;
        Ok(devnet)
    }

    /// Deploys one more contract from such a JSON, in a block of its own.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn deploy(&self, contract_json: &str) -> Result<Address, DevnetError> {
        let artifact: Artifact =
            serde_json::from_str(contract_json).map_err(|source| DevnetError::Artifact { source })?;
        let transaction = serde_json::json!({"from": OWNER.0, "data": artifact.bytecode});
        let deployed = self.send_as_owner(transaction).await?;
        Ok(deployed.contract_address.map_or(OWNER, Address))
    }

    /// Where it listens.
    pub fn rpc_url(&self) -> &RpcUrl {
        &self.rpc_url
    }

    /// The same as text, for the command line: there is no key in it.
    pub fn rpc_url_text(&self) -> &str {
        self.rpc_url.url().as_str()
    }

    /// The RPB contract.
    pub fn contract(&self) -> Address {
        self.contract
    }

    /// The private key of the contract's owner, a publicly known one.
    pub fn owner_key(&self) -> &'static str {
        OWNER_KEY
    }

    /// The private key of an account that has money, and no say in the contract.
    pub fn stranger_key(&self) -> &'static str {
        STRANGER_KEY
    }

    /// The process id of anvil, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.node.id()
    }

    /// Adds empty blocks. Two make everything before them final.
    ///
    /// # Errors
    /// [`DevnetError::Endpoint`].
    pub async fn mine(&self, blocks: u64) -> Result<(), DevnetError> {
        self.request("anvil_mine", (U64::from(blocks),)).await.map(drop)
    }

    /// Has the owner set any text as the model, digest or not, in a block of its own.
    ///
    /// # Errors
    /// [`DevnetError::Endpoint`], [`DevnetError::Transaction`].
    pub async fn set_text(&self, text: &str, price: U256) -> Result<(), DevnetError> {
        self.set_text_of(self.contract, text, price).await
    }

    /// The same of another contract.
    ///
    /// # Errors
    /// [`DevnetError::Endpoint`], [`DevnetError::Transaction`].
    pub async fn set_text_of(&self, contract: Address, text: &str, price: U256) -> Result<(), DevnetError> {
        let data = Bytes::from(contract::encode_set(text, price));
        let call = serde_json::json!({"from": OWNER.0, "to": contract.0, "data": data});
        self.send_as_owner(call).await.map(drop)
    }

    /// Asks anvil for anything, such as its own `anvil_*` methods.
    ///
    /// # Errors
    /// [`DevnetError::Endpoint`].
    pub async fn request<P: RpcSend>(
        &self,
        method: &'static str,
        params: P,
    ) -> Result<serde_json::Value, DevnetError> {
        Ok(self.endpoint.request(method, params).await?)
    }

    async fn send_as_owner(&self, transaction: serde_json::Value) -> Result<Mined, DevnetError> {
        let tx_hash: B256 = self.endpoint.request("eth_sendTransaction", (transaction,)).await?;
        let mined = timeout(PATIENCE, self.mined(tx_hash)).await.ok().transpose()?;
        mined
            .filter(|mined| mined.succeeded() == Some(true))
            .ok_or(DevnetError::Transaction { tx_hash, after: PATIENCE })
    }

    /// Looks until the transaction is in a block.
    async fn mined(&self, tx_hash: B256) -> Result<Mined, DevnetError> {
        loop {
            if let Some(mined) = self.endpoint.request("eth_getTransactionReceipt", (tx_hash,)).await? {
                return Ok(mined);
            }
            sleep(PAUSE).await;
        }
    }
}

/// What `tests/contracts/compile.mjs` writes.
#[derive(Deserialize)]
struct Artifact {
    bytecode: Bytes,
}

/// Reads anvil's output up to its "Listening on HOST:PORT" and leaves a task that reads on: a full pipe would stop it.
async fn listening_url(stdout: impl AsyncRead + Send + Unpin + 'static) -> Option<RpcUrl> {
    let mut lines = BufReader::new(stdout.take(MAX_BANNER_BYTES)).lines();
    loop {
        let line = lines.next_line().await.ok()??;
        let Some(address) = line.strip_prefix("Listening on ") else { continue };
        let url = format!("http://{}", address.trim()).parse().ok()?;
        let mut rest = lines.into_inner().into_inner().into_inner();
        tokio::spawn(async move { copy(&mut rest, &mut sink()).await });
        return Some(url);
    }
}
