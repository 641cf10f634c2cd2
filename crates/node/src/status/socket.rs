//! `run/<pid>.sock` in the cache: a connection gets the node's status, as one JSON object.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use files::Place;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::{Board, Status};

/// Folder of the sockets in a cache.
const RUN: &str = "run";
/// Read and write timeout.
const PATIENCE: Duration = Duration::from_secs(2);
/// No status is longer.
const MAX_STATUS_BYTES: u64 = 4 << 20;
/// Nodes of one process with one cache that get a socket.
const MAX_NODES: usize = 16;

/// The socket of a running node; dropping it closes and removes it.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Socket {
    /// Listens in the cache at `cache_dir`. Sockets of processes that are gone are removed.
    pub(crate) fn open(cache_dir: &Path, board: Arc<Board>) -> io::Result<Self> {
        let dir = cache_dir.join(RUN);
        files::create_private_dir(Place::of(&dir))?;
        sweep(&dir)?;
        let (path, listener) = bind(&dir)?;
        let task = tokio::spawn(async move {
            // One client at a time: one that does not read delays others until the timeout, but costs nothing.
            loop {
                match listener.accept().await {
                    Ok((mut stream, _)) => {
                        let status = serde_json::to_vec(&board.status()).unwrap_or_default();
                        // The client may be gone.
                        let _ = tokio::time::timeout(PATIENCE, stream.write_all(&status)).await;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot answer `loader status`");
                        tokio::time::sleep(PATIENCE).await;
                    }
                }
            }
        });
        Ok(Self { path, task })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// Several nodes of one process have a socket each.
fn bind(dir: &Path) -> io::Result<(PathBuf, UnixListener)> {
    let pid = std::process::id();
    let reach = ShortPath::of(dir)?;
    let mut number = 0;
    loop {
        let name = if number == 0 { format!("{pid}.sock") } else { format!("{pid}-{number}.sock") };
        let path = dir.join(&name);
        match UnixListener::bind(reach.path.join(name)) {
            Ok(listener) => {
                files::give_to_owner(Place::of(&path))?;
                return Ok((path, listener));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && number + 1 < MAX_NODES => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The longest socket path on all systems.
const MAX_PATH_BYTES: usize = 100;
/// The longest name of a socket.
const MAX_NAME_BYTES: usize = "4294967295-99.sock".len();

/// A path to a directory that is short enough for a socket in it.
struct ShortPath {
    path: PathBuf,
    /// Open while the path goes through its descriptor.
    _dir: Option<File>,
}

impl ShortPath {
    fn of(dir: &Path) -> io::Result<Self> {
        if dir.as_os_str().len() + 1 + MAX_NAME_BYTES <= MAX_PATH_BYTES {
            return Ok(Self { path: dir.to_owned(), _dir: None });
        }
        let open = File::open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        if !path.exists() {
            let reason =
                format!("its path has more than {MAX_PATH_BYTES} bytes, too many for a socket in it");
            return Err(io::Error::new(ErrorKind::InvalidFilename, reason));
        }
        Ok(Self { path, _dir: Some(open) })
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let dir = path.parent().unwrap_or(Path::new("."));
    UnixStream::connect(ShortPath::of(dir)?.path.join(path.file_name().unwrap_or_default()))
}

/// Removes sockets that nobody listens at.
fn sweep(dir: &Path) -> io::Result<()> {
    for path in sockets(dir)? {
        if matches!(connect(&path), Err(error) if error.kind() == ErrorKind::ConnectionRefused) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn sockets(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sock") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Why a node, or the cache, could not be queried.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The system refused.
    #[error("cannot ask {}", path.display())]
    Io {
        /// The socket or its folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A node of another version, or something else, answered.
    #[error("{} did not answer with a status", path.display())]
    Nonsense {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
}

/// The answer of one node.
pub type Running = Result<Status, QueryError>;

/// Queries the status of all nodes that use the cache at `cache_dir`. Blocks, for seconds if one does not answer.
///
/// # Errors
/// When the cache cannot be looked into.
pub fn running(cache_dir: &Path) -> Result<Vec<Running>, QueryError> {
    let dir = cache_dir.join(RUN);
    let paths = sockets(&dir).and_then(|paths| {
        // If it has no short path, no node could have put a socket into it.
        if dir.exists() { ShortPath::of(&dir).map(|_| paths) } else { Ok(paths) }
    });
    let paths = paths.map_err(|source| QueryError::Io { path: dir, source })?;
    Ok(paths.into_iter().filter_map(ask).collect())
}

/// `None` when nobody listens any more.
fn ask(path: PathBuf) -> Option<Running> {
    let read = || -> io::Result<Vec<u8>> {
        let stream = connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::new();
        stream.take(MAX_STATUS_BYTES).read_to_end(&mut answer)?;
        Ok(answer)
    };
    match read() {
        Ok(answer) => Some(
            serde_json::from_slice(&answer)
                .map_err(|source| QueryError::Nonsense { path: path.clone(), source }),
        ),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => None,
        Err(source) => Some(Err(QueryError::Io { path, source })),
    }
}
