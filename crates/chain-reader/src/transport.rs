//! JSON-RPC over HTTP with a time limit, a size limit and retries: what alloy's own HTTP transport leaves out.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut, TransportResult};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::redirect;
use rustls_platform_verifier::BuilderVerifierExt;
use tower_service::Service;

use crate::config::{Policy, RpcUrl};
use crate::error::{EndpointError, is_rate_limit};

/// The longest answer that is read: a block of 30,000 transaction hashes fits.
const MAX_ANSWER_BYTES: usize = 2 << 20;

/// One endpoint; a clone shares its connections.
#[derive(Clone)]
pub(crate) struct Http(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    url: RpcUrl,
    policy: Policy,
}

impl Http {
    pub(crate) fn new(url: RpcUrl, policy: Policy) -> Result<Self, EndpointError> {
        let setup = |source| EndpointError::Setup { endpoint: url.to_string(), source };
        // A redirect would carry the key to somebody else.
        let mut builder =
            reqwest::Client::builder().timeout(policy.request_timeout).redirect(redirect::Policy::none());
        if url.is_loopback() {
            builder = builder.no_proxy();
        }
        if url.is_https() {
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
        Box::pin(async move { inner.exchange(request).await })
    }
}

impl Inner {
    /// Asks until there is an answer, an error that asking again does not mend, or no attempt left.
    async fn exchange(&self, request: RequestPacket) -> TransportResult<ResponsePacket> {
        let method = request.method_names().next().unwrap_or_default().to_owned();
        let body = request.serialize().map_err(TransportError::ser_err)?;
        let mut attempt = 1;
        loop {
            let error = match self.attempt(&method, body.get()).await {
                Ok(packet) => return Ok(packet),
                Err(error) => error,
            };
            if attempt >= self.policy.attempts || !error.is_retryable() {
                return Err(TransportErrorKind::custom(error));
            }
            let pause = self.policy.pause(attempt);
            let cause = error.source().map(ToString::to_string);
            tracing::debug!(endpoint = %self.url, method, attempt, ?pause, %error, cause, "asking again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, method: &str, body: &str) -> Result<ResponsePacket, EndpointError> {
        let request = self
            .client
            .post(self.url.url().clone())
            .headers(self.url.headers().clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body.to_owned());
        let mut response = request.send().await.map_err(|error| self.fault(method, error))?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(method, error))? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                let max_bytes = MAX_ANSWER_BYTES;
                return Err(EndpointError::TooLong {
                    endpoint: self.endpoint(),
                    method: method.to_owned(),
                    max_bytes,
                });
            }
            answer.extend_from_slice(&chunk);
        }
        let found = || self.url.excerpt(&String::from_utf8_lossy(&answer));
        let status = response.status().as_u16();
        if status != 200 && !tells_an_error(status, &answer) {
            let method = method.to_owned();
            return Err(EndpointError::Status { endpoint: self.endpoint(), method, status, found: found() });
        }
        let nonsense = |source| EndpointError::Nonsense {
            endpoint: self.endpoint(),
            method: method.to_owned(),
            found: found(),
            source,
        };
        let packet: ResponsePacket =
            serde_json::from_slice(&answer).map_err(|error| nonsense(Some(error)))?;
        if matches!(packet, ResponsePacket::Batch(_)) {
            return Err(nonsense(None));
        }
        match packet.as_error() {
            Some(payload) if is_rate_limit(payload.code) => Err(EndpointError::Rpc {
                endpoint: self.endpoint(),
                method: method.to_owned(),
                code: payload.code,
                message: self.url.excerpt(&payload.message),
            }),
            _ => Ok(packet),
        }
    }

    fn endpoint(&self) -> String {
        self.url.to_string()
    }

    fn fault(&self, method: &str, error: reqwest::Error) -> EndpointError {
        let (endpoint, method) = (self.endpoint(), method.to_owned());
        let source = error.without_url();
        if source.is_timeout() {
            EndpointError::Timeout { endpoint, method, after: self.policy.request_timeout }
        } else if source.is_connect() {
            EndpointError::Unreachable { endpoint, source }
        } else {
            EndpointError::Broken { endpoint, method, source }
        }
    }
}

/// Whether the body says more than the HTTP status: some nodes send JSON-RPC errors with one. Not where the status says
/// that asking again may help.
fn tells_an_error(status: u16, body: &[u8]) -> bool {
    let says_more = matches!(status, 400..=500) && !matches!(status, 408 | 429);
    says_more && serde_json::from_slice(body).is_ok_and(|packet: ResponsePacket| packet.as_error().is_some())
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
