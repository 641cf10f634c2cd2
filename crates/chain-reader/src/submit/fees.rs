//! What a transaction offers for its gas.

use alloy::primitives::{U64, U128};
use serde::Deserialize;

use super::units::GasPrice;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};

/// What is paid on top where the endpoint does not tell what is usual.
const DEFAULT_PRIORITY_FEE: GasPrice = GasPrice::from_gwei(1);

/// The offer, by the kind of chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fees {
    /// A chain with a base fee (EIP-1559): what is paid is the base fee of the block, which nobody gets, and the
    /// priority fee, which is what makes a validator take the transaction; together never more than `max`.
    Dynamic {
        /// The base fee of the newest block.
        base_fee: GasPrice,
        /// What is paid on top.
        priority_fee: GasPrice,
        /// The most that is paid in all. Twice the base fee and the priority fee, if the cap allows it: the base fee
        /// rises by an eighth a block at most, so that is enough for six full blocks.
        max_fee: GasPrice,
    },
    /// A chain without: what is paid is this price.
    Legacy {
        /// What the endpoint asks for.
        gas_price: GasPrice,
    },
}

impl Fees {
    /// The most that a unit of gas can cost.
    pub fn max_per_gas(&self) -> GasPrice {
        match self {
            Self::Dynamic { max_fee, .. } => *max_fee,
            Self::Legacy { gas_price } => *gas_price,
        }
    }
}

/// The field we need of the newest block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    number: U64,
    base_fee_per_gas: Option<U128>,
}

/// Asks what the network takes now. `priority_fee` is what the caller wants to pay on top, `None` asks the endpoint.
///
/// # Errors
/// [`SubmitError::FeeOverCap`] when it takes more than `cap`.
pub(super) async fn offer(
    endpoint: &Endpoint,
    cap: GasPrice,
    priority_fee: Option<GasPrice>,
) -> Result<Fees, SubmitError> {
    let head: Head = endpoint.request("eth_getBlockByNumber", ("latest", false)).await?;
    let block_number = head.number.to();
    let Some(base_fee) = head.base_fee_per_gas.map(|wei| GasPrice(wei.to())) else {
        let gas_price = gas_price(endpoint).await?;
        if gas_price > cap {
            let priority_fee = GasPrice::default();
            return Err(SubmitError::FeeOverCap { base_fee: gas_price, priority_fee, cap, block_number });
        }
        return Ok(Fees::Legacy { gas_price });
    };
    let priority_fee = match priority_fee {
        Some(wanted) => wanted,
        None => usual_priority_fee(endpoint, base_fee).await?,
    };
    let needed = base_fee.0.saturating_add(priority_fee.0);
    if needed > cap.0 {
        return Err(SubmitError::FeeOverCap { base_fee, priority_fee, cap, block_number });
    }
    let max_fee = GasPrice(needed.saturating_add(base_fee.0).min(cap.0));
    Ok(Fees::Dynamic { base_fee, priority_fee, max_fee })
}

async fn usual_priority_fee(endpoint: &Endpoint, base_fee: GasPrice) -> Result<GasPrice, SubmitError> {
    match endpoint.request::<_, U128>("eth_maxPriorityFeePerGas", ()).await {
        Ok(wei) => return Ok(GasPrice(wei.to())),
        Err(error) if !error.is_answer() => return Err(error.into()),
        Err(_) => {}
    }
    // Not every node has that method; most have the sum.
    match gas_price(endpoint).await {
        Ok(sum) => Ok(GasPrice(sum.0.saturating_sub(base_fee.0))),
        Err(error) if error.is_answer() => Ok(DEFAULT_PRIORITY_FEE),
        Err(error) => Err(error.into()),
    }
}

async fn gas_price(endpoint: &Endpoint) -> Result<GasPrice, EndpointError> {
    let wei: U128 = endpoint.request("eth_gasPrice", ()).await?;
    Ok(GasPrice(wei.to()))
}
