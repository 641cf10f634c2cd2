//! Why a contract refused, from the data that it reverted with.

use alloy::primitives::{Bytes, hex};
use alloy::rpc::json_rpc::ErrorPayload;
use alloy::sol_types::{SolInterface, decode_revert_reason};

mod abi {
    alloy::sol! {
        // Those of OpenZeppelin's contracts, version 5, that a guarded setter reverts with, and common short forms.
        #[derive(Debug)]
        interface Known {
            error OwnableUnauthorizedAccount(address account);
            error AccessControlUnauthorizedAccount(address account, bytes32 neededRole);
            error AccessManagedUnauthorized(address caller);
            error AccessManagedRequiredDelay(address caller, uint32 delay);
            error GovernorOnlyExecutor(address account);
            error EnforcedPause();
            error ReentrancyGuardReentrantCall();
            error NotInitializing();
            error InvalidInitialization();
            error Unauthorized();
            error NotOwner();
            error OnlyOwner();
        }
    }
}

use abi::Known::KnownErrors as Error;

/// The JSON-RPC code of a reverted call.
///
/// Source: <https://github.com/ethereum/execution-apis>, `eth_call`.
const REVERTED: i64 = 3;

/// What nodes say, in lower case, of a call that failed in the contract: geth, Erigon, Reth and Besu "execution
/// reverted", Nethermind and `OpenEthereum` "VM execution error", Hardhat and Ganache "VM Exception while processing
/// transaction", anvil "EVM error", and the oldest "always failing transaction".
const WORDS: [&str; 6] = [
    "revert",
    "vm execution error",
    "vm exception",
    "evm error",
    "invalid opcode",
    "always failing transaction",
];

/// Why the contract refused, when this answer to `method` says that it did, whatever code and words it has for that.
pub(crate) fn told_by(method: &str, error: &ErrorPayload) -> Option<String> {
    let text = || error.data.as_ref().and_then(|data| serde_json::from_str::<String>(data.get()).ok());
    if let Some(data) = error.as_revert_data().or_else(|| reverted(&text()?)) {
        return Some(reason(&data).unwrap_or_else(|| error.message.clone().into_owned()));
    }
    let message = error.message.to_lowercase();
    let runs_a_contract = matches!(method, "eth_call" | "eth_estimateGas");
    let says_so = WORDS.iter().any(|word| message.contains(word));
    (error.code == REVERTED || runs_a_contract && says_so).then(|| error.message.clone().into_owned())
}

/// What a contract reverted with, as Nethermind and `OpenEthereum` write it: `Reverted 0x…`.
fn reverted(text: &str) -> Option<Bytes> {
    text.strip_prefix("Reverted ")?.trim().parse().ok()
}

/// What the data says, for people; `None` when there is none.
pub(crate) fn reason(data: &[u8]) -> Option<String> {
    let (selector, arguments) = data.split_first_chunk::<4>()?;
    if let Ok(known) = Error::abi_decode(data) {
        return Some(explain(&known));
    }
    // Error(string) and Panic(uint256).
    decode_revert_reason(data).or_else(|| {
        let (selector, arguments) =
            (hex::encode(selector), hex::encode(&arguments[..arguments.len().min(64)]));
        Some(format!("custom error 0x{selector} with arguments 0x{arguments}"))
    })
}

fn explain(error: &Error) -> String {
    match error {
        Error::OwnableUnauthorizedAccount(e) => {
            format!("OwnableUnauthorizedAccount({}): it is not the contract's owner", e.account)
        }
        Error::AccessControlUnauthorizedAccount(e) => format!(
            "AccessControlUnauthorizedAccount({}, {}): it does not have that role",
            e.account, e.neededRole
        ),
        Error::AccessManagedUnauthorized(e) => {
            format!("AccessManagedUnauthorized({}): the access manager does not let it call this", e.caller)
        }
        Error::AccessManagedRequiredDelay(e) => {
            format!("AccessManagedRequiredDelay({}, {}): the call must be scheduled first", e.caller, e.delay)
        }
        Error::GovernorOnlyExecutor(e) => {
            format!("GovernorOnlyExecutor({}): only a proposal may do this", e.account)
        }
        Error::EnforcedPause(_) => "EnforcedPause(): the contract is paused".to_owned(),
        Error::ReentrancyGuardReentrantCall(_) => "ReentrancyGuardReentrantCall()".to_owned(),
        Error::NotInitializing(_) => "NotInitializing()".to_owned(),
        Error::InvalidInitialization(_) => "InvalidInitialization()".to_owned(),
        Error::Unauthorized(_) => "Unauthorized(): the sender may not call this".to_owned(),
        Error::NotOwner(_) => "NotOwner(): the sender is not the contract's owner".to_owned(),
        Error::OnlyOwner(_) => "OnlyOwner(): the sender is not the contract's owner".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, U256};
    use alloy::sol_types::{Revert, SolError};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_errors_are_named_with_what_they_say() {
        let account = Address::repeat_byte(0x11);
        // The selector is the one in OpenZeppelin's documentation of Ownable.
        let data = [hex::decode("118cdaa7").unwrap(), account.into_word().to_vec()].concat();
        let shown = reason(&data).unwrap();
        assert!(shown.contains("OwnableUnauthorizedAccount(0x1111") && shown.contains("owner"), "{shown}");
        assert_eq!(
            reason(&abi::Known::EnforcedPause {}.abi_encode()).unwrap(),
            "EnforcedPause(): the contract is paused"
        );
        assert!(reason(&Revert::from("no!").abi_encode()).unwrap().contains("no!"));
    }

    #[test]
    fn unknown_errors_are_shown_as_they_are() {
        let data = [vec![0xde, 0xad, 0xbe, 0xef], U256::from(7).to_be_bytes_vec()].concat();
        let shown = reason(&data).unwrap();
        assert!(shown.contains("0xdeadbeef") && shown.ends_with("07"), "{shown}");
        assert_eq!(reason(&[]), None);
        assert_eq!(reason(&[1, 2, 3]), None);
    }

    #[test]
    fn each_nodes_way_of_saying_it_is_known() {
        let told = |method: &str, json: &str| told_by(method, &serde_json::from_str(json).unwrap());
        let no = hex::encode_prefixed(Revert::from("no!").abi_encode());
        for (json, part) in [
            (r#"{"code":3,"message":"execution reverted"}"#, "execution reverted"),
            (r#"{"code":-32000,"message":"execution reverted"}"#, "execution reverted"),
            (r#"{"code":-32000,"message":"Execution reverted","data":"0x"}"#, "Execution reverted"),
            (
                r#"{"code":-32603,"message":"Error: Transaction reverted without a reason string"}"#,
                "reverted",
            ),
            (r#"{"code":-32015,"message":"VM execution error.","data":"Reverted 0x"}"#, "VM execution error"),
            (r#"{"code":-32015,"message":"VM execution error.","data":"Bad instruction fe"}"#, "VM exec"),
            (&format!(r#"{{"code":-32015,"message":"VM execution error.","data":"Reverted {no}"}}"#), "no!"),
            (&format!(r#"{{"code":-32000,"message":"execution reverted: no!","data":"{no}"}}"#), "no!"),
            (&format!(r#"{{"code":3,"message":"execution reverted","data":{{"data":"{no}"}}}}"#), "no!"),
            (r#"{"code":-32000,"message":"VM Exception while processing transaction: revert no!"}"#, "no!"),
        ] {
            for method in ["eth_call", "eth_estimateGas"] {
                let shown = told(method, json).unwrap_or_else(|| panic!("{json}"));
                assert!(shown.contains(part), "{json}: {shown}");
            }
        }
        let missing = r#"{"code":-32000,"message":"missing trie node"}"#;
        assert_eq!(told("eth_call", missing), None);
        let other = r#"{"code":-32000,"message":"the last block was reverted"}"#;
        assert_eq!(told("eth_getBalance", other), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_stays_short(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(reason(&data).is_none_or(|shown| shown.len() < 1000));
        }
    }
}
