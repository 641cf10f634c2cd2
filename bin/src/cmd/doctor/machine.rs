//! The cache, its disk, and what else this machine has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use p2p_blob::{Identity, IdentityError, Limits};
use rustix::fs::Access;
use store::{Cache, EntryState, Free};

use super::finding::{bad, ok, warning};
use crate::answer::Checked;
use crate::config::{Settings, limits_of};
use crate::system;
use crate::units::{show_duration, show_size};

/// With less than that no model of today fits.
const LITTLE_BYTES: u64 = 1 << 30;
/// A partial model that nobody has touched for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longer waits for a disk are felt.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// Clocks that are that far apart confuse what is compared by time.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

pub(super) fn checks(settings: &Settings) -> Vec<Checked> {
    let dir = &settings.cache_dir;
    let mut found = match Cache::open_existing(dir) {
        Ok(Some(cache)) => of_cache(&cache),
        Ok(None) => vec![of_no_cache(dir)],
        Err(error) => {
            let advice = "correct --cache-dir, or make the directory this user's";
            vec![bad("cache", shown(dir), format!("{:#}", anyhow::Error::from(error)), advice)]
        }
    };
    found.extend(exposed(settings.secret_file()));
    found.push(descriptors(system::descriptors()));
    found
}

fn shown(path: &Path) -> Option<String> {
    Some(path.display().to_string())
}

fn of_no_cache(dir: &Path) -> Checked {
    let above = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let above = above.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::access(above, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => ok("cache", shown(dir), "it is not there yet: the first fetch creates it"),
        Err(error) => {
            let text = format!("it is not there, and cannot be created in {}: {error}", above.display());
            bad("cache", shown(dir), text, "create it, and make it this user's")
        }
    }
}

fn of_cache(cache: &Cache) -> Vec<Checked> {
    let dir = shown(cache.dir());
    let kind = file_system(cache.dir()).map_or(String::new(), |kind| format!(" on {kind}"));
    let mut found = Vec::new();
    match cache.try_disk() {
        Err(error) => {
            let advice =
                "make it writable, or give another --cache-dir; what is there can be read and served";
            found.push(bad("cache", dir, format!("{:#}", anyhow::Error::from(error)), advice));
        }
        Ok(trial) if !trial.has_locks => {
            let advice = "put the cache on a disk of this machine, or mount that one with locks";
            found.push(bad("cache", dir, format!("locks do not work{kind}"), advice));
        }
        Ok(trial) if trial.sync_took > SLOW_SYNC => {
            let took = show_duration(trial.sync_took);
            let text = format!("it can be written to{kind}, but a file takes {took} to be on the disk");
            found.push(warning("cache", dir, text, "look whether the disk is busy or failing"));
        }
        Ok(trial) => {
            let took = trial.sync_took.as_millis();
            found.push(ok("cache", dir, format!("writable{kind}; locks work, a sync takes {took} ms")));
            if trial.clock_off > CLOCK_TOLERANCE {
                let off = show_duration(trial.clock_off);
                let text = format!("that of the cache's file system is {off} from this machine's");
                found.push(warning("clock", None, text, "set both by NTP"));
            }
        }
    }
    found.extend(cache.free().map(room));
    found.push(partial(cache));
    found.extend(identity(&cache.identity_path()));
    found
}

fn room(free: Free) -> Checked {
    let text = match free.files {
        Some(files) => format!("{} are free, and {files} new files", show_size(free.bytes)),
        None => format!("{} are free", show_size(free.bytes)),
    };
    match free.bytes < LITTLE_BYTES || free.files.is_some_and(|files| files < 1000) {
        true => warning("room", None, text, "free some (`loader cache gc`), or use another disk"),
        false => ok("room", None, text),
    }
}

/// What fetches have left long ago.
fn partial(cache: &Cache) -> Checked {
    let entries = match cache.list() {
        Ok(entries) => entries,
        Err(error) => {
            let text = format!("cannot list the models: {:#}", anyhow::Error::from(error));
            return bad("models", None, text, "see who owns the files of the cache");
        }
    };
    let now = SystemTime::now();
    let is_old = |changed: SystemTime| now.duration_since(changed).is_ok_and(|age| age > FORGOTTEN_AFTER);
    let is_partial = |entry: &&store::Entry| matches!(entry.state, EntryState::Partial { .. });
    let partial: Vec<_> = entries.iter().filter(is_partial).collect();
    let forgotten = partial.iter().filter(|entry| entry.changed.is_some_and(is_old));
    let bytes: Vec<u64> = forgotten.map(|entry| entry.disk_bytes).collect();
    let (finished, under_way) = (entries.len() - partial.len(), partial.len());
    let text = format!("{finished} finished, {under_way} partial");
    match bytes.len() {
        0 => ok("models", None, text),
        count => {
            let size = show_size(bytes.iter().sum());
            let text = format!("{text}, of which {count} ({size}) were not touched for a week");
            warning("models", None, text, "fetch them, or remove them (`loader cache ls`, `loader cache rm`)")
        }
    }
}

/// The node's key, which only its owner may read. A node makes one where there is none.
fn identity(path: &Path) -> Option<Checked> {
    match Identity::peer_id_of(path) {
        Ok(peer) => Some(ok("identity", None, format!("{peer}, which only its owner can read"))),
        Err(IdentityError::Missing { .. }) => None,
        Err(error) => {
            let text = format!("{:#}", anyhow::Error::from(error));
            let advice = format!("`chmod 600 {}`, or remove it for a new name", path.display());
            Some(bad("identity", None, text, advice))
        }
    }
}

/// A settings file with keys that others may read.
fn exposed(file: Option<&Path>) -> Option<Checked> {
    let path = file?;
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let file = path.display();
    (mode & 0o077 != 0).then(|| {
        let text = format!("{file} names RPC endpoints, which may hold keys, and has mode {mode:04o}");
        warning("settings", None, text, format!("`chmod 600 {file}`, if it holds any"))
    })
}

fn descriptors(count: u64) -> Checked {
    let (taken, all) = (limits_of(count).connections(), Limits::default().connections());
    let text = format!("{count} files and sockets may be open, enough for {taken} connections");
    match taken < all {
        true => warning("descriptors", None, text, format!("raise `ulimit -n` for {all}")),
        false => ok("descriptors", None, text),
    }
}

/// The kind of file system that a directory is on, as the system calls it.
///
/// Source: `man proc_pid_mountinfo`.
fn file_system(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounted = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        Some((left.split(' ').nth(4)?, right.split(' ').next()?))
    });
    // Of several at one place the last one counts.
    let (_, kind) = mounted.filter(|(at, _)| dir.starts_with(at)).max_by_key(|(at, _)| at.len())?;
    Some(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::State;

    #[test]
    fn few_descriptors_are_told_and_many_are_fine() {
        assert_eq!(descriptors(256).state, State::Warning);
        assert_eq!(descriptors(1 << 16).state, State::Ok);
    }

    #[test]
    fn a_full_disk_is_told() {
        let state = |bytes, files| room(Free { bytes, files }).state;
        assert_eq!(state(LITTLE_BYTES, None), State::Ok);
        assert_eq!(state(LITTLE_BYTES - 1, None), State::Warning);
        assert_eq!(state(1 << 40, Some(3)), State::Warning);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kind_of_a_file_system_is_known() {
        assert_eq!(file_system(Path::new("/proc/self")).as_deref(), Some("proc"));
        assert_eq!(file_system(Path::new("/nowhere")), None);
    }
}
