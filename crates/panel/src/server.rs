//! The connections: few, each for a limited time, each with small requests.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::answer::Answers;

/// Connections at one time. One more ends the oldest, so that slow clients keep no probe out.
const MAX_CONNECTIONS: usize = 32;
/// How long the head of a request may take, and the pause before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection lives; an answer that is under way then has a little longer.
const MAX_LIFE: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(5);
/// Of the head of a request, all lines together. The least that hyper takes.
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
/// After an error of the system, such as having no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::<AbortHandle>::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => {
                oldest_first.retain(|one| !one.is_finished());
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                while oldest_first.len() >= MAX_CONNECTIONS {
                    oldest_first.pop_front().iter().for_each(AbortHandle::abort);
                }
                oldest_first.push_back(connections.spawn(connection(stream, Arc::clone(&answers))));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot take a connection over HTTP");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = tokio::time::sleep(MAX_LIFE) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = done {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection over HTTP ended early");
    }
}
