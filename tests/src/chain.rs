//! A real EVM node with the contract on it.

use std::fs;
use std::sync::Arc;

use chain_reader::{Address, Devnet, U256};
use tokio::sync::RwLock;

use crate::tools;

/// A chain of the test's own.
#[derive(Debug)]
pub struct Chain {
    devnet: Devnet,
    growing: Growing,
}

/// Held for writing while a block is made. anvil answers a call at the newest block with the state of the one that it is
/// making: whoever reads meanwhile would see the future, at several endpoints at once.
pub(crate) type Growing = Arc<RwLock<()>>;

impl Chain {
    /// Starts anvil and deploys the contract.
    ///
    /// # Panics
    /// When that fails.
    pub async fn start() -> Self {
        let devnet = Devnet::start(&tools::anvil(), &contract_json()).await.unwrap();
        Self { devnet, growing: Growing::default() }
    }

    /// Has the owner set the model, and makes that final.
    ///
    /// # Panics
    /// When that fails.
    pub async fn set(&self, text: &str) {
        self.name(text).await;
        self.mine(2).await;
    }

    /// Deploys one more contract of the same kind. It becomes final with the blocks after it.
    ///
    /// # Panics
    /// When that fails.
    pub async fn another(&self) -> Address {
        let _growing = self.growing.write().await;
        self.devnet.deploy(&contract_json()).await.unwrap()
    }

    /// Has the owner set the model of that, and makes that final.
    ///
    /// # Panics
    /// When that fails.
    pub async fn set_of(&self, contract: Address, text: &str) {
        {
            let _growing = self.growing.write().await;
            self.devnet.set_text_of(contract, text, U256::ZERO).await.unwrap();
        }
        self.mine(2).await;
    }

    /// Has the owner set the model, in one more block.
    ///
    /// # Panics
    /// When that fails.
    pub async fn name(&self, text: &str) {
        let _growing = self.growing.write().await;
        self.devnet.set_text(text, U256::ZERO).await.unwrap();
    }

    /// Adds empty blocks: two make all before them final.
    ///
    /// # Panics
    /// When that fails.
    pub async fn mine(&self, blocks: u64) {
        let _growing = self.growing.write().await;
        self.devnet.mine(blocks).await.unwrap();
    }

    /// The height of the newest block.
    ///
    /// # Panics
    /// When the node does not say.
    pub async fn height(&self) -> u64 {
        let height = self.devnet.request("eth_blockNumber", ()).await.unwrap();
        u64::from_str_radix(height.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// Replaces so many of the newest blocks by empty ones.
    ///
    /// # Panics
    /// When the node does not.
    pub async fn reorganise(&self, blocks: u64) {
        let _growing = self.growing.write().await;
        let no_transactions: [(); 0] = [];
        self.devnet.request("anvil_reorg", (blocks, no_transactions)).await.unwrap();
    }

    /// Flags that name the contract and the node.
    pub fn flags(&self) -> [String; 4] {
        let url = self.devnet.rpc_url_text().to_owned();
        ["--contract".to_owned(), self.contract(), "--rpc-url".to_owned(), url]
    }

    /// The contract's address.
    pub fn contract(&self) -> String {
        self.devnet.contract().to_string()
    }

    pub(crate) fn growing(&self) -> &Growing {
        &self.growing
    }

    /// The node itself.
    pub fn devnet(&self) -> &Devnet {
        &self.devnet
    }
}

fn contract_json() -> String {
    fs::read_to_string(tools::tests_dir().join("contracts/RPB.json")).unwrap()
}
