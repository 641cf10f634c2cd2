//! A small file for each chain, contract and block tag.
//!
//! `DIR/CHAIN_ID-GENESIS-CONTRACT-TAG.json`. Whoever changes one holds the lock of the directory (`DIR/lock`), reads it,
//! and replaces it whole, so that several processes share one memory and the floor in it never falls; whoever only reads
//! needs no lock. Where no endpoint has the first block any more, GENESIS is `unknown`, and what is remembered is found by
//! the chain id: two files of it are refused.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy::primitives::B256;
use serde::{Deserialize, Serialize};

use super::memory::ChainMemory;
use crate::address::Address;
use crate::ballot::ChainKey;
use crate::block::BlockTag;
use crate::error::StateError;

/// More than ten times what such a file takes.
const MAX_FILE_BYTES: u64 = 16 << 10;
/// The layout of the file.
const VERSION: u32 = 1;
/// Whoever holds the lock is done in a moment, unless it was stopped or its disk hangs.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Stands for an unknown first block in a file's name.
const NO_GENESIS: &str = "unknown";

/// The whole file.
#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    #[serde(flatten)]
    memory: ChainMemory,
}

/// The stored state of one chain, contract and block tag.
#[derive(Debug)]
pub struct StoredChain {
    /// The file.
    pub path: PathBuf,
    /// The chain.
    pub chain_id: u64,
    /// Its first block; `None` where no quorum of endpoints had it any more.
    pub genesis: Option<B256>,
    /// The contract.
    pub contract: Address,
    /// Which block was read.
    pub block_tag: BlockTag,
    /// The content of the file; an error when it is corrupt.
    pub memory: Result<ChainMemory, StateError>,
}

/// All state files in `dir`, in the order of their names. None when there is no such directory.
///
/// # Errors
/// [`StateError::Io`].
pub fn stored_chains(dir: &Path) -> Result<Vec<StoredChain>, StateError> {
    let read = |(path, (chain, contract, block_tag)): (PathBuf, Name)| {
        let memory = read(&path).map(Option::unwrap_or_default);
        let ChainKey { chain_id, genesis } = chain;
        StoredChain { path, chain_id, genesis, contract, block_tag, memory }
    };
    Ok(names(dir)?.into_iter().map(read).collect())
}

impl StoredChain {
    /// Removes it: the floor, and what was read and loaded.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Locked`].
    pub fn forget(&self) -> Result<(), StateError> {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        let _lock = lock(dir)?;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &self.path, error)),
            _ => Ok(()),
        }
    }
}

/// The state file of one chain.
pub(super) struct Place {
    /// The chain, with its first block if that is known to the endpoints or remembered.
    chain: ChainKey,
    /// The file that is there.
    found: Option<PathBuf>,
    /// The file that is written.
    path: PathBuf,
}

impl Place {
    pub(super) fn of(
        dir: &Path,
        chain: ChainKey,
        contract: Address,
        tag: BlockTag,
    ) -> Result<Self, StateError> {
        let mut found = names(dir)?;
        found.retain(|(_, (of, whose, at))| of.is_compatible(&chain) && (*whose, *at) == (contract, tag));
        let (chain, found) = match found.as_slice() {
            [] => (chain, None),
            [(path, (of, ..))] => (of.with_genesis_of(chain), Some(path.clone())),
            several => {
                let paths = several.iter().map(|(path, _)| path.clone()).collect();
                return Err(StateError::Ambiguous { chain_id: chain.chain_id, paths });
            }
        };
        Ok(Self { chain, found, path: dir.join(name(chain, contract, tag)) })
    }

    pub(super) fn load(&self) -> Result<(ChainKey, ChainMemory), StateError> {
        let memory = self.found.as_deref().map(read).transpose()?.flatten();
        Ok((self.chain, memory.unwrap_or_default()))
    }

    /// To be called with the lock held.
    pub(super) fn update<T>(self, change: impl FnOnce(&mut ChainMemory) -> T) -> Result<T, StateError> {
        let (_, before) = self.load()?;
        let mut memory = before;
        let changed = change(&mut memory);
        // First, and in one step: whoever reads meanwhile finds just one file.
        if let Some(old) = self.found.filter(|found| *found != self.path) {
            fs::rename(&old, &self.path).map_err(|source| failed("rename", &old, source))?;
        }
        if memory != before {
            write(&self.path, memory)?;
        }
        Ok(changed)
    }
}

type Name = (ChainKey, Address, BlockTag);

/// The files in `dir` whose names are such as we give; none where there is no such directory.
fn names(dir: &Path) -> Result<Vec<(PathBuf, Name)>, StateError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| failed("list", dir, source))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed("list", dir, source))?.path();
        let name = path.file_name().and_then(parse_name);
        found.extend(name.map(|name| (path, name)));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn name(ChainKey { chain_id, genesis }: ChainKey, contract: Address, tag: BlockTag) -> String {
    let genesis = genesis.map_or(NO_GENESIS.to_owned(), |genesis| genesis.to_string());
    format!("{chain_id}-{genesis}-{:#x}-{tag}.json", contract.0)
}

fn parse_name(name: &OsStr) -> Option<Name> {
    let mut parts = name.to_str()?.strip_suffix(".json")?.split('-');
    let chain_id = parts.next()?.parse().ok()?;
    let genesis = match parts.next()? {
        NO_GENESIS => None,
        hash => Some(hash.parse().ok()?),
    };
    let parsed = (ChainKey { chain_id, genesis }, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

/// Held until the file is dropped. The file stays. Waits for other holders, but not for ever: one may have been stopped.
pub(super) fn lock(dir: &Path) -> Result<File, StateError> {
    lock_within(dir, LOCK_PATIENCE)
}

pub(super) fn lock_within(dir: &Path, patience: Duration) -> Result<File, StateError> {
    files::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
    // A lock can be had where nothing can be written.
    files::check_writable(dir).map_err(|source| failed("write to", dir, source))?;
    let path = dir.join("lock");
    let file =
        files::open_to_lock(files::Place::of(&path)).map_err(|source| failed("open", &path, source))?;
    match files::lock_within(&file, File::try_lock, patience) {
        Ok(true) => Ok(file),
        Ok(false) => Err(StateError::Locked { path, waited: patience }),
        Err(source) => Err(failed("lock", &path, source)),
    }
}

fn read(path: &Path) -> Result<Option<ChainMemory>, StateError> {
    let text = files::read(files::Place::of(path), MAX_FILE_BYTES);
    let Some(text) = text.map_err(|source| failed("read", path, source))? else { return Ok(None) };
    let corrupt = |reason: String| StateError::Corrupt { path: path.to_owned(), reason };
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
    if contents.version != VERSION {
        return Err(corrupt(format!("version {}, expected {VERSION}", contents.version)));
    }
    Ok(Some(contents.memory))
}

/// Replaces the file whole.
fn write(path: &Path, memory: ChainMemory) -> Result<(), StateError> {
    let contents = Contents { version: VERSION, memory };
    let written = serde_json::to_vec(&contents).map_err(io::Error::from).and_then(|mut text| {
        text.push(b'\n');
        files::replace(files::Place::of(path), &text, 0o644, true)
    });
    written.map_err(|source| failed("write", path, source))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { what, path: path.to_owned(), source }
}
