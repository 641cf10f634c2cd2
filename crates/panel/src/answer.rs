//! The answer to each request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use node::Node;
use node::status::{Change, Readiness, Status};
use serde::Serialize;

use crate::host::Hosts;
use crate::metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The type of what [`metrics::encode`] writes.
///
/// Source: OpenMetrics 1.0.0, "Overall structure".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What a browser may do with an answer: run and show what comes from here, and ask here. Nothing else, of nobody.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
/// With every answer.
const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The files of the page.
const PAGE: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../page/page.js")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../page/page.css")),
];

type Answer = Response<Full<Bytes>>;

/// What is answered, and to whom.
pub(crate) struct Answers {
    node: Node,
    hosts: Hosts,
    /// Whether more than numbers and probes is answered.
    shows_page: bool,
}

/// `loader status --json`.
#[derive(Serialize)]
struct TypedStatus {
    r#type: &'static str,
    #[serde(flatten)]
    status: Status,
}

/// What changed of the pieces of a load: `changes` has places and cells in turn; or all of them, a byte each in base64, when
/// that is not known or would be longer.
#[derive(Serialize)]
struct PiecesAnswer {
    load: u64,
    next: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cells: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<u32>>,
}

impl Answers {
    pub(crate) fn new(node: Node, hosts: Hosts, shows_page: bool) -> Self {
        Self { node, hosts, shows_page }
    }

    pub(crate) async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !self.hosts.allow(request.uri(), request.headers()) {
            let text = "This name is not one of the node's: ask by its IP address, or allow the name with --http-host.\n";
            return answer(StatusCode::MISDIRECTED_REQUEST, TEXT, text);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Nothing can be changed here.\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        if !request.body().is_end_stream() {
            return answer(StatusCode::BAD_REQUEST, TEXT, "A request has no body here.\n");
        }
        match request.uri().path() {
            "/healthz" => answer(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => ready(&self.node.readiness()),
            "/metrics" => self.metrics().await,
            _ if !self.shows_page => {
                let text = "Beyond loopback only /metrics, /healthz and /readyz are answered, unless --http-page is given.\n";
                answer(StatusCode::NOT_FOUND, TEXT, text)
            }
            "/status.json" => json(&TypedStatus { r#type: "status", status: self.node.status() }),
            "/swarm.json" => json(&self.node.swarm()),
            "/pieces.json" => self.pieces(request.uri().query().unwrap_or_default()),
            path => match PAGE.iter().find(|(name, _, _)| *name == path) {
                Some((_, kind, text)) => answer(StatusCode::OK, kind, *text),
                None => answer(StatusCode::NOT_FOUND, TEXT, "There is no such page.\n"),
            },
        }
    }

    async fn metrics(&self) -> Answer {
        let encoded = match self.node.numbers().await {
            Ok(numbers) => metrics::encode(&numbers),
            Err(error) => {
                tracing::warn!(%error, "cannot count");
                return answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "The numbers cannot be had.\n");
            }
        };
        answer(StatusCode::OK, OPEN_METRICS, encoded)
    }

    fn pieces(&self, query: &str) -> Answer {
        let field = |name: &str| {
            let fields = query.split('&').filter_map(|field| field.split_once('='));
            fields.into_iter().find(|(key, _)| *key == name).and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let Some(pieces) = field("load").and_then(|load| self.node.pieces(load, field("since"))) else {
            return answer(StatusCode::NOT_FOUND, TEXT, "There is no such load, or nothing of it yet.\n");
        };
        let (load, next) = (pieces.load, pieces.next);
        json(&match pieces.change {
            Change::All { shards, cells } => PiecesAnswer {
                load,
                next,
                shards: Some(shards),
                cells: Some(STANDARD.encode(cells)),
                changes: None,
            },
            Change::Some(changes) => {
                let changes = changes.into_iter().flat_map(|(at, cell)| [at, u32::from(cell)]).collect();
                PiecesAnswer { load, next, shards: None, cells: None, changes: Some(changes) }
            }
        })
    }
}

fn ready(readiness: &Readiness) -> Answer {
    let Readiness { is_ready, wanted, mapped, .. } = readiness;
    let text = match (mapped, wanted) {
        (Some(mapped), Some(wanted)) if mapped != wanted => {
            format!("ready: model {mapped} is mapped, {wanted} is being loaded\n")
        }
        (Some(mapped), _) => format!("ready: model {mapped} is mapped\n"),
        (None, Some(wanted)) => format!("not ready: model {wanted} is being loaded\n"),
        (None, None) if *is_ready => "ready: no model is wanted, those in the cache are served\n".to_owned(),
        (None, None) => "not ready: no model was named yet\n".to_owned(),
    };
    answer(if *is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, TEXT, text)
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => answer(StatusCode::OK, JSON, text),
        Err(error) => {
            tracing::warn!(%error, "cannot be told as JSON");
            answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "This cannot be told as JSON.\n")
        }
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}
