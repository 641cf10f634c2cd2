//! Endpoints in front of one anvil: honest ones that pass everything on, and others that change some of it.

use std::time::Duration;

use chain_reader::{BlockTag, ChainReader, Config, Devnet};
use serde_json::{Value, json};

use crate::config;
use crate::scripted::{Answer, Scripted};

/// The port of the node.
pub(crate) fn port(devnet: &Devnet) -> u16 {
    devnet.rpc_url().to_string().rsplit(':').next().unwrap().parse().unwrap()
}

/// Passes a request on, and changes its result.
pub(crate) fn pass(
    port: u16,
    method: &str,
    params: &Value,
    change: impl FnOnce(&mut Value) + Send + 'static,
) -> Answer {
    Answer::Forward { port, method: method.to_owned(), params: params.clone(), change: Box::new(change) }
}

/// An endpoint that passes on all for which `twist` has nothing else.
pub(crate) async fn twisted(
    devnet: &Devnet,
    mut twist: impl FnMut(&str, &Value) -> Option<Answer> + Send + 'static,
) -> Scripted {
    let port = port(devnet);
    let script = move |method: &str, params: &Value| {
        twist(method, params).unwrap_or_else(|| pass(port, method, params, |_| ()))
    };
    Scripted::start(script).await
}

pub(crate) async fn honest(devnet: &Devnet) -> Scripted {
    twisted(devnet, |_, _| None).await
}

/// Changes the results of one method.
pub(crate) async fn changes(devnet: &Devnet, wanted: &'static str, change: fn(&mut Value)) -> Scripted {
    let port = port(devnet);
    twisted(devnet, move |method, params| (method == wanted).then(|| pass(port, method, params, change)))
        .await
}

/// Answers one method like this.
pub(crate) async fn answers(
    devnet: &Devnet,
    wanted: &'static str,
    mut answer: impl FnMut() -> Answer + Send + 'static,
) -> Scripted {
    twisted(devnet, move |method, _| (method == wanted).then(&mut answer)).await
}

/// Has under each tag the block of this height.
pub(crate) async fn at_height(devnet: &Devnet, height: u64) -> Scripted {
    let port = port(devnet);
    let twist = move |method: &str, params: &Value| {
        let is_tag = method == "eth_getBlockByNumber"
            && ["latest", "safe", "finalized"].iter().any(|tag| params[0] == *tag);
        is_tag.then(|| pass(port, method, &json!([format!("{height:#x}"), false]), |_| ()))
    };
    twisted(devnet, twist).await
}

/// Takes this long for each answer.
pub(crate) async fn slow(devnet: &Devnet, by: Duration) -> Scripted {
    let port = port(devnet);
    let late = move |method: &str, params: &Value| {
        Some(Answer::Late(by, Box::new(pass(port, method, params, |_| ()))))
    };
    twisted(devnet, late).await
}

/// Lies about the string: a digest with each 0 made a 1.
pub(crate) fn lie(result: &mut Value) {
    let (head, digest) = result.as_str().unwrap().split_at(2 + 3 * 64);
    let digits = digest.as_bytes().chunks(2).map(|pair| if pair == b"30" { b"31" } else { pair });
    *result = json!(format!("{head}{}", String::from_utf8(digits.flatten().copied().collect()).unwrap()));
}

/// Claims a height of 10^9.
pub(crate) fn exaggerate(result: &mut Value) {
    if result["number"] != "0x0" {
        result["number"] = json!("0x3b9aca00");
    }
}

/// The configuration that asks all of these.
pub(crate) fn config_of(devnet: &Devnet, tag: BlockTag, endpoints: &[&Scripted]) -> Config {
    let rpc_urls = endpoints.iter().map(|endpoint| endpoint.url.clone()).collect();
    config(devnet, tag).with_rpc_urls(rpc_urls)
}

pub(crate) fn reader_of(devnet: &Devnet, tag: BlockTag, endpoints: &[&Scripted]) -> ChainReader {
    ChainReader::new(config_of(devnet, tag, endpoints)).unwrap()
}
