//! What becomes of one request.

use serde_json::{Value, json};

use super::http::{Connection, Message, Node, header};
use super::keys::{base64_decoded, percent_decoded};
use super::{Mood, Shared, view};

impl Shared {
    /// Answers a request as the mood is; `None` when the connection is to end.
    pub(super) async fn answer(
        &self,
        client: &mut Connection,
        node: &mut Option<Connection>,
        request: &Message,
        json: Value,
        method: &str,
    ) -> Option<()> {
        let mood = self.mood();
        let parts = mood.parts(method);
        for part in &parts {
            match part {
                Mood::Slow(time) => tokio::time::sleep(*time).await,
                Mood::Silent => {
                    client.until_closed().await;
                    return None;
                }
                Mood::Closing => return None,
                Mood::Status { status, retry_after_s, text } => {
                    let retry = retry_after_s.map(|seconds| format!("retry-after: {seconds}\r\n"));
                    let text = filled(text, request);
                    return client.answer(*status, &retry.unwrap_or_default(), &text).await;
                }
                Mood::Text(text) => return client.answer(200, "", &filled(text, request)).await,
                Mood::Huge(bytes) => return client.answer_at_length(*bytes).await,
                Mood::Answer(answer) => {
                    let answer = object(&json["id"], filled_in(answer, request));
                    return client.answer(200, "", &answer.to_string()).await;
                }
                _ => {}
            }
        }
        let mut node = Node { address: &self.node, growing: &self.growing, connection: node };
        let answer = pass_on(&parts, &mut node, request, json, method).await?;
        if parts.iter().any(|part| matches!(part, Mood::Losing)) && self.loses(method) {
            return None;
        }
        client.answer(200, "", &answer.to_string()).await
    }
}

/// Asks the node for what these moods leave of the request, and has them change its answer.
async fn pass_on(
    parts: &[&Mood],
    node: &mut Node<'_>,
    came: &Message,
    mut request: Value,
    method: &str,
) -> Option<Value> {
    let id = request["id"].clone();
    let mut views = Vec::new();
    for part in parts {
        views.extend(view::of(part, node).await?);
    }
    for view in &views {
        if let Some(answer) = view.ask(node, method, &mut request).await? {
            return Some(object(&id, answer));
        }
    }
    let mut answer = node.ask(&request).await?;
    let Some(result) = answer.get_mut("result") else { return Some(answer) };
    views.iter().rev().for_each(|view| view.see(method, result));
    for part in parts {
        match part {
            Mood::Lying { truth, lie } if method == "eth_call" => {
                name_another(result, truth, &filled(lie, came));
            }
            Mood::Boasting(height) => boast(method, &request["params"], result, *height),
            _ => {}
        }
    }
    Some(answer)
}

fn object(id: &Value, mut answer: Value) -> Value {
    if let Value::Object(fields) = &mut answer {
        fields.insert("jsonrpc".to_owned(), "2.0".into());
        fields.insert("id".to_owned(), id.clone());
    }
    answer
}

/// Lies about what `getMatureModel()` returns: the ABI's `(string, uint256)`.
fn name_another(result: &mut Value, truth: &str, lie: &str) {
    let named = result.as_str().and_then(string_and_price);
    let Some((_, price)) = named.filter(|(named, _)| named.contains(truth)) else { return };
    let hex: String = lie.bytes().map(|byte| format!("{byte:02x}")).collect();
    let padded = hex.len().next_multiple_of(64);
    *result = format!("0x{:064x}{price}{:064x}{hex:0<padded$}", 64, lie.len()).into();
}

/// The string, and the word that is the price.
fn string_and_price(returned: &str) -> Option<(String, &str)> {
    let words = returned.strip_prefix("0x")?;
    let word = |at: usize| words.get(at * 64..(at + 1) * 64);
    let number = |at: usize| usize::from_str_radix(word(at)?, 16).ok();
    if number(0)? != 64 {
        return None;
    }
    let hex = words.get(3 * 64..)?.get(..number(2)?.checked_mul(2)?)?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes = (0..hex.len()).step_by(2).map(byte).collect::<Option<Vec<_>>>()?;
    Some((String::from_utf8_lossy(&bytes).into_owned(), word(1)?))
}

fn boast(method: &str, params: &Value, result: &mut Value, height: u64) {
    let height = Value::from(format!("{height:#x}"));
    let is_tag = params[0].as_str().is_some_and(|block| !block.starts_with("0x") && block != "earliest");
    match method {
        "eth_blockNumber" => *result = height,
        "eth_getBlockByNumber" if is_tag && result.is_object() => result["number"] = height,
        _ => {}
    }
}

/// The text with what came with the request in the places for it.
fn filled(text: &str, request: &Message) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let target = request.head.split(' ').nth(1).unwrap_or_default();
    let headers = request.head.split_once("\r\n").map_or("", |(_, headers)| headers);
    let pair = header(headers, "authorization").and_then(|value| value.strip_prefix("Basic "));
    let decoded = format!("{} {}", pair.map(base64_decoded).unwrap_or_default(), percent_decoded(target));
    text.replace("{request}", "{decoded} {target} {headers}")
        .replace("{target}", target)
        .replace("{headers}", headers)
        .replace("{decoded}", &decoded)
}

/// The same in all texts of a JSON value.
fn filled_in(value: &Value, request: &Message) -> Value {
    match value {
        Value::String(text) => filled(text, request).into(),
        Value::Array(values) => values.iter().map(|value| filled_in(value, request)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), filled_in(value, request))).collect()
        }
        other => json!(other),
    }
}
