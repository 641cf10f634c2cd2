//! Words of the settings file: the texts of its values, and keys that are misspelt.

use toml::de::DeValue;

/// A key that is less like a known one is no misspelling of it.
const MIN_LIKENESS: f64 = 0.8;

/// What to say of a key that nobody knows.
pub(super) fn misspelt<'k>(key: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let likeness = |known: &&str| strsim::jaro_winkler(&key.to_lowercase(), known);
    let nearest = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|nearest| likeness(nearest) >= MIN_LIKENESS) {
        Some(nearest) => format!("there is no such setting; did you mean {nearest}?"),
        None => "there is no such setting; they are named like the flags".to_owned(),
    }
}

/// A text, or a number as text.
pub(super) fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let decimal = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(decimal.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}
