//! What is remembered of a chain between runs: a small file for each chain, contract and block tag.
//!
//! `DIR/CHAIN_ID-GENESIS-CONTRACT-TAG.json`. Whoever changes one holds the lock of the directory (`DIR/lock`), reads it,
//! and replaces it whole, so that several processes share one memory and the floor in it never falls.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use alloy::primitives::{B256, U256};
use manifest::Digest;
use serde::{Deserialize, Serialize};

use crate::ballot::ChainKey;
use crate::config::{Address, BlockTag};
use crate::error::StateError;
use crate::reader::MatureModel;

/// More than ten times what such a file takes.
const MAX_FILE_BYTES: u64 = 16 << 10;
/// The layout of the file.
const VERSION: u32 = 1;
/// A file is not written again for the time alone when that is younger than this.
const FRESH_S: u64 = 60;

/// A block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

/// A model that the contract named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The digest of its manifest.
    #[serde(with = "as_text")]
    pub manifest: Digest,
    /// Its price, in the contract's own unit.
    #[serde(with = "as_text")]
    pub price: U256,
    /// The block in which the contract was last read to name it.
    pub block: BlockRef,
    /// When that was, in seconds since 1970.
    pub confirmed_at: u64,
}

impl Seen {
    pub(crate) fn now(model: &MatureModel) -> Self {
        let block = BlockRef { number: model.block_number, hash: model.block_hash };
        Self { manifest: model.manifest, price: model.price, block, confirmed_at: unix_now() }
    }

    pub(crate) fn model(&self, chain_id: u64) -> MatureModel {
        MatureModel {
            manifest: self.manifest,
            price: self.price,
            chain_id,
            block_number: self.block.number,
            block_hash: self.block.hash,
        }
    }

    /// Whether the file need not be written for the time alone.
    fn is_fresh(&self, later: &Self) -> bool {
        Self { confirmed_at: later.confirmed_at, ..*self } == *later
            && later.confirmed_at.saturating_sub(self.confirmed_at) < FRESH_S
    }
}

/// What is remembered of one chain, contract and block tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainMemory {
    /// The highest block that was read: no lower one is read again.
    pub floor: Option<BlockRef>,
    /// The model that the contract last named.
    pub last_good: Option<Seen>,
    /// The model that was last loaded: see [`ChainReader::note_loaded`](crate::ChainReader::note_loaded).
    pub loaded: Option<Seen>,
}

impl ChainMemory {
    /// Takes in a block in which the contract names `model`, if it names one.
    pub(crate) fn note(&mut self, block: BlockRef, model: Option<Seen>) {
        self.floor = Some(block);
        let Some(model) = model else { return };
        if !self.last_good.is_some_and(|old| old.is_fresh(&model)) {
            self.last_good = Some(model);
        }
        let is_loaded = |loaded: &Seen| loaded.manifest == model.manifest && !loaded.is_fresh(&model);
        if self.loaded.as_ref().is_some_and(is_loaded) {
            self.loaded = Some(model);
        }
    }
}

/// The whole file.
#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    #[serde(flatten)]
    memory: ChainMemory,
}

/// What a directory remembers of one chain, contract and block tag.
#[derive(Debug)]
pub struct StoredChain {
    /// The file.
    pub path: PathBuf,
    /// The chain.
    pub chain_id: u64,
    /// Its first block.
    pub genesis: B256,
    /// The contract.
    pub contract: Address,
    /// Which block was read.
    pub block_tag: BlockTag,
    /// What the file says; an error when it is corrupt.
    pub memory: Result<ChainMemory, StateError>,
}

/// All that `dir` remembers, in the order of the file names. Nothing when there is no such directory.
///
/// # Errors
/// [`StateError::Io`].
pub fn stored_chains(dir: &Path) -> Result<Vec<StoredChain>, StateError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| failed("list", dir, source))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed("list", dir, source))?.path();
        let Some((chain, contract, block_tag)) = path.file_name().and_then(parse_name) else { continue };
        let memory = read(&path).map(Option::unwrap_or_default);
        let ChainKey { chain_id, genesis } = chain;
        found.push(StoredChain { path, chain_id, genesis, contract, block_tag, memory });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl StoredChain {
    /// Removes it: the floor, and what was read and loaded.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn forget(&self) -> Result<(), StateError> {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        let _lock = lock(dir)?;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &self.path, error)),
            _ => Ok(()),
        }
    }
}

/// The memory of one reader: of whatever chain, but of one contract and tag.
#[derive(Debug)]
pub(crate) struct Store {
    dir: Option<PathBuf>,
    contract: Address,
    tag: BlockTag,
    /// Without a directory: of the last chain only.
    kept: Mutex<Option<(ChainKey, ChainMemory)>>,
}

impl Store {
    pub(crate) fn new(dir: Option<PathBuf>, contract: Address, tag: BlockTag) -> Self {
        Self { dir, contract, tag, kept: Mutex::new(None) }
    }

    pub(crate) async fn load(&self, chain: ChainKey) -> Result<ChainMemory, StateError> {
        self.update(chain, |memory| *memory).await
    }

    /// Changes what is remembered, and writes it if it is different then.
    pub(crate) async fn update<T: Send + 'static>(
        &self,
        chain: ChainKey,
        change: impl FnOnce(&mut ChainMemory) -> T + Send + 'static,
    ) -> Result<T, StateError> {
        let Some(dir) = self.dir.clone() else {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let mut memory =
                kept.filter(|(of, _)| *of == chain).map(|(_, memory)| memory).unwrap_or_default();
            let changed = change(&mut memory);
            *kept = Some((chain, memory));
            return Ok(changed);
        };
        let path = dir.join(name(chain, self.contract, self.tag));
        blocking(move || {
            let _lock = lock(&dir)?;
            let before = read(&path)?.unwrap_or_default();
            let mut memory = before;
            let changed = change(&mut memory);
            if memory != before {
                write(&dir, &path, memory)?;
            }
            Ok(changed)
        })
        .await
    }

    /// What was loaded from this contract at this tag, on whatever chain.
    pub(crate) async fn loaded(&self) -> Result<Vec<(ChainKey, Seen)>, StateError> {
        let Some(dir) = self.dir.clone() else {
            let kept = *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(kept.and_then(|(chain, memory)| Some((chain, memory.loaded?))).into_iter().collect());
        };
        let (contract, tag) = (self.contract, self.tag);
        let stored = blocking(move || stored_chains(&dir)).await?;
        let ours = stored.into_iter().filter(|of| of.contract == contract && of.block_tag == tag);
        let mut loaded = Vec::new();
        for StoredChain { chain_id, genesis, memory, .. } in ours {
            loaded.extend(memory?.loaded.map(|seen| (ChainKey { chain_id, genesis }, seen)));
        }
        Ok(loaded)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    tokio::task::spawn_blocking(work).await.map_err(StateError::Worker)?
}

fn name(ChainKey { chain_id, genesis }: ChainKey, contract: Address, tag: BlockTag) -> String {
    format!("{chain_id}-{genesis}-{:#x}-{tag}.json", contract.0)
}

fn parse_name(name: &OsStr) -> Option<(ChainKey, Address, BlockTag)> {
    let mut parts = name.to_str()?.strip_suffix(".json")?.split('-');
    let chain = ChainKey { chain_id: parts.next()?.parse().ok()?, genesis: parts.next()?.parse().ok()? };
    let parsed = (chain, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

/// Held until the file is dropped. The file stays.
fn lock(dir: &Path) -> Result<File, StateError> {
    fs::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
    let path = dir.join("lock");
    let opened = File::options().create(true).append(true).open(&path);
    opened.and_then(|file| file.lock().map(|()| file)).map_err(|source| failed("lock", &path, source))
}

fn read(path: &Path) -> Result<Option<ChainMemory>, StateError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|source| failed("open", path, source))?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(|source| failed("read", path, source))?;
    let corrupt = |reason: String| StateError::Corrupt { path: path.to_owned(), reason };
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
    if contents.version != VERSION {
        return Err(corrupt(format!("version {}, expected {VERSION}", contents.version)));
    }
    Ok(Some(contents.memory))
}

/// Replaces the file whole. The temporary one has a fixed name, as writing is done under the lock: what a killed process
/// leaves is written over.
fn write(dir: &Path, path: &Path, memory: ChainMemory) -> Result<(), StateError> {
    let contents = Contents { version: VERSION, memory };
    let temporary = path.with_extension("tmp");
    let written = serde_json::to_vec(&contents).map_err(io::Error::from).and_then(|mut text| {
        text.push(b'\n');
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    });
    written.map_err(|source| failed("write", path, source))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { what, path: path.to_owned(), source }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Values as their text form.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: ChainKey = ChainKey { chain_id: 1, genesis: B256::repeat_byte(7) };

    fn store(dir: &Path) -> Store {
        Store::new(Some(dir.to_owned()), Address::from_bytes([9; 20]), BlockTag::Finalized)
    }

    fn block(number: u64) -> BlockRef {
        BlockRef { number, hash: B256::repeat_byte(1) }
    }

    fn seen(number: u64, confirmed_at: u64) -> Seen {
        let price = U256::MAX;
        Seen { manifest: Digest::of(b"a model"), price, block: block(number), confirmed_at }
    }

    #[tokio::test]
    async fn what_is_noted_is_there_for_the_next_process_only_where_it_belongs() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(dir.path());
        first.update(CHAIN, |memory| memory.note(block(5), Some(seen(5, 100)))).await.unwrap();
        first.update(CHAIN, |memory| memory.loaded = Some(seen(5, 100))).await.unwrap();
        let again = store(dir.path()).load(CHAIN).await.unwrap();
        assert_eq!(again.floor, Some(block(5)));
        assert_eq!((again.last_good, again.loaded), (Some(seen(5, 100)), Some(seen(5, 100))));
        assert_eq!(store(dir.path()).loaded().await.unwrap(), [(CHAIN, seen(5, 100))]);

        let elsewhere = ChainKey { chain_id: 2, ..CHAIN };
        assert_eq!(first.load(elsewhere).await.unwrap(), ChainMemory::default());
        let of_tag = Store::new(Some(dir.path().to_owned()), first.contract, BlockTag::Latest);
        assert_eq!(of_tag.load(CHAIN).await.unwrap(), ChainMemory::default());
        assert!(of_tag.loaded().await.unwrap().is_empty());

        let stored = stored_chains(dir.path()).unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!((stored[0].chain_id, stored[0].genesis), (1, CHAIN.genesis));
        stored[0].forget().unwrap();
        assert_eq!(first.load(CHAIN).await.unwrap(), ChainMemory::default());
        assert!(stored_chains(&dir.path().join("none")).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_corrupt_file_is_an_error_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.update(CHAIN, |memory| memory.note(block(5), None)).await.unwrap();
        let path = stored_chains(dir.path()).unwrap().remove(0).path;
        let good = fs::read_to_string(&path).unwrap();
        let longer = format!("{good}{}", " ".repeat(20_000));
        let version = good.replace("\"version\":1", "\"version\":2");
        for bad in ["", "{}", &good[..good.len() / 2], &version, &longer.replace('}', "]")] {
            File::create(&path).unwrap().write_all(bad.as_bytes()).unwrap();
            let error = store.load(CHAIN).await.unwrap_err();
            assert!(matches!(error, StateError::Corrupt { .. }), "{bad}: {error:?}");
            assert!(error.to_string().contains("loader chain forget"));
        }
        let stored = stored_chains(dir.path()).unwrap().remove(0);
        assert!(stored.memory.is_err());
        stored.forget().unwrap();
        assert_eq!(store.load(CHAIN).await.unwrap(), ChainMemory::default());
    }

    #[test]
    fn times_are_written_once_a_minute_and_blocks_always() {
        let mut memory = ChainMemory { loaded: Some(seen(5, 100)), ..ChainMemory::default() };
        memory.note(block(5), Some(seen(5, 101)));
        let first = memory;
        assert_eq!((first.last_good, first.loaded), (Some(seen(5, 101)), Some(seen(5, 100))));
        memory.note(block(5), Some(seen(5, 159)));
        assert_eq!(memory, first);
        memory.note(block(5), Some(seen(5, 160)));
        assert_eq!(memory.loaded, Some(seen(5, 160)));
        memory.note(block(6), Some(seen(6, 161)));
        assert_eq!((memory.last_good, memory.loaded), (Some(seen(6, 161)), Some(seen(6, 161))));
        let other = Seen { manifest: Digest::of(b"another"), ..seen(7, 500) };
        memory.note(block(7), Some(other));
        assert_eq!((memory.last_good, memory.loaded), (Some(other), Some(seen(6, 161))));
    }

    #[tokio::test]
    async fn several_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let writers = (1..=20).map(|number| {
            let store = store(dir.path());
            async move {
                let raise = move |memory: &mut ChainMemory| {
                    let floor = memory.floor.map_or(0, |floor| floor.number);
                    memory.floor = Some(block(floor + number));
                };
                store.update(CHAIN, raise).await.unwrap();
            }
        });
        let tasks: Vec<_> = writers.map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(store(dir.path()).load(CHAIN).await.unwrap().floor, Some(block(210)));
    }
}
