//! Endpoints that repeat our keys, or talk without end.

use chain_reader::{ChainReader, Config, RpcUrl};
use serde_json::{Value, json};

use crate::faults::{healthy, reader, returned};
use crate::scripted::{Answer, Scripted};
use crate::{everything_shown, policy};

const USER: &str = "some%2Duser:pa%73sword9@";
const PATH: &str = "/v3/se%63retkey/?apikey=keyin%2Fquery";
/// What must not be seen, in lower case.
const FORBIDDEN: [&str; 12] = [
    "some-user",
    "password9",
    "secretkey",
    "se%63retkey",
    "keyin/query",
    "keyin%2f",
    "headerkey",
    "c29tzs11c2vy",
    "agvhzgvya2v5",
    "7365637265746b6579",
    "6865616465726b6579",
    "\\u0073ecret",
];

/// Our keys in every form that we can think of.
fn said() -> String {
    "some-user some%2Duser pa%73sword9 password9 SECRETKEY secretkey se%63retkey %73ecretkey keyin/query keyin%2Fquery \
     keyin\\/query Bearer headerkey HeaderKey c29tZS11c2VyOnBhc3N3b3JkOQ== c29tZS11c2VyOnBhc3N3b3JkOQ aGVhZGVya2V5 \
     6865616465726b6579 7365637265746B6579 \\u0073ecretkey \u{1b}[31m\u{202e}"
        .to_owned()
}

async fn endpoint(script: impl FnMut(&str, &Value) -> Answer + Send + 'static) -> (Scripted, RpcUrl) {
    let scripted = Scripted::start(script).await;
    let url = scripted.at(USER, PATH).with_header("Authorization: Bearer headerkey").unwrap();
    (scripted, url)
}

/// Fails the test when a text shows a key, or is long.
#[track_caller]
fn assert_clean(text: &str) {
    let lower = text.to_lowercase();
    for key in FORBIDDEN {
        assert!(!lower.contains(key), "{key} is in {text}");
    }
    assert!(
        !text.contains(['\u{1b}', '\u{202e}']) && text.len() < 6_000,
        "{} bytes: {text:.4000}",
        text.len()
    );
}

/// All that a person may see of a read of an endpoint that answers this method like this.
async fn shown(method: &'static str, answer: impl Fn() -> Answer + Send + 'static) -> String {
    let script =
        move |asked: &str, params: &Value| if asked == method { answer() } else { healthy(asked, params) };
    let (_scripted, url) = endpoint(script).await;
    let reader = reader(url, policy().with_attempts(2));
    let error = reader.mature_model().await.map(|model| format!("{model:?}"));
    let error = error.unwrap_or_else(|error| everything_shown(&error));
    format!("{error} {:?} {}", reader.status(), serde_json::to_string(&reader.status()).unwrap())
}

const METHODS: [&str; 3] = ["eth_chainId", "eth_getBlockByNumber", "eth_call"];

#[tokio::test]
async fn no_answer_shows_a_key_whatever_its_form() {
    for method in METHODS {
        let forms: [fn() -> Answer; 14] = [
            || Answer::Result(json!(said())),
            || Answer::Result(json!({"hash": said(), "number": said()})),
            || Answer::Result(json!([said()])),
            || Answer::Result(json!({said(): said()})),
            || Answer::Http(200, said()),
            || Answer::Http(401, said()),
            || Answer::Http(429, said()),
            || Answer::Http(200, json!({"error": said()}).to_string()),
            || Answer::Http(200, json!({"error": {"code": said(), "message": said()}}).to_string()),
            || {
                Answer::Http(
                    200,
                    json!({"error": {"code": 3, "message": said(), "data": said()}}).to_string(),
                )
            },
            || Answer::Http(200, json!({"error": {"code": -32000, "message": said()}}).to_string()),
            || Answer::Http(200, json!({"error": {"code": -32005, "message": said()}}).to_string()),
            || Answer::Http(200, json!({said(): said()}).to_string()),
            || Answer::Result(json!(returned(&said()))),
        ];
        for form in forms {
            assert_clean(&shown(method, form).await);
        }
    }
}

#[tokio::test]
async fn the_string_of_the_contract_and_a_revert_show_no_key_either() {
    for before in [0, 20, 60, 70, 75, 79, 150, 155] {
        let text = format!("{}secretkey and headerkey", "x".repeat(before));
        assert_clean(&shown("eth_call", move || Answer::Result(json!(returned(&text)))).await);
        let hex: String = "secretkey".bytes().map(|byte| format!("{byte:02x}")).collect();
        let data = format!("0x{}{hex}", "ab".repeat(before / 2));
        assert_clean(&shown("eth_call", move || Answer::Result(json!(data))).await);
    }
    let revert = json!({"error": {"code": 3, "message": "execution reverted", "data": format!("0x12345678{}", "7365637265746b6579")}});
    assert_clean(&shown("eth_call", move || Answer::Http(200, revert.to_string())).await);
}

#[tokio::test]
async fn an_answer_of_a_wrong_type_is_cut_whatever_its_size() {
    for method in METHODS {
        let huge: [fn() -> Answer; 6] = [
            || Answer::Result(json!("x".repeat(1_900_000))),
            || Answer::Result(json!("\u{1b}".repeat(300_000))),
            || Answer::Result(json!(vec![1; 900_000])),
            || Answer::Http(200, format!("{{\"result\":{}", "[".repeat(1_900_000))),
            || Answer::Http(200, json!({"error": {"code": 1, "message": "y".repeat(1_900_000)}}).to_string()),
            || Answer::Http(200, json!({"error": {"code": "z".repeat(1_900_000)}}).to_string()),
        ];
        for form in huge {
            assert_clean(&shown(method, form).await);
        }
        for wrong in [json!(5), json!(null), json!(true), json!([]), json!({}), json!("0xzz"), json!(1e300)] {
            assert_clean(&shown(method, move || Answer::Result(wrong.clone())).await);
        }
    }
}

#[tokio::test]
async fn several_endpoints_show_no_key_in_what_they_disagree_about() {
    let mut scripted = Vec::new();
    let mut urls = Vec::new();
    for number in 0..3 {
        let text = format!("{}secretkey headerkey {number}", "x".repeat(60));
        let script = move |method: &str, params: &Value| match method {
            "eth_call" => Answer::Result(json!(returned(&text))),
            _ => healthy(method, params),
        };
        let (one, url) = endpoint(script).await;
        scripted.push(one);
        urls.push(url);
    }
    let config = Config::with_endpoints(urls, chain_reader::Address::from_bytes([7; 20]));
    let reader = ChainReader::new(config.with_policy(policy().with_attempts(2))).unwrap();
    let error = reader.mature_model().await.unwrap_err();
    assert_clean(&everything_shown(&error));
    let status = serde_json::to_string(&reader.status()).unwrap().to_lowercase();
    assert!(FORBIDDEN.iter().all(|key| !status.contains(key)), "{status}");
}
