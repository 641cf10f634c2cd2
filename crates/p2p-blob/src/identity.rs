//! Who a node is: an Ed25519 key, in memory or in a file.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use files::Place;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use manifest::SourceId;

use crate::error::IdentityError;

/// An Ed25519 key has 68 bytes in libp2p's protobuf form; a larger file is something else.
const MAX_KEY_FILE_BYTES: u64 = 1024;

/// An Ed25519 key pair. One from a file keeps the file locked while it lives.
pub struct Identity {
    keypair: Keypair,
    lock: Option<File>,
}

impl Identity {
    /// A new key that lives as long as this value.
    pub fn ephemeral() -> Self {
        Self { keypair: Keypair::generate_ed25519(), lock: None }
    }

    /// The key in the file at `path` (libp2p's protobuf form, mode 0600), created when the file is missing.
    ///
    /// The file is locked (`flock`) until the identity, or the node that uses it, is gone. When another process has
    /// the lock, the identity is an ephemeral one: two nodes must not have one id.
    ///
    /// # Errors
    /// - [`IdentityError::Io`]: the file cannot be created, read or locked.
    /// - [`IdentityError::TooOpen`]: others than its owner can access it.
    /// - [`IdentityError::Invalid`]: it holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let file = match open(path) {
            Err(IdentityError::Missing { .. }) => {
                let created = create(path);
                created.map_err(|source| IdentityError::Io {
                    action: "create",
                    path: path.to_owned(),
                    source,
                })?;
                open(path)?
            }
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!(path = %path.display(), "identity is in use, this node takes an ephemeral one");
                return Ok(Self::ephemeral());
            }
            Err(TryLockError::Error(source)) => {
                return Err(IdentityError::Io { action: "lock", path: path.to_owned(), source });
            }
        }
        Ok(Self { keypair: read(path, &file)?, lock: Some(file) })
    }

    /// The peer id of the key in the file at `path`, whether or not a node uses it now.
    ///
    /// # Errors
    /// [`IdentityError::Missing`]; those of [`Identity::load_or_create`].
    pub fn peer_id_of(path: &Path) -> Result<PeerId, IdentityError> {
        Ok(read(path, &open(path)?)?.public().to_peer_id())
    }

    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// Whether the key is gone with the process.
    pub fn is_ephemeral(&self) -> bool {
        self.lock.is_none()
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("peer_id", &self.peer_id())
            .field("is_ephemeral", &self.is_ephemeral())
            .finish()
    }
}

/// The key file.
fn open(path: &Path) -> Result<File, IdentityError> {
    let fail = |action| move |source| IdentityError::Io { action, path: path.to_owned(), source };
    let file = files::open(Place::of(path)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
        _ => fail("open")(source),
    })?;
    let mode = file.metadata().map_err(fail("inspect"))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(file)
}

fn read(path: &Path, file: &File) -> Result<Keypair, IdentityError> {
    let mut bytes = Vec::new();
    file.take(MAX_KEY_FILE_BYTES).read_to_end(&mut bytes).map_err(|source| IdentityError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    Keypair::from_protobuf_encoding(&bytes)
        .map_err(|source| IdentityError::Invalid { path: path.to_owned(), source })
}

/// Creates the key file whole or not at all. A file that somebody else created meanwhile stays.
fn create(path: &Path) -> io::Result<()> {
    let encoded = Keypair::generate_ed25519().to_protobuf_encoding().map_err(io::Error::other)?;
    match files::create_whole(Place::of(path), &encoded, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// The id of a peer as a source of blobs: its peer id as text.
pub fn source_id(peer: &PeerId) -> SourceId {
    SourceId::new(peer.to_base58())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_key_file_is_created_once_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let first = Identity::load_or_create(&path).unwrap();
        assert!(!first.is_ephemeral());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
        let id = first.peer_id();
        drop(first);
        assert_eq!(Identity::load_or_create(&path).unwrap().peer_id(), id);
    }

    #[test]
    fn a_key_in_use_gives_an_ephemeral_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert!(second.is_ephemeral());
        assert_ne!(first.peer_id(), second.peer_id());
        assert_eq!(Identity::peer_id_of(&path).unwrap(), first.peer_id());
    }

    #[test]
    fn an_open_key_file_and_one_with_something_else_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        drop(Identity::load_or_create(&path).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::TooOpen { mode: 0o644, .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        File::create(&path).unwrap().write_all(b"not a key").unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Invalid { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"not a key", "it may be all that is left of one");
    }

    #[test]
    fn asking_for_a_name_creates_none() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::peer_id_of(&dir.path().join("identity")).unwrap_err();
        assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::load_or_create(&dir.path().join("no/identity")).unwrap_err();
        assert!(error.to_string().contains("no/identity"), "{error}");
    }

    #[test]
    fn many_creators_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Identity::load_or_create(&path).unwrap());
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
