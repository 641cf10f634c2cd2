//! Texts of a user that are not what they should be.

/// Why a text is not an [`Address`](crate::Address).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Not of the form of an address.
    #[error("\"{found}\" is not an address: expected 0x and 40 hexadecimal characters")]
    Malformed {
        /// The start of the text.
        found: String,
    },
    /// Of the form of an address, mistyped.
    #[error("address {found} has a wrong checksum: as typed it would be {expected}; check each character")]
    Checksum {
        /// The text.
        found: String,
        /// The same address with its right checksum.
        expected: String,
    },
}

/// Why a text is not an [`RpcUrl`](crate::RpcUrl). Never shows the text: it may hold a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseRpcUrlError {
    /// Not a URL.
    #[error("the RPC URL is malformed ({reason}): expected http://HOST or https://HOST")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// A WebSocket URL.
    #[error("the RPC URL is a WebSocket one (ws:// or wss://): give the endpoint's http:// or https:// URL")]
    WebSocket,
    /// Not a WebSocket URL, where only such a one will do.
    #[error("the URL of a WebSocket endpoint has another scheme: expected ws:// or wss://")]
    NotWebSocket,
    /// Another scheme.
    #[error("the RPC URL has an unknown scheme: expected http:// or https://")]
    Scheme,
}

/// Why a text is not a [`BlockTag`](crate::BlockTag).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is not a block tag: expected latest, safe or finalized")]
pub struct ParseBlockTagError {
    pub(crate) found: String,
}

/// Why a text is not an HTTP header. Never shows the text: it may hold a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header of an RPC endpoint is malformed: expected NAME: VALUE, such as Authorization: Bearer …")]
pub struct ParseHeaderError;

/// Why a text is not a [`GasPrice`](crate::GasPrice).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{found}\" is not a price of gas: expected a number of gwei with at most 9 decimals, such as 30 or 0.25"
)]
pub struct ParseGasPriceError {
    pub(crate) found: String,
}
