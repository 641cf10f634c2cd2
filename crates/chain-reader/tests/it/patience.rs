//! What passes is asked again, when and as often as is right; what stays is not.

use std::time::{Duration, Instant};

use chain_reader::{Availability, ChainError, EndpointError, Policy};
use serde_json::{Value, json};

use crate::faults::{healthy, read, read_with_call, reader};
use crate::scripted::{Answer, Scripted};
use crate::{digest, policy};

/// An endpoint that answers the first request of each method like this, and then as it should.
async fn once(answer: impl Fn() -> Answer + Send + 'static) -> Scripted {
    let mut asked = Vec::new();
    let script = move |method: &str, params: &Value| {
        let key = (method.to_owned(), params.clone());
        if asked.contains(&key) {
            return healthy(method, params);
        }
        asked.push(key);
        answer()
    };
    Scripted::start(script).await
}

#[tokio::test]
async fn every_request_outlives_what_passes() {
    let told = |status: u16, code: i64, message: &str| {
        let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}});
        (status, error.to_string())
    };
    let mut passing = vec![
        (400, "header not found".to_owned()),
        (400, String::new()),
        (402, "payment required".to_owned()),
        (403, "<html>".to_owned()),
        (408, String::new()),
        (425, String::new()),
        (429, String::new()),
        (529, String::new()),
        told(400, -32005, "limit"),
        told(429, -32000, "daily request count exceeded"),
        told(503, -32601, "no backend"),
    ];
    for code in [-32016, -32007, -32029, -32090, -32603, -32005, 429] {
        passing.push(told(200, code, "no"));
    }
    for message in [
        "request timed out",
        "timeout",
        "Timed Out",
        "context deadline exceeded",
        "rate limit exceeded",
        "Too Many Requests",
        "too many concurrent requests",
        "100/second request limit reached",
        "service temporarily unavailable",
        "please try again",
    ] {
        passing.push(told(200, -32000, message));
        passing.push(told(200, -32099, message));
    }
    for (status, body) in passing {
        let said = format!("{status} {body}");
        let scripted = once(move || Answer::Http(status, body.clone())).await;
        assert_eq!(
            read(&scripted).await.unwrap_or_else(|error| panic!("{said}: {error}")).manifest,
            digest()
        );
    }
}

#[tokio::test]
async fn a_header_that_is_not_there_yet_is_asked_for_again_with_any_status() {
    let body = |id: &str| format!(r#"{{"id":{id},"error":{{"code":-32000,"message":"header not found"}}}}"#);
    for (status, body) in [(200, body("1")), (400, body("null")), (400, "header not found".to_owned())] {
        let mut lacking = 2;
        let script = move |method: &str, params: &Value| match method {
            "eth_call" if lacking > 0 => {
                lacking -= 1;
                Answer::Http(status, body.clone())
            }
            _ => healthy(method, params),
        };
        assert_eq!(read(&Scripted::start(script).await).await.unwrap().manifest, digest(), "{status}");
    }
}

#[tokio::test]
async fn a_revert_is_never_taken_for_something_that_passes() {
    for (status, error) in [
        (200, r#"{"code":3,"message":"execution reverted: request timed out","data":"0x"}"#),
        (200, r#"{"code":-32000,"message":"execution reverted: rate limit, try again"}"#),
        (200, r#"{"code":-32603,"message":"VM Exception: revert","data":{"data":"0x08c379a0"}}"#),
        (200, r#"{"code":-32015,"message":"VM execution error.","data":"Reverted 0x"}"#),
        (400, r#"{"code":3,"message":"execution reverted"}"#),
        (500, r#"{"code":-32000,"message":"execution reverted: timeout"}"#),
    ] {
        let mut calls = 0;
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#);
        let script = move |method: &str, params: &Value| match method {
            "eth_call" => {
                calls += 1;
                assert_eq!(calls, 1, "asked again");
                Answer::Http(status, body.clone())
            }
            _ => healthy(method, params),
        };
        let found = read(&Scripted::start(script).await).await.unwrap_err();
        assert!(matches!(found, ChainError::Reverted { .. }), "{error}: {found:?}");
    }
}

#[tokio::test]
async fn what_does_not_pass_says_whether_it_may_later() {
    for (status, calls, availability) in [
        (403, 4, Availability::NotNow),
        (402, 4, Availability::NotNow),
        (401, 1, Availability::Never),
        (404, 1, Availability::Never),
    ] {
        let (error, found) = read_with_call(move || Answer::Http(status, String::new())).await;
        assert_eq!((found, error.availability()), (calls, availability), "{status}");
    }
    // It may not know the state of that block: each round asks it once, at what may be another one.
    let (error, _) = read_with_call(|| Answer::Error(-32000, "missing trie node")).await;
    assert!(matches!(error, EndpointError::Rpc { .. }) && !error.is_retryable(), "{error:?}");
}

/// How long a read takes of an endpoint that refuses its first request with this `Retry-After`.
async fn after(retry_after: &str, policy: Policy) -> Duration {
    let (header, mut is_refused) = (format!("retry-after: {retry_after}\r\n"), false);
    let script = move |method: &str, params: &Value| {
        if method == "eth_chainId" && !std::mem::replace(&mut is_refused, true) {
            return Answer::Headed(429, header.clone(), Vec::new());
        }
        healthy(method, params)
    };
    let (scripted, started) = (Scripted::start(script).await, Instant::now());
    assert_eq!(reader(scripted.url.clone(), policy).mature_model().await.unwrap().manifest, digest());
    started.elapsed()
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept_and_never_beyond_patience() {
    // Never shorter than was asked: that is what is tested, not how long it takes.
    assert!(after("1", policy()).await >= Duration::from_secs(1));
    let hasty = policy().with_request_timeout(Duration::from_millis(500)).with_attempts(2);
    for endless in ["1000000000", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        assert!(after(endless, hasty).await >= Duration::from_secs(1), "{endless}");
    }
    // It ends at all: nothing is made of these.
    for nothing in ["-5", "soon", "", "\u{7f}"] {
        after(nothing, policy()).await;
    }
}
