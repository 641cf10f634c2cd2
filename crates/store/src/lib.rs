//! One directory of models, safe for several processes at once, that never trusts its own content blindly.
//!
//! ```text
//! CACHE/
//!   VERSION                          of this layout; another one is refused
//!   CACHEDIR.TAG                     tells backup programs to leave it out
//!   identity                         the node's key, kept by the network
//!   bans                             peers that sent wrong bytes, and when
//!   manifests/<digest>.json
//!   models/<manifest digest>/weights mode 0444: what a runtime maps
//!   models/<manifest digest>/files/<path>  in its place, where the manifest names files
//!   models/<manifest digest>/incomplete    while some of them are still in the partial model
//!   models/<manifest digest>/parity/<index>
//!   models/<manifest digest>/pieces  the piece index blob
//!   models/<manifest digest>/stamp   metadata of the files when they were hashed, and the verdict
//!   partial/<manifest digest>/       the same files being filled, and a journal of verified pieces
//!   partial/staging-*                being published, moved or removed; a dead process's are swept at the next opening;
//!                                    in models/, too
//!   used/<manifest digest>           when it was last used: the time of the file
//!   room/<manifest digest>           how much it takes once it is filled, where the cache has a limit
//!   pins/<manifest digest>           it is never evicted or removed
//!   links/                           links to models, and what they lead to
//!   locks/                           never deleted
//!   series/<name>                    models that were loaded for a series, oldest first
//!   series/<name>.live               the one of them that is known to be in use
//!   run/                             sockets of running nodes, kept by them
//! ```
//!
//! A shard is stored once: data shards are ranges of `weights`, and a parity shard with the digest of a data shard has
//! no file of its own. A finished file is never written, truncated or linked again.
//!
//! Everything here blocks; asynchronous callers use a blocking thread.
#![deny(unsafe_code)]

mod atomic;
mod availability;
mod ban_file;
mod ban_list;
mod blob_dir;
mod blob_reader;
mod blobs;
mod cache;
mod donors;
mod entries;
mod error;
mod evict;
mod fill_wait;
mod free;
mod heal;
mod incomplete;
mod install;
mod journal;
mod keep;
mod lay_out;
mod layout;
mod left;
mod link;
mod lock;
mod lock_holder;
mod mmap;
mod model;
mod model_files;
mod offer;
mod own_blobs;
mod partial;
mod piece_states;
mod read;
mod recheck;
mod relocate;
mod retention;
mod space;
mod staging;
mod stamp;
mod sweep;
mod sync;
mod tensors;
mod trial;
mod trust;
mod weights_files;
mod writeback;

pub use atomic::create_new;
pub use ban_list::BanList;
pub use blob_dir::{BlobDir, digests_in};
pub use blob_reader::BlobReader;
pub use blobs::Blobs;
pub use cache::Cache;
pub use entries::{Entry, EntryState, Removed};
pub use error::CacheError;
pub use evict::{Evicted, Limit};
pub use fill_wait::{FillState, FillWait, PAUSE};
pub use free::Free;
pub use keep::Keep;
pub use lay_out::check_empty;
pub use layout::{PARITY, PIECES};
pub use lock::FillLock;
pub use lock_holder::{LockHolder, LockHolders};
pub use mmap::{Map, Pages};
pub use model::{FileInfo, MappedFile, Model};
pub use model_files::ModelFiles;
pub use offer::{Offer, Offered};
pub use own_blobs::OwnBlobs;
pub use partial::{CheckedShard, Partial, Rechecked};
pub use read::VerifiedReader;
pub use recheck::{BadShard, IndexState, RecheckReport, bytes, on_threads, recheck};
pub use space::{require, require_files, reserve};
pub use staging::Staging;
pub use tensors::{Tensor, Tensors, TensorsError};
pub use trial::DiskTrial;
pub use weights_files::WeightsFiles;
pub use writeback::{Right, Writeback};

use trust::Trust;

#[cfg(test)]
mod tests;
