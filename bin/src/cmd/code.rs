//! What a runtime may execute of a model.

use loader::Executable;

/// So many files are named.
const MAX_NAMED: usize = 8;

/// A sentence that warns; none when there is nothing to warn of.
pub(super) fn summary(found: &[Executable]) -> Option<String> {
    (!found.is_empty()).then(|| format!("a runtime may execute what is in it: {}", named(found)))
}

/// Why it is refused.
pub(super) fn refusal(found: &[Executable]) -> String {
    format!("--no-code: a runtime may execute what is in the model: {}", named(found))
}

fn named(found: &[Executable]) -> String {
    let mut named: Vec<String> = found.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if found.len() > MAX_NAMED {
        named.push(format!("and {} more", found.len() - MAX_NAMED));
    }
    named.join(", ")
}
