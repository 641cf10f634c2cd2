//! An endpoint that answers as told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chain_reader::RpcUrl;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What to do with one request.
pub(crate) enum Answer {
    /// This status and body.
    Http(u16, String),
    /// The same with further headers, a line each, and any body.
    Headed(u16, String, Vec<u8>),
    /// A JSON-RPC result.
    Result(Value),
    /// A JSON-RPC error.
    Error(i64, &'static str),
    /// What the node at this port answers to this method with these parameters, changed.
    Forward { port: u16, method: String, params: Value, change: Change },
    /// The same, later: an endpoint that is slow.
    Late(Duration, Box<Answer>),
    /// What the node at this port answers is lost on its way back.
    Lost { port: u16, method: String, params: Value },
    /// As long a body as the reader takes.
    Endless,
    /// Nothing, for ever.
    Silence,
    /// A closed connection.
    Close,
}

/// What is done to a result.
pub(crate) type Change = Box<dyn FnOnce(&mut Value) + Send>;

type Log = Arc<Mutex<Vec<String>>>;
type Script = dyn FnMut(&str, &Value) -> Answer + Send;

/// Answers on a port of its own until dropped.
pub(crate) struct Scripted {
    pub(crate) url: RpcUrl,
    asked: Log,
    heads: Log,
    task: JoinHandle<()>,
}

impl Scripted {
    /// `script` gets each request's method and parameters.
    pub(crate) async fn start(script: impl FnMut(&str, &Value) -> Answer + Send + 'static) -> Self {
        Self::start_at(0, script).await
    }

    /// The same at a URL that begins `http://` and this, and ends with that.
    pub(crate) fn at(&self, user: &str, path: &str) -> RpcUrl {
        crate::url(&format!("http://{user}{}{path}", self.url))
    }

    /// One at this port, for instance of one that has stopped, which passes all on to the node at the other.
    pub(crate) async fn pass_on(port: u16, node: u16) -> Self {
        let script = move |method: &str, params: &Value| crate::honest::pass(node, method, params, |_| ());
        Self::start_at(port, script).await
    }

    /// Ends it, and returns its port.
    pub(crate) async fn stop(mut self) -> u16 {
        self.task.abort();
        // An error says that it was aborted: the port is free from then on.
        let _ = (&mut self.task).await;
        self.url.to_string().rsplit(':').next().unwrap().parse().unwrap()
    }

    async fn start_at(port: u16, script: impl FnMut(&str, &Value) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Log::default();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(script));
        let heads = Log::default();
        let logs = (Arc::clone(&asked), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&script), logs.clone()));
            }
        });
        Self { url: crate::url(&format!("http://127.0.0.1:{port}/v3/secretkey")), asked, heads, task }
    }

    /// The HTTP heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The methods of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request a connection: that is enough, and keeps this short.
async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>, (log, heads): (Log, Log)) -> Option<()> {
    let (head, request) = read_request(&mut stream).await?;
    heads.lock().unwrap().push(head);
    let method = request["method"].as_str()?.to_owned();
    let mut answer = (script.lock().unwrap())(&method, &request["params"]);
    log.lock().unwrap().push(method);
    while let Answer::Late(by, then) = answer {
        tokio::time::sleep(by).await;
        answer = *then;
    }
    let rpc =
        |key: &str, value: Value| json!({"jsonrpc": "2.0", "id": request["id"], key: value}).to_string();
    let mut headers = String::new();
    let (status, body) = match answer {
        Answer::Headed(status, lines, body) => {
            headers = lines;
            (status, body)
        }
        Answer::Http(status, body) => (status, body.into_bytes()),
        Answer::Result(value) => (200, rpc("result", value).into_bytes()),
        Answer::Error(code, message) => {
            (200, rpc("error", json!({"code": code, "message": message})).into_bytes())
        }
        Answer::Forward { port, method, params, change } => {
            let mut answer = forward(port, &method, &params, &request["id"]).await?;
            if let Some(result) = answer.get_mut("result") {
                change(result);
            }
            (200, answer.to_string().into_bytes())
        }
        Answer::Late(..) => unreachable!("it was waited for"),
        Answer::Lost { port, method, params } => {
            forward(port, &method, &params, &request["id"]).await?;
            return None;
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.ok()?;
            while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
            return None;
        }
        Answer::Silence => return std::future::pending().await,
        Answer::Close => return None,
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()
}

/// Asks the node at this port.
async fn forward(port: u16, method: &str, params: &Value, id: &Value) -> Option<Value> {
    let mut node = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    node.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.ok()?;
    let mut answer = String::new();
    node.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&received);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(request) = serde_json::from_str(body)
        {
            return Some((head.to_owned(), request));
        }
    }
}
