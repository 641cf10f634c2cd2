//! A chain on virtual time, and endpoints that answer from it as told. No sockets: time is not spent, it passes.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::primitives::{B256, Bytes, U256};
use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::sol_types::SolValue as _;
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use manifest::Digest;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use crate::address::Address;
use crate::block::BlockTag;
use crate::config::{Config, Policy};
use crate::endpoint::Endpoint;
use crate::error::EndpointError;
use crate::reader::ChainReader;
use crate::rpc_url::RpcUrl;
use crate::state::unix_now;

/// The time between two blocks.
pub(super) const BLOCK: Duration = Duration::from_secs(12);

/// How an endpoint behaves just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Honest,
    Down,
    RateLimited,
    Nonsense,
    Silent,
    Lying,
    /// So many blocks behind.
    Lagging(u64),
    /// Claims a height of a billion.
    Boasting,
    /// On the other branch of a reorganisation.
    Reorganised,
}

#[derive(Clone)]
pub(super) struct World(Arc<Mutex<State>>);

struct State {
    start: Instant,
    /// From which height on the contract says which text.
    texts: Vec<(u64, String)>,
    moods: Vec<Mood>,
    requests: u64,
    /// That of every block: virtual time is far ahead of this machine's clock.
    timestamp: u64,
}

impl World {
    /// One whose endpoints are honest, and whose contract names the model 0.
    pub(super) fn new(endpoints: usize) -> Self {
        let texts = vec![(0, model(0).to_string())];
        let moods = vec![Mood::Honest; endpoints];
        let (start, timestamp) = (Instant::now(), unix_now());
        Self(Arc::new(Mutex::new(State { start, texts, moods, requests: 0, timestamp })))
    }

    /// A reader of the newest block, through all endpoints.
    pub(super) fn reader(&self, config: impl FnOnce(&mut Config)) -> ChainReader {
        let count = self.state().moods.len();
        let url = |i: usize| format!("http://e{i}").parse::<RpcUrl>().unwrap();
        let urls: Vec<_> = (0..count).map(url).collect();
        let over = |(i, url)| Endpoint::over(url, Line { world: self.clone(), endpoint: i });
        let endpoints = urls.iter().enumerate().map(over).collect();
        let mut of_all = Config::with_endpoints(urls, Address::from_bytes([7; 20]));
        of_all.block_tag = BlockTag::Latest;
        of_all.policy = Policy { attempts: 2, ..Policy::default() };
        config(&mut of_all);
        ChainReader::over(of_all, endpoints).unwrap()
    }

    /// From now on every block was made so long ago.
    pub(super) fn age(&self, age: Duration) {
        self.state().timestamp = unix_now() - age.as_secs();
    }

    /// The contract says this from the next block on.
    pub(super) fn set(&self, text: &str) {
        let mut state = self.state();
        let next = state.height() + 1;
        state.texts.push((next, text.to_owned()));
    }

    pub(super) fn mood(&self, endpoint: usize, mood: Mood) {
        self.state().moods[endpoint] = mood;
    }

    pub(super) fn all(&self, mood: Mood) {
        self.state().moods.fill(mood);
    }

    /// How many requests were made so far.
    pub(super) fn requests(&self) -> u64 {
        self.state().requests
    }

    /// How many hold on to this world: requests under way, too.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// The digest of the model with this number.
pub(super) fn model(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

impl State {
    fn height(&self) -> u64 {
        100 + self.start.elapsed().as_secs() / BLOCK.as_secs()
    }

    fn text(&self, height: u64) -> &str {
        &self.texts.iter().rev().find(|(from, _)| *from <= height).unwrap().1
    }

    fn answer(&mut self, endpoint: usize, method: &str, params: &Value) -> Result<Value, Mood> {
        self.requests += 1;
        let mood = self.moods[endpoint];
        if matches!(mood, Mood::Down | Mood::RateLimited | Mood::Nonsense | Mood::Silent) {
            return Err(mood);
        }
        let branch = u8::from(mood == Mood::Reorganised);
        let hash = |height: u64| B256::left_padding_from(&[&[branch][..], &height.to_be_bytes()].concat());
        let height = match mood {
            Mood::Lagging(blocks) => self.height() - blocks,
            Mood::Boasting => 1_000_000_000,
            _ => self.height(),
        };
        Ok(match method {
            "eth_chainId" => json!("0x1"),
            "eth_getBlockByNumber" => {
                let number = params[0].as_str().unwrap().strip_prefix("0x");
                let number = number.map_or(height, |digits| u64::from_str_radix(digits, 16).unwrap());
                if number > height {
                    return Ok(Value::Null);
                }
                let hash = if number == 0 { B256::ZERO } else { hash(number) };
                json!({"hash": hash, "number": format!("{number:#x}"), "timestamp": format!("{:#x}", self.timestamp)})
            }
            "eth_call" => {
                let hash: B256 = params[1]["blockHash"].as_str().unwrap().parse().unwrap();
                let height = u64::from_be_bytes(hash[24..].try_into().unwrap());
                let lie = model(u64::MAX).to_string();
                let text = if mood == Mood::Lying { &lie } else { self.text(height) };
                json!(Bytes::from((text.to_owned(), U256::ZERO).abi_encode_params()))
            }
            other => panic!("unexpected {other}"),
        })
    }
}

/// The way to one endpoint.
#[derive(Clone)]
struct Line {
    world: World,
    endpoint: usize,
}

impl Service<RequestPacket> for Line {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> TransportFut<'static> {
        let line = self.clone();
        Box::pin(async move {
            let request: Value = serde_json::from_str(request.serialize().unwrap().get()).unwrap();
            sleep(Duration::from_millis(20 + fastrand::u64(..200))).await;
            let method = request["method"].as_str().unwrap();
            let answer = line.world.state().answer(line.endpoint, method, &request["params"]);
            let respond = |key: &str, value: Value| {
                let text = json!({"jsonrpc": "2.0", "id": request["id"], key: value}).to_string();
                Ok(serde_json::from_str(&text).unwrap())
            };
            match answer {
                Ok(result) => respond("result", result),
                Err(Mood::RateLimited) => respond("error", json!({"code": -32005, "message": "slow down"})),
                Err(Mood::Nonsense) => respond("result", json!({"no": "sense"})),
                Err(mood) => {
                    // What a real one would do is in the crate's own transport: it gives up in time.
                    let after = Duration::from_secs(if mood == Mood::Silent { 20 } else { 1 });
                    sleep(after).await;
                    let endpoint = format!("e{}", line.endpoint);
                    let error = EndpointError::Timeout { endpoint, method: method.to_owned(), after };
                    Err(TransportErrorKind::custom(error))
                }
            }
        })
    }
}
