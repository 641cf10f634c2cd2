//! Money: the price of gas, and amounts.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::U256;

use crate::error::{ParseGasPriceError, excerpt};

const WEI_PER_GWEI: u128 = 1_000_000_000;
/// Digits of a gwei's fraction, and of an ether's.
const GWEI_DECIMALS: usize = 9;
const ETHER_DECIMALS: usize = 18;

/// What a unit of gas costs. Its text form is in gwei, 10^9 wei: `30`, `0.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GasPrice(pub(super) u128);

impl GasPrice {
    /// So many gwei.
    pub const fn from_gwei(gwei: u32) -> Self {
        Self(gwei as u128 * WEI_PER_GWEI)
    }

    /// The price in wei.
    pub const fn wei(self) -> u128 {
        self.0
    }
}

impl FromStr for GasPrice {
    type Err = ParseGasPriceError;

    fn from_str(text: &str) -> Result<Self, ParseGasPriceError> {
        let refuse = || ParseGasPriceError { found: excerpt(text, 40) };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || fraction.len() > GWEI_DECIMALS {
            return Err(refuse());
        }
        // 32 bits of gwei: any price is less, and no sum of a few overflows.
        let whole: u32 = whole.parse().map_err(|_| refuse())?;
        let fraction: u128 = format!("{fraction:0<GWEI_DECIMALS$}").parse().map_err(|_| refuse())?;
        Ok(Self(u128::from(whole) * WEI_PER_GWEI + fraction))
    }
}

impl fmt::Display for GasPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(&self.0.to_string(), GWEI_DECIMALS))?;
        f.write_str(" gwei")
    }
}

/// An amount of the chain's own money. Shown in ether, 10^18 wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wei(pub U256);

impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(&self.0.to_string(), ETHER_DECIMALS))?;
        f.write_str(" ETH")
    }
}

/// A whole number of the smallest unit, as a number of a unit with so many decimals, without trailing zeros.
fn decimal(number: &str, decimals: usize) -> String {
    let padded = format!("{number:0>width$}", width = decimals + 1);
    let (whole, fraction) = padded.split_at(padded.len() - decimals);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prices_are_read_and_shown_in_gwei() {
        for (text, wei, shown) in [
            ("0", 0, "0 gwei"),
            ("30", 30_000_000_000, "30 gwei"),
            ("0.25", 250_000_000, "0.25 gwei"),
            ("1.000000001", 1_000_000_001, "1.000000001 gwei"),
            ("4294967295.9", 4_294_967_295_900_000_000, "4294967295.9 gwei"),
        ] {
            let price: GasPrice = text.parse().unwrap();
            assert_eq!((price.wei(), price.to_string().as_str()), (wei, shown));
        }
        for bad in
            ["", ".", "1.", ".5", "-1", "+1", "1e9", "1,5", "1.0000000001", "4294967296", "1 gwei", "0x1"]
        {
            assert!(bad.parse::<GasPrice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_shown_in_ether() {
        for (wei, shown) in
            [(0_u64, "0 ETH"), (1, "0.000000000000000001 ETH"), (1_500_000_000_000_000_000, "1.5 ETH")]
        {
            assert_eq!(Wei(U256::from(wei)).to_string(), shown);
        }
        assert!(Wei(U256::MAX).to_string().ends_with(" ETH"));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(wei in 0_u128..u128::from(u32::MAX) * WEI_PER_GWEI) {
            let shown = GasPrice(wei).to_string();
            prop_assert_eq!(shown.trim_end_matches(" gwei").parse(), Ok(GasPrice(wei)));
        }
    }
}
