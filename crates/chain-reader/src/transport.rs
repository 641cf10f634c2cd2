//! JSON-RPC over HTTP with a time limit, a size limit and retries: what alloy's own HTTP transport leaves out.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use alloy::rpc::json_rpc::{RequestPacket, Response, ResponsePacket, ResponsePayload, SerializedRequest};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut, TransportResult};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::redirect;
use rustls_platform_verifier::BuilderVerifierExt;
use tower_service::Service;

use crate::answer;
use crate::config::Policy;
use crate::error::{EndpointError, with_causes};
use crate::retry_after::retry_after;
use crate::revert;
use crate::rpc_url::RpcUrl;

/// The longest answer that is read, once it is unpacked: a block of 30,000 transaction hashes fits.
const MAX_ANSWER_BYTES: usize = 2 << 20;
/// The user agent: some firewalls refuse requests without one.
pub(crate) const USER_AGENT: &str = concat!("loader/", env!("CARGO_PKG_VERSION"));

/// One endpoint; a clone shares its connections.
#[derive(Clone)]
pub(crate) struct Http(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    url: RpcUrl,
    policy: Policy,
}

/// A failed attempt, and the endpoint's `Retry-After`, if any.
struct Failed {
    error: EndpointError,
    retry_after: Option<Duration>,
}

impl Http {
    pub(crate) fn new(url: RpcUrl, policy: Policy) -> Result<Self, EndpointError> {
        let setup = |source| EndpointError::Setup { endpoint: url.to_string(), source };
        // A redirect would leak the key to another host.
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .timeout(policy.request_timeout)
            .redirect(redirect::Policy::none());
        if url.is_loopback() {
            builder = builder.no_proxy();
        }
        if url.is_https() {
            if SystemTime::now() < SystemTime::UNIX_EPOCH {
                // TLS panics there.
                return Err(setup("the clock of this machine stands at a time before 1970: set it".into()));
            }
            builder = builder.tls_backend_preconfigured(tls_config().map_err(|error| setup(error.into()))?);
        } else {
            // Without this the system's certificates are loaded only to be ignored.
            builder =
                builder.tls_backend_preconfigured(tls_config_without_roots().map_err(|e| setup(e.into()))?);
        }
        let client = builder.build().map_err(|error| setup(error.without_url().into()))?;
        Ok(Self(Arc::new(Inner { client, url, policy })))
    }
}

impl Service<RequestPacket> for Http {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> TransportFut<'static> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let RequestPacket::Single(request) = request else {
                return Err(TransportErrorKind::custom_str("requests are made one by one"));
            };
            let payload = inner.exchange(&request).await?;
            Ok(ResponsePacket::Single(Response { id: request.id().clone(), payload }))
        })
    }
}

impl Inner {
    /// Retries until there is an answer, a permanent error, or no attempt left.
    async fn exchange(&self, request: &SerializedRequest) -> TransportResult<ResponsePayload> {
        let method = request.method();
        let mut attempt = 1;
        loop {
            let Failed { error, retry_after } = match self.attempt(method, request.serialized().get()).await {
                Ok(payload) => return Ok(payload),
                Err(failed) => failed,
            };
            if attempt >= self.policy.attempts || !error.is_retryable() {
                return Err(TransportErrorKind::custom(error));
            }
            let pause = self.policy.pause_of(attempt, retry_after);
            let error = with_causes(&error);
            tracing::debug!(endpoint = %self.url, method, attempt, ?pause, error, "asking again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, method: &str, body: &str) -> Result<ResponsePayload, Failed> {
        let request = self
            .client
            .post(self.url.url().clone())
            .headers(self.url.headers().clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body.to_owned());
        let mut response = request.send().await.map_err(|error| self.fault(method, error))?;
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let mut answer = Vec::new();
        // What arrives here is unpacked already, a few KiB at a time.
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(method, error))? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                let (endpoint, method) = (self.url.to_string(), method.to_owned());
                return Err(EndpointError::TooLong { endpoint, method, max_bytes: MAX_ANSWER_BYTES }.into());
            }
            answer.extend_from_slice(&chunk);
        }
        let read = self.read(method, response.status().as_u16(), &answer);
        read.map_err(|error| Failed { error, retry_after })
    }

    /// What the answer with this HTTP status says, if that is for whoever has asked.
    fn read(&self, method: &str, status: u16, answer: &[u8]) -> Result<ResponsePayload, EndpointError> {
        let (endpoint, method) = (self.url.to_string(), method.to_owned());
        let found = || self.url.excerpt(&String::from_utf8_lossy(answer));
        match (status, answer::parse(answer)) {
            // Some tell of every error in JSON-RPC with a status of its own, reverts included.
            (_, Ok(ResponsePayload::Failure(error))) if revert::told_by(&method, &error).is_some() => {
                Ok(ResponsePayload::Failure(error))
            }
            (200 | 400 | 404 | 405 | 500, Ok(ResponsePayload::Failure(error))) => {
                let message = self.url.excerpt(&error.message);
                let told = EndpointError::Rpc { endpoint, method, code: error.code, message };
                if told.is_retryable() { Err(told) } else { Ok(ResponsePayload::Failure(error)) }
            }
            (200, Ok(payload)) => Ok(payload),
            (200, Err(error)) => {
                let source = error.map(|error| self.url.excerpt(&error.to_string()));
                Err(EndpointError::Nonsense { endpoint, method, found: found(), source })
            }
            _ => Err(EndpointError::Status { endpoint, method, status, found: found() }),
        }
    }

    fn fault(&self, method: &str, error: reqwest::Error) -> Failed {
        let (endpoint, method) = (self.url.to_string(), method.to_owned());
        let error = error.without_url();
        let source = self.url.excerpt(&with_causes(&error));
        if error.is_timeout() {
            EndpointError::Timeout { endpoint, method, after: self.policy.request_timeout }
        } else if error.is_connect() {
            EndpointError::Unreachable { endpoint, source }
        } else {
            EndpointError::Broken { endpoint, method, source }
        }
        .into()
    }
}

impl From<EndpointError> for Failed {
    fn from(error: EndpointError) -> Self {
        Self { error, retry_after: None }
    }
}

/// TLS with the system's certificates. A configuration of our own, because the process's default is not ours to set.
pub(crate) fn tls_config() -> Result<rustls::ClientConfig, rustls::Error> {
    Ok(tls_versions()?.with_platform_verifier()?.with_no_client_auth())
}

fn tls_config_without_roots() -> Result<rustls::ClientConfig, rustls::Error> {
    Ok(tls_versions()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

fn tls_versions() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, rustls::Error>
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
