//! Private networks: only nodes with the same key can talk to each other.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{PeerId, Transport as _, noise};
use manifest::Blame;

use crate::transport::{self, Tcp};

/// No key file is longer.
const MAX_FILE_BYTES: u64 = 4096;
/// What a key file looks like.
const FORM: &str = "/key/swarm/psk/1.0.0/, /base16/ and 64 hexadecimal characters, each on a line";

/// The key of a private network. It is never shown.
///
/// Source: <https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md>.
#[derive(Clone, Copy)]
pub struct NetworkKey(PreSharedKey);

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(…)")
    }
}

impl NetworkKey {
    /// Reads a file in the `swarm.key` format of go-libp2p.
    ///
    /// # Errors
    /// [`NetworkKeyError`]; also when others than its owner can access the file.
    pub fn read(path: &Path) -> Result<Self, NetworkKeyError> {
        let failed = |source| NetworkKeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o7777;
        // A pipe is nobody else's.
        if metadata.is_file() && mode & 0o077 != 0 {
            return Err(NetworkKeyError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(failed)?;
        // The parser of the library cuts the text at any byte: it must be ASCII.
        let text = String::from_utf8(text).ok().filter(|text| text.is_ascii());
        let key = text.and_then(|text| PreSharedKey::from_str(text.trim_end()).ok());
        key.map(Self).ok_or_else(|| NetworkKeyError::Malformed { path: path.to_owned() })
    }
}

/// Why there is no key of a private network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkKeyError {
    /// The file cannot be read.
    #[error("cannot read the network key {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than its owner may read the file.
    #[error(
        "network key {} has mode {mode:04o}, expected 0600: others may have read it; make a new one, and `chmod 600` it",
        path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{} is not a network key: expected {FORM}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl NetworkKeyError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        Blame::Caller
    }
}

/// TCP behind the key: everything, the handshake of noise included, is encrypted with it. There is no TLS, whose speed
/// the cipher of the key would undo.
pub(crate) fn tcp(
    keypair: &Keypair,
    key: NetworkKey,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let pnet = PnetConfig::new(key.0);
    transport::secured(Tcp::new().and_then(move |socket, _| pnet.handshake(socket)), keypair)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write as _;

    use super::*;

    fn read(content: &[u8]) -> Result<NetworkKey, NetworkKeyError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        NetworkKey::read(file.path())
    }

    #[test]
    fn only_whole_keys_are_read_and_none_is_shown() {
        let secret = "0123456789abcdef".repeat(4);
        let good = format!("/key/swarm/psk/1.0.0/\n/base16/\n{secret}\n");
        let key = read(good.as_bytes()).unwrap();
        assert!(!format!("{key:?}").contains("0123"));
        assert!(read(good.trim_end().as_bytes()).is_ok());
        for bad in [
            "",
            &secret,
            &good[..good.len() - 3],
            &good.replace("base16", "base64"),
            &good.replace('0', "é"),
            &good.replace("1.0.0", "2.0.0"),
        ] {
            let error = read(bad.as_bytes()).unwrap_err();
            assert!(
                matches!(error, NetworkKeyError::Malformed { .. })
                    && !error.to_string().contains(&secret[..8])
            );
        }
        assert!(matches!(read(&[0xff; 100]), Err(NetworkKeyError::Malformed { .. })));
        assert!(matches!(NetworkKey::read(Path::new("/nowhere/at/all")), Err(NetworkKeyError::Io { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_none() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "/key/swarm/psk/1.0.0/\n/base16/\n{}", "ab".repeat(32)).unwrap();
        for (mode, is_private) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o644, false)]
        {
            file.as_file().set_permissions(Permissions::from_mode(mode)).unwrap();
            match NetworkKey::read(file.path()) {
                Err(error @ NetworkKeyError::TooOpen { .. }) if !is_private => {
                    let shown = error.to_string();
                    assert!(shown.contains("chmod 600") && !shown.contains("abab"), "{shown}");
                }
                read => assert!(read.is_ok() && is_private, "{mode:o}: {read:?}"),
            }
        }
    }
}
