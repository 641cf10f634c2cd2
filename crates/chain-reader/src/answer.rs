//! Reading a JSON-RPC answer, in all forms that endpoints give it.

use alloy::rpc::json_rpc::{ErrorPayload, ResponsePayload};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An answer. Its id does not matter: a connection of HTTP has one answer to each request.
#[derive(Deserialize)]
struct Envelope {
    /// `null` is a result, too.
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    /// `null` is none.
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    code: i64,
    message: Option<String>,
    data: Option<Box<RawValue>>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

/// What the answer says.
///
/// # Errors
/// When it is no answer: why not, if reading has found out.
pub(crate) fn parse(answer: &[u8]) -> Result<ResponsePayload, Option<serde_json::Error>> {
    // An array would be read as the fields in their order.
    if answer.trim_ascii_start().first() != Some(&b'{') {
        return Err(serde_json::from_slice::<serde::de::IgnoredAny>(answer).err());
    }
    match serde_json::from_slice(answer).map_err(Some)? {
        Envelope { error: Some(Problem { code, message, data }), .. } => {
            let message = message.unwrap_or_default().into();
            Ok(ResponsePayload::Failure(ErrorPayload { code, message, data }))
        }
        Envelope { result: Some(result), error: None } => Ok(ResponsePayload::Success(result)),
        Envelope { result: None, error: None } => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_may_have_no_error_and_an_error_no_result() {
        for (answer, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":5}"#, "5"),
            (r#"{"id":1,"result":"0x","error":null}"#, "\"0x\""),
            (r#" {"error":null,"result":null}"#, "null"),
            (r#"{"result":{"a":[1]},"id":"x","more":[]}"#, r#"{"a":[1]}"#),
        ] {
            assert_eq!(parse(answer.as_bytes()).unwrap().as_success().unwrap().get(), expected, "{answer}");
        }
        for (answer, code, message) in [
            (r#"{"error":{"code":-32000,"message":"no"},"result":null}"#, -32000, "no"),
            (r#"{"error":{"code":3,"message":null,"data":null}}"#, 3, ""),
            (r#"{"id":null,"error":{"code":1}}"#, 1, ""),
        ] {
            let payload = parse(answer.as_bytes()).unwrap();
            let error = payload.as_error().unwrap();
            assert_eq!(
                (error.code, &*error.message, error.data.is_none()),
                (code, message, true),
                "{answer}"
            );
        }
    }

    #[test]
    fn anything_else_is_no_answer() {
        let deep = "[".repeat(100_000);
        let nested = format!(r#"{{"result":{deep}"#);
        for answer in [
            "",
            " ",
            "null",
            "5",
            "\"x\"",
            "{}",
            "[]",
            r#"[null,{"code":1}]"#,
            r#"{"error":null}"#,
            r#"{"error":"no"}"#,
            r#"{"error":{}}"#,
            r#"{"error":{"code":"1"}}"#,
            r#"{"error":[]}"#,
            r#"{"result":1"#,
            r#"{"result":1,"result":2}"#,
            r#"{"error":{"code":1,"message":5}}"#,
            &deep,
            &nested,
        ] {
            assert!(parse(answer.as_bytes()).is_err(), "{}", &answer[..answer.len().min(40)]);
        }
    }
}
