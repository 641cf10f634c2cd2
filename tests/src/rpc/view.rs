//! The part of the chain that an endpoint has, and how it sees it.

use serde_json::{Value, json};

use super::Mood;
use super::http::Node;

/// What an endpoint has of the chain, other than all of it.
pub(super) enum View {
    /// Nothing above this height.
    UpTo(u64),
    /// Another block under these tags.
    Tags(&'static [&'static str], u64),
    /// Other hashes from this height on.
    Branch(u64),
}

/// The view of a mood now, if it has one; `None` when the node is gone.
pub(super) async fn of(mood: &Mood, node: &mut Node<'_>) -> Option<Option<View>> {
    Some(Some(match mood {
        Mood::Lagging(blocks) => {
            let head = number(&node.result("eth_blockNumber", json!([])).await?)?;
            View::UpTo(head.saturating_sub(*blocks))
        }
        Mood::At(height) => View::UpTo(*height),
        Mood::Stuck { tags, height } => View::Tags(tags, *height),
        Mood::Branch(from) => View::Branch(*from),
        _ => return Some(None),
    }))
}

impl View {
    /// Changes a request to what it means in this view, or answers it.
    pub(super) async fn ask(
        &self,
        node: &mut Node<'_>,
        method: &str,
        request: &mut Value,
    ) -> Option<Option<Value>> {
        match self {
            Self::UpTo(head) if method == "eth_blockNumber" => {
                return Some(Some(json!({"result": hex(*head)})));
            }
            Self::Tags(tags, height) if method == "eth_blockNumber" && tags.contains(&"latest") => {
                return Some(Some(json!({"result": hex(*height)})));
            }
            _ => {}
        }
        let Some(at) = block_parameter(method) else { return Some(None) };
        let Some(params) = request["params"].as_array_mut() else { return Some(None) };
        // `latest` is what is meant where the block may be left out.
        if params.len() == at {
            params.push("latest".into());
        }
        let Some(block) = params.get_mut(at) else { return Some(None) };
        let is_there = match self {
            Self::UpTo(head) => up_to(*head, node, block).await?,
            Self::Tags(tags, height) => {
                if block.as_str().is_some_and(|tag| tags.contains(&tag)) {
                    *block = hex(*height);
                }
                true
            }
            Self::Branch(from) => on_branch(*from, node, block).await?,
        };
        Some((!is_there).then(|| missing(method)))
    }

    /// Changes a result to what it is in this view.
    pub(super) fn see(&self, method: &str, result: &mut Value) {
        let at = |field: &str| number(&result[field]);
        let height = if method.starts_with("eth_getBlock") { at("number") } else { at("blockNumber") };
        let Some(height) = height else { return };
        match self {
            Self::UpTo(head) if height > *head => *result = Value::Null,
            Self::Branch(from) if height >= *from => {
                let fields: &[&str] = match method {
                    "eth_getBlockByNumber" | "eth_getBlockByHash" if height > *from => {
                        &["hash", "parentHash"]
                    }
                    "eth_getBlockByNumber" | "eth_getBlockByHash" => &["hash"],
                    _ => &["blockHash"],
                };
                for field in fields {
                    if let Some(hash) = result[*field].as_str() {
                        result[*field] = turned(hash).into();
                    }
                }
            }
            _ => {}
        }
    }
}

/// Which parameter names a block, by tag, height or hash.
fn block_parameter(method: &str) -> Option<usize> {
    match method {
        "eth_getBlockByNumber" | "eth_getBlockByHash" | "eth_getBlockReceipts" => Some(0),
        "eth_call"
        | "eth_estimateGas"
        | "eth_getBalance"
        | "eth_getCode"
        | "eth_getTransactionCount"
        | "eth_feeHistory" => Some(1),
        "eth_getStorageAt" | "eth_getProof" => Some(2),
        _ => None,
    }
}

/// What a node answers about a block that it does not have.
fn missing(method: &str) -> Value {
    if method.starts_with("eth_getBlock") {
        return json!({"result": null});
    }
    json!({"error": {"code": -32000, "message": "header not found"}})
}

/// Whether the block is not above the head. A tag becomes the height that it has below this head: with one slot an epoch,
/// `safe` is one and `finalized` two blocks behind.
async fn up_to(head: u64, node: &mut Node<'_>, block: &mut Value) -> Option<bool> {
    let behind = match block.as_str() {
        Some("latest" | "pending") => Some(0),
        Some("safe") => Some(1),
        Some("finalized") => Some(2),
        _ => None,
    };
    if let Some(behind) = behind {
        *block = hex(head.saturating_sub(behind));
        return Some(true);
    }
    let height = match hash_of(block) {
        Some(hash) => height_of(node, &hash).await?,
        None => number(block).or_else(|| number(&block["blockNumber"])),
    };
    Some(height.is_none_or(|height| height <= head))
}

/// Whether the branch has the block. The hash of one that it has becomes that of the node's.
async fn on_branch(from: u64, node: &mut Node<'_>, block: &mut Value) -> Option<bool> {
    let Some(hash) = hash_of(block) else { return Some(true) };
    let ours = turned(&hash);
    if height_of(node, &ours).await?.is_some_and(|height| height >= from) {
        match block {
            Value::Object(fields) => fields.insert("blockHash".to_owned(), ours.into()).map(drop),
            other => {
                *other = ours.into();
                None
            }
        };
        return Some(true);
    }
    Some(height_of(node, &hash).await?.is_none_or(|height| height < from))
}

/// The hash that a parameter names its block by.
fn hash_of(block: &Value) -> Option<String> {
    let hash = block.as_str().or_else(|| block["blockHash"].as_str())?;
    (hash.len() == 66).then(|| hash.to_owned())
}

async fn height_of(node: &mut Node<'_>, hash: &str) -> Option<Option<u64>> {
    Some(number(&node.result("eth_getBlockByHash", json!([hash, false])).await?["number"]))
}

/// Another hash, whose other one is this.
fn turned(hash: &str) -> String {
    let turn = |digit: char| digit.to_digit(16).and_then(|value| char::from_digit(15 - value, 16));
    let turned = hash.chars().skip(2).map(|digit| turn(digit).unwrap_or(digit));
    "0x".chars().chain(turned).collect()
}

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

fn hex(number: u64) -> Value {
    format!("{number:#x}").into()
}
