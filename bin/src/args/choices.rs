//! Values of flags that take one of a few, which shells complete.

use chain_reader::BlockTag;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use manifest::{Codec, MODEL_KINDS};

/// The kinds of models.
pub(super) fn model_kind() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(MODEL_KINDS)
}

/// How parity is computed.
pub(super) fn codec() -> impl TypedValueParser<Value = Codec> {
    PossibleValuesParser::new(["rs", "replica"]).try_map(|name| name.parse::<Codec>())
}

/// How settled a block must be.
pub(super) fn block_tag() -> impl TypedValueParser<Value = BlockTag> {
    PossibleValuesParser::new(["latest", "safe", "finalized"]).try_map(|name| name.parse::<BlockTag>())
}
