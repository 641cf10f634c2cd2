//! WebSocket subscriptions to events of the contract: hints to poll sooner, never trusted.

use std::sync::Arc;
use std::time::Duration;

use alloy::sol_types::SolEvent as _;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use reqwest::header::{self, HeaderValue};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::address::Address;
use crate::contract::MatureModelSet;
use crate::error::with_causes;
use crate::excerpt::Excerpt;
use crate::rpc_url::HintUrl;
use crate::transport::{USER_AGENT, tls_config};

/// An event of the contract is a few hundred bytes.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// How long connecting, and subscribing, may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Keepalive interval of a silent endpoint.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// The pause after each message: a flood waits in the sender's buffers.
const MESSAGE_PAUSE: Duration = Duration::from_millis(50);
/// Exponential backoff before reconnecting.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// A connection that held for this long resets the backoff.
const GOOD_CONNECTION: Duration = Duration::from_secs(60);
/// Burst of hints that are followed; then one for each interval.
const BURST: usize = 3;

/// The connections. Dropping this ends them.
pub(crate) struct Hints {
    /// Holds one hint at most, however many came.
    hinted: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Hints {
    pub(crate) fn start(urls: &[HintUrl], contract: Address) -> Self {
        let hinted = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        for url in urls {
            tasks.spawn(listen(url.clone(), contract, Arc::clone(&hinted)));
        }
        Self { hinted, _tasks: tasks }
    }

    /// Waits for a hint, or takes the pending one.
    pub(crate) async fn wait(&self) {
        self.hinted.notified().await;
    }

    /// Drops the pending hint.
    pub(crate) fn clear(&self) {
        let _ = self.hinted.notified().now_or_never();
    }

    #[cfg(test)]
    pub(crate) fn notify(&self) -> &Arc<Notify> {
        &self.hinted
    }
}

/// The rate limit of hints: their sender must not control the rate of RPC requests.
#[derive(Debug)]
pub(crate) struct HintBudget {
    interval: Duration,
    /// When the last ones were followed, oldest first.
    spent: [Option<Instant>; BURST],
}

impl HintBudget {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, spent: [None; BURST] }
    }

    /// From when on a hint is followed again.
    pub(crate) fn allowed_at(&self) -> Instant {
        let burst = u32::try_from(BURST).unwrap_or(u32::MAX);
        self.spent[0].map_or_else(Instant::now, |oldest| oldest + self.interval * burst)
    }

    pub(crate) fn spend(&mut self) {
        self.spent.rotate_left(1);
        self.spent[BURST - 1] = Some(Instant::now());
    }
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
enum HintError {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("{0} is no name of a TLS server")]
    Name(String),
    #[error("the WebSocket failed")]
    WebSocket(#[from] Box<tungstenite::Error>),
    #[error("it does not answer")]
    Silent,
    #[error("it closed the connection")]
    Closed,
    #[error("it does not subscribe to events: {0}")]
    Refused(Excerpt),
}

impl From<tungstenite::Error> for HintError {
    fn from(error: tungstenite::Error) -> Self {
        Box::new(error).into()
    }
}

/// Keeps a connection for ever.
async fn listen(url: HintUrl, contract: Address, hinted: Arc<Notify>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let connected_at = Instant::now();
        let Err(error) = hear(&url, contract, &hinted).await;
        if connected_at.elapsed() >= GOOD_CONNECTION {
            pause = FIRST_PAUSE;
        }
        // Errors of libraries repeat parts of an answer, and the URL of a request.
        let error = url.0.excerpt(&with_causes(&error));
        tracing::info!(endpoint = %url, %error, ?pause, "no hints from this WebSocket for now");
        sleep(pause.mul_f64(1.0 - fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Connects, subscribes, and forwards hints until the connection ends.
async fn hear(
    url: &HintUrl,
    contract: Address,
    hinted: &Notify,
) -> Result<std::convert::Infallible, HintError> {
    let connecting = async {
        let address = (url.0.url().host_str().unwrap_or_default(), url.0.url().port_or_known_default());
        let address = (address.0.trim_matches(['[', ']']), address.1.unwrap_or_default());
        TcpStream::connect(address).await.map_err(HintError::Connect)
    };
    let stream = timeout(CONNECT_LIMIT, connecting).await.map_err(|_| HintError::Silent)??;
    if !url.0.is_https() {
        return subscribe(url, contract, hinted, stream).await;
    }
    let host = url.0.url().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| HintError::Name(host))?;
    let connector = TlsConnector::from(Arc::new(tls_config()?));
    let stream = timeout(CONNECT_LIMIT, connector.connect(name, stream)).await;
    let stream = stream.map_err(|_| HintError::Silent)?.map_err(HintError::Connect)?;
    subscribe(url, contract, hinted, stream).await
}

async fn subscribe<S: AsyncRead + AsyncWrite + Unpin>(
    url: &HintUrl,
    contract: Address,
    hinted: &Notify,
    stream: S,
) -> Result<std::convert::Infallible, HintError> {
    // A path or query may be a key, and this text is never shown.
    let (plain, user) = url.0.without_user();
    let mut request = plain.as_str().replacen("http", "ws", 1).into_client_request()?;
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    request.headers_mut().extend(user.map(|user| (header::AUTHORIZATION, user)));
    request.headers_mut().extend(url.0.headers().clone());
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let connected = timeout(CONNECT_LIMIT, client_async_with_config(request, stream, Some(limits))).await;
    let (mut socket, _) = connected.map_err(|_| HintError::Silent)??;
    let filter = json!({"address": contract.0, "topics": [MatureModelSet::SIGNATURE_HASH]});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["logs", filter]});
    socket.send(Message::text(call.to_string())).await?;
    hear_on(url, hinted, &mut socket).await
}

async fn hear_on<S: AsyncRead + AsyncWrite + Unpin>(
    url: &HintUrl,
    hinted: &Notify,
    socket: &mut WebSocketStream<S>,
) -> Result<std::convert::Infallible, HintError> {
    let mut is_asked = false;
    loop {
        let message = match timeout(PING_INTERVAL, socket.next()).await {
            Ok(message) => message.ok_or(HintError::Closed)??,
            Err(_) if is_asked => return Err(HintError::Silent),
            Err(_) => {
                is_asked = true;
                timeout(CONNECT_LIMIT, socket.send(Message::Ping(Vec::new().into())))
                    .await
                    .map_err(|_| HintError::Silent)??;
                continue;
            }
        };
        is_asked = false;
        match message {
            Message::Text(text) => match heard(&text) {
                Heard::Event => {
                    tracing::debug!(endpoint = %url, "a hint that the contract has changed");
                    hinted.notify_one();
                }
                Heard::Refusal => return Err(HintError::Refused(url.0.excerpt(&text))),
                Heard::Other => {}
            },
            Message::Close(_) => return Err(HintError::Closed),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        sleep(MESSAGE_PAUSE).await;
    }
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Event,
    Refusal,
    Other,
}

fn heard(text: &str) -> Heard {
    let message: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    if message["method"] == "eth_subscription" {
        Heard::Event
    } else if message["id"] == 1 && !message["error"].is_null() {
        Heard::Refusal
    } else {
        Heard::Other
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_hint_url_is_a_websocket_one_and_shows_no_key() {
        let url: HintUrl = "wss://rpc.example.org/v3/secretkey".parse().unwrap();
        let url = url.with_header("X-Key: secretkey").unwrap();
        assert_eq!(format!("{url} {url:?}"), "rpc.example.org rpc.example.org");
        assert!(url.0.is_https() && !"ws://h:1".parse::<HintUrl>().unwrap().0.is_https());
        for bad in ["", "http://h/secretkey", "wsx://h/secretkey", "ws:///", "ws"] {
            let error = bad.parse::<HintUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secretkey"), "{bad}: {error}");
        }
    }

    #[test]
    fn only_an_event_is_a_hint_and_nonsense_is_nothing() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","method":"eth_subscription","params":{}}"#, Heard::Event),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#, Heard::Refusal),
            (r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#, Heard::Other),
            ("", Heard::Other),
            ("[", Heard::Other),
            ("5", Heard::Other),
        ] {
            assert_eq!(heard(text), expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_hints_is_followed_three_times_and_then_once_an_interval() {
        let interval = Duration::from_secs(12);
        let mut budget = HintBudget::new(interval);
        let start = Instant::now();
        let mut followed = 0;
        while start.elapsed() < interval * 30 {
            tokio::time::sleep_until(budget.allowed_at()).await;
            budget.spend();
            followed += 1;
        }
        assert!((30..=33).contains(&followed), "{followed}");
    }

    const EVENT: &str = r#"{"jsonrpc":"2.0","method":"eth_subscription","params":{}}"#;

    /// Connects to an endpoint that answers the subscription with these texts and then ends the connection. Returns how
    /// that ended, and whether a hint came.
    async fn hear_from(answers: &[&str]) -> (HintError, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HintUrl = format!("ws://{}/secretkey", listener.local_addr().unwrap()).parse().unwrap();
        let hinted = Notify::new();
        let serving = async {
            let mut socket =
                tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap();
            let call: serde_json::Value =
                serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
            assert_eq!((&call["method"], &call["params"][0]), (&"eth_subscribe".into(), &"logs".into()));
            for answer in answers {
                // It may have hung up.
                let _ = socket.send(Message::text(*answer)).await;
            }
            let _ = socket.close(None).await;
        };
        let contract = Address::from_bytes([7; 20]);
        let (Err(error), ()) = tokio::join!(hear(&url, contract, &hinted), serving);
        assert!(!format!("{}", url.0.excerpt(&with_causes(&error))).contains("secretkey"), "{error:?}");
        (error, hinted.notified().now_or_never().is_some())
    }

    #[tokio::test]
    async fn an_event_is_heard_and_what_is_too_long_refused_or_ended_is_told() {
        let subscribed = r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#;
        let (error, is_hinted) = hear_from(&[subscribed, "nonsense", EVENT]).await;
        assert!(matches!(error, HintError::Closed) && is_hinted, "{error:?}");
        let refusal = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"not for secretkey"}}"#;
        let (error, is_hinted) = hear_from(&[refusal, EVENT]).await;
        assert!(matches!(error, HintError::Refused(_)) && !is_hinted, "{error:?}");
        let (error, is_hinted) = hear_from(&[&"x".repeat(MAX_MESSAGE_BYTES + 1), EVENT]).await;
        assert!(matches!(error, HintError::WebSocket(_)) && !is_hinted, "{error:?}");
    }

    /// The head of the request that an endpoint at this URL gets, but for its address.
    async fn request_to(user: &str, rpc_header: Option<&str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HintUrl = format!("ws://{user}{}/ws", listener.local_addr().unwrap()).parse().unwrap();
        let url = rpc_header.into_iter().fold(url, |url, header| url.with_header(header).unwrap());
        let hinted = Notify::new();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            String::from_utf8(head).unwrap().to_lowercase()
        };
        let (_, head) = tokio::join!(hear(&url, Address::from_bytes([7; 20]), &hinted), serving);
        head
    }

    #[tokio::test]
    async fn a_user_and_who_asks_are_told_in_headers() {
        let head = request_to("user:pass@", None).await;
        assert!(
            head.contains("authorization: basic dxnlcjpwyxnz\r\n") && head.starts_with("get /ws "),
            "{head}"
        );
        assert!(head.contains("user-agent: loader/") && !head.contains("pass"), "{head}");
        let head = request_to("user:pass@", Some("Authorization: Bearer key")).await;
        assert!(head.contains("authorization: bearer key\r\n") && !head.contains("basic"), "{head}");
        assert!(!request_to("", None).await.contains("authorization"));
    }

    #[tokio::test]
    async fn an_endpoint_that_hangs_up_is_connected_to_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HintUrl = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
        let hints = Hints::start(&[url], Address::from_bytes([7; 20]));
        drop(listener.accept().await.unwrap());
        let mut socket = tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap();
        socket.send(Message::text(EVENT)).await.unwrap();
        timeout(Duration::from_secs(60), hints.wait()).await.unwrap();
        // Dropping the hints ends the connection.
        drop(hints);
        let ended = async { while let Some(Ok(_)) = socket.next().await {} };
        timeout(Duration::from_secs(60), ended).await.unwrap();
    }
}
