//! New key files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use alloy::signers::k256::elliptic_curve::rand_core::OsRng;
use alloy::signers::local::PrivateKeySigner;

use crate::error::SignerError;

/// No key file is longer.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// The name of the file that the encryption writes.
const NAME: &str = "key";

/// Whether the file can be read, and is the JSON object that a keystore is. Of another file, which may be a key as it is,
/// the decryption would repeat parts.
pub(crate) fn check(path: &Path) -> Result<(), SignerError> {
    let unreadable = |source| SignerError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // A pipe is read once.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Ok(());
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(unreadable)?;
    let read: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
    if read.is_some_and(|keystore| keystore["crypto"].is_object()) {
        return Ok(());
    }
    let source = io::Error::new(ErrorKind::InvalidData, "it is no JSON object with a `crypto` in it");
    Err(SignerError::Keystore { path: path.to_owned(), source: source.into() })
}

/// Makes a key and writes it, encrypted, to a new file of mode 0600.
pub(crate) fn create(path: &Path, password: &str) -> Result<PrivateKeySigner, SignerError> {
    if password.is_empty() {
        return Err(SignerError::NoPassword);
    }
    let unwritable = |source: io::Error| match source.kind() {
        ErrorKind::AlreadyExists => SignerError::Exists { path: path.to_owned() },
        _ => SignerError::Unwritable { path: path.to_owned(), source },
    };
    // Taken first: to find out that there is no place for a key after it was made is too late.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unwritable)?;
    let made = fill(&mut file, path, password);
    if made.is_err() {
        // What is left has no key in it, or half of one; the error above is the one to tell.
        let _ = fs::remove_file(path);
    }
    made
}

fn fill(file: &mut File, path: &Path, password: &str) -> Result<PrivateKeySigner, SignerError> {
    let unwritable = |source| SignerError::Unwritable { path: path.to_owned(), source };
    // The encryption writes a file that all can read, so it does that where nobody else can enter.
    let dir = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .tempdir()
        .map_err(unwritable)?;
    let (signer, _) = PrivateKeySigner::new_keystore(dir.path(), &mut OsRng, password, Some(NAME))
        .map_err(|source| SignerError::Encryption { source })?;
    let encrypted = fs::read(dir.path().join(NAME)).map_err(unwritable)?;
    file.write_all(&encrypted).and_then(|()| file.sync_all()).map_err(unwritable)?;
    sync_dir_of(path).map_err(unwritable)?;
    Ok(signer)
}

/// A key that a power cut takes away is one that may own something already.
fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Signer;

    #[test]
    fn a_new_keystore_opens_with_its_password_and_only_its_user_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.json");
        let made = Signer::create_keystore(&path, "secret").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Signer::from_keystore(&path, "secret").unwrap().address(), made.address());
        assert!(matches!(Signer::from_keystore(&path, "other"), Err(SignerError::Keystore { .. })));
        // Nothing else is left, and what is there stays.
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        let before = fs::read(&path).unwrap();
        assert!(matches!(Signer::create_keystore(&path, "secret"), Err(SignerError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        let other = Signer::create_keystore(&dir.path().join("other.json"), "secret").unwrap();
        assert_ne!(other.address(), made.address());
    }

    #[test]
    fn a_file_that_is_no_keystore_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.json");
        let key = "ab".repeat(32);
        for content in
            [&*key, &format!("\"{key}\""), &format!("{{\"key\":\"{key}\"}}"), &format!("[\"{key}\"]"), ""]
        {
            fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
            let error = Signer::from_keystore(&path, "secret").unwrap_err();
            assert!(
                matches!(error, SignerError::Keystore { .. }) && !format!("{error:?}").contains("abab"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.json");
        assert!(matches!(Signer::create_keystore(&path, ""), Err(SignerError::NoPassword)));
        let nowhere = dir.path().join("none/key.json");
        assert!(matches!(Signer::create_keystore(&nowhere, "secret"), Err(SignerError::Unwritable { .. })));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
