//! The account that signs.

use std::fmt;
use std::path::Path;

use alloy::network::EthereumWallet;
use alloy::signers::local::PrivateKeySigner;

use crate::address::Address;
use crate::error::SignerError;
use crate::keystore;

/// A private key. Shows nothing but its address.
#[derive(Clone)]
pub struct Signer(PrivateKeySigner);

impl Signer {
    /// Opens an encrypted keystore file (Web3 Secret Storage, version 3). Takes about a second of one core by design:
    /// call it outside async code, or in `spawn_blocking`.
    ///
    /// # Errors
    /// [`SignerError::Unreadable`], [`SignerError::Keystore`].
    pub fn from_keystore(path: &Path, password: &str) -> Result<Self, SignerError> {
        keystore::check(path)?;
        PrivateKeySigner::decrypt_keystore(path, password)
            .map(Self)
            .map_err(|source| SignerError::Keystore { path: path.to_owned(), source })
    }

    /// Makes a new key and keeps it in a new encrypted keystore file (Web3 Secret Storage, version 3), which only the
    /// user can read, from its first moment on. Takes as long as [`from_keystore`](Self::from_keystore).
    ///
    /// # Errors
    /// [`SignerError::NoPassword`], [`SignerError::Exists`], [`SignerError::Unwritable`], [`SignerError::Encryption`].
    pub fn create_keystore(path: &Path, password: &str) -> Result<Self, SignerError> {
        keystore::create(path, password).map(Self)
    }

    /// Reads 64 hexadecimal characters, with or without `0x`; white space around them is ignored.
    ///
    /// # Errors
    /// [`SignerError::PrivateKey`].
    pub fn from_private_key(text: &str) -> Result<Self, SignerError> {
        text.trim().parse().map(Self).map_err(|_| SignerError::PrivateKey)
    }

    /// The account.
    pub fn address(&self) -> Address {
        Address(self.0.address())
    }

    pub(crate) fn wallet(&self) -> EthereumWallet {
        EthereumWallet::from(self.0.clone())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.address()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Account 0 of the mnemonic every development chain uses.
    const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    const ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

    #[test]
    fn a_private_key_is_hexadecimal_and_never_shown() {
        for text in [KEY.to_owned(), format!("0x{KEY}\n")] {
            let signer = Signer::from_private_key(&text).unwrap();
            assert_eq!(signer.address().to_string(), ADDRESS);
            assert_eq!(format!("{signer:?}"), format!("Signer({ADDRESS})"));
        }
        for bad in ["", "0x", &KEY[1..], &"0".repeat(64), &"f".repeat(64), &format!("{KEY}00")] {
            let error = Signer::from_private_key(bad).unwrap_err();
            assert!(bad.len() < 3 || !format!("{error} {error:?}").contains(bad));
        }
    }

    /// The test vector of the Web3 Secret Storage definition (PBKDF2: the other one, scrypt, is slow on purpose).
    const KEYSTORE: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
        "kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",
        "salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
        "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
        "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;

    #[test]
    fn a_keystore_opens_with_its_password_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file.as_file(), KEYSTORE.as_bytes()).unwrap();
        let signer = Signer::from_keystore(file.path(), "testpassword").unwrap();
        let same =
            Signer::from_private_key("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d");
        assert_eq!(signer.address(), same.unwrap().address());
        let wrong = Signer::from_keystore(file.path(), "hunter2hunter2").unwrap_err();
        assert!(matches!(wrong, SignerError::Keystore { .. }) && !format!("{wrong:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_keystore_and_one_that_is_none_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Signer::from_keystore(&dir.path().join("none"), "");
        assert!(matches!(missing, Err(SignerError::Unreadable { .. })));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Signer::from_keystore(empty.path(), ""), Err(SignerError::Keystore { .. })));
    }
}
