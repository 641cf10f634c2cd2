//! Addresses of contracts and accounts.

use std::fmt;
use std::str::FromStr;

use crate::error::{ParseAddressError, excerpt};

/// The address of a contract or an account. Its text form is `0x` and 40 hexadecimal characters, their case being a
/// checksum.
///
/// Source: EIP-55.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub(crate) alloy::primitives::Address);

impl Address {
    /// The address with these 20 bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(alloy::primitives::Address::new(bytes))
    }

    /// The 20 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0.0.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_checksum(None))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    /// All lower or all upper case carries no checksum and is accepted; mixed case must match it.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let found = || excerpt(text, 80);
        let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40);
        let address = digits
            .and_then(|digits| digits.parse::<alloy::primitives::Address>().ok())
            .ok_or_else(|| ParseAddressError::Malformed { found: found() })?;
        let expected = address.to_checksum(None);
        let has = |wanted: fn(&u8) -> bool| text.as_bytes()[2..].iter().any(wanted);
        if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && expected != text {
            return Err(ParseAddressError::Checksum { found: found(), expected });
        }
        Ok(Self(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKSUMMED: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    #[test]
    fn an_address_may_carry_a_checksum_and_then_it_counts() {
        let address: Address = CHECKSUMMED.parse().unwrap();
        assert_eq!(address.to_string(), CHECKSUMMED);
        assert_eq!(Address::from_bytes(*address.as_bytes()), address);
        let upper = format!("0x{}", CHECKSUMMED[2..].to_uppercase());
        for same in [CHECKSUMMED.to_lowercase(), upper] {
            assert_eq!(same.parse(), Ok(address), "{same}");
        }
        let wrong = CHECKSUMMED.replace("aA", "Aa").parse::<Address>().unwrap_err();
        assert!(wrong.to_string().contains(CHECKSUMMED), "{wrong}");
        for bad in
            ["", "0x", &CHECKSUMMED[2..], &CHECKSUMMED[..41], "0xzz", &format!("{CHECKSUMMED}0"), "0xé"]
        {
            assert!(matches!(bad.parse::<Address>(), Err(ParseAddressError::Malformed { .. })), "{bad}");
        }
    }
}
