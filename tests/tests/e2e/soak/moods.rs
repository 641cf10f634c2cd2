//! The moods that endpoints are in during a soak.

use std::time::Duration;

use e2e::Mood;
use fastrand::Rng;
use serde_json::json;

const TAGS: &[&str] = &["latest", "safe", "finalized"];

/// What texts repeat of the request: one thing each, as only the start of a text is shown.
fn repeated(rng: &mut Rng) -> &'static str {
    ["{target}", "{headers}", "{decoded}"][rng.usize(..3)]
}

fn refusal(rng: &mut Rng, status: u16, retry_after_s: Option<u64>) -> Mood {
    Mood::Status { status, retry_after_s, text: format!("refused {}", repeated(rng)) }
}

/// How all endpoints can be down at once.
pub(super) fn down(rng: &mut Rng) -> Mood {
    match rng.u8(..6) {
        0 => Mood::Closing,
        1 => Mood::Silent,
        2 => refusal(rng, 503, None),
        3 => refusal(rng, 429, None),
        4 => Mood::error(-32603, repeated(rng)),
        _ => Mood::Text(format!("<html>{}</html>", repeated(rng))),
    }
}

/// Faults that an honest endpoint may have.
pub(super) fn of_the_unlucky(rng: &mut Rng) -> Mood {
    match rng.u8(..8) {
        0 => Mood::Slow(Duration::from_millis(rng.u64(..3000))),
        1 => Mood::Lagging(rng.u64(1..=40)),
        2 => Mood::Losing,
        3 => {
            let retry_after_s = rng.u64(..3);
            refusal(rng, 429, Some(retry_after_s))
        }
        4 => {
            let status = [403, 500, 502][rng.usize(..3)];
            refusal(rng, status, None)
        }
        // It has pruned the state.
        5 => Mood::error(-32000, repeated(rng)).on(&["eth_call", "eth_getCode"]),
        6 => Mood::error(-32005, repeated(rng)),
        _ => down(rng),
    }
}

/// Anything.
pub(super) fn of_a_traitor(rng: &mut Rng, height: u64, lie: &str) -> Mood {
    let old = rng.u64(..=height);
    let lying = || Mood::naming(lie);
    match rng.u8(..15) {
        // Two of them agree on this one.
        0 | 1 => lying(),
        // Keys may come back in every text, and in the place of anything else.
        2 => Mood::naming(repeated(rng)),
        3 => Mood::all([Mood::Slow(Duration::from_millis(rng.u64(..2000))), lying()]),
        4 => Mood::Boasting(1_000_000_000),
        5 => Mood::all([Mood::Boasting(height + rng.u64(1..4)), lying()]),
        // The truth of long ago.
        6 => Mood::At(old),
        7 => Mood::Stuck { tags: TAGS, height: old },
        8 => Mood::Stuck { tags: &["finalized"], height: old },
        9 => Mood::all([Mood::Branch(height.saturating_sub(rng.u64(..6))), lying()]),
        10 => Mood::Branch(old),
        11 => Mood::Huge([3 << 20, u64::MAX][rng.usize(..2)]).on(&["eth_call"]),
        12 => {
            let text = repeated(rng);
            let wrong = [json!(7), json!([]), json!({"hash": text}), json!(text), json!(null), json!(true)];
            Mood::result(wrong[rng.usize(..wrong.len())].clone())
        }
        13 => {
            let text = repeated(rng);
            let wrong = [
                json!({"error": {"code": text, "message": text}}),
                json!({"error": {"code": 3, "message": text, "data": text}}),
                json!({"error": text}),
                json!({"result": text, "error": text}),
            ];
            Mood::Answer(wrong[rng.usize(..wrong.len())].clone())
        }
        _ => of_the_unlucky(rng),
    }
}
