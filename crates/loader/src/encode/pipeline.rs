//! Three stages on three threads that hand a few reused slabs round: fill, hash, write.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use store::CacheError;

use super::PublishError;

/// How many slabs go round: one for each stage, and one so that no stage waits for the next to finish.
pub(super) const SLABS: usize = 4;

/// The chaining values of one shard.
pub(super) type Values = Vec<[u8; 32]>;

/// Runs `slabs` through the stages until `fill` says that there is nothing left (`Ok(false)`), or a stage fails.
///
/// **Order.** Each stage sees the slabs in the order they were filled in.
/// **Memory.** Nothing is allocated here but the channels; a slab that was written is filled again.
///
/// # Errors
/// The error of the stage that failed.
pub(super) fn run<S: Send>(
    slabs: [S; SLABS],
    fill: impl FnMut(&mut S) -> Result<bool, PublishError> + Send,
    hash: impl FnMut(&mut S) -> Result<(), PublishError>,
    write: impl FnMut(&mut S) -> Result<(), PublishError> + Send,
) -> Result<(), PublishError> {
    let (free_sender, free) = sync_channel(SLABS);
    let (filled_sender, filled) = sync_channel(SLABS);
    let (hashed_sender, hashed) = sync_channel(SLABS);
    for slab in slabs {
        // The channel has room for all slabs, so that sending never waits; it never fails while `free` lives.
        let _ = free_sender.send(slab);
    }
    thread::scope(|scope| {
        // When the second cannot be started, the first ends: the channels close.
        let filling = start(scope, move || filler(free, filled_sender, fill))?;
        let writing = start(scope, move || stage(hashed, free_sender, write))?;
        let result = stage(filled, hashed_sender, hash);
        let join = |joined: thread::Result<_>| {
            joined.unwrap_or_else(|_| {
                Err(PublishError::Encoder { what: "a thread ended unexpectedly".to_owned() })
            })
        };
        // A stage that fails closes its channels, and the others then end without an error of their own.
        join(filling.join()).and(result).and(join(writing.join()))
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, PublishError> {
    thread::Builder::new()
        .spawn_scoped(scope, work)
        .map_err(|source| CacheError::io("start a thread for", Path::new("the encoder"), source).into())
}

fn filler<S>(
    free: Receiver<S>,
    next: SyncSender<S>,
    mut fill: impl FnMut(&mut S) -> Result<bool, PublishError>,
) -> Result<(), PublishError> {
    for mut slab in free {
        if !fill(&mut slab)? || next.send(slab).is_err() {
            break;
        }
    }
    Ok(())
}

fn stage<S>(
    slabs: Receiver<S>,
    next: SyncSender<S>,
    mut work: impl FnMut(&mut S) -> Result<(), PublishError>,
) -> Result<(), PublishError> {
    for mut slab in slabs {
        work(&mut slab)?;
        // The filler is gone when everything was filled; what is under way is still worked on.
        let _ = next.send(slab);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> PublishError {
        PublishError::Encoder { what: "on purpose".to_owned() }
    }

    #[test]
    fn everything_filled_is_hashed_and_written_in_order() {
        for count in [0, 1, 3, 4, 5, 100] {
            let (mut filled, mut hashed, mut written) = (0, Vec::new(), Vec::new());
            run(
                [0; SLABS],
                |slab| {
                    *slab = filled;
                    filled += 1;
                    Ok(filled <= count)
                },
                |slab| {
                    hashed.push(*slab);
                    Ok(())
                },
                |slab| {
                    written.push(*slab);
                    Ok(())
                },
            )
            .unwrap();
            let expected: Vec<_> = (0..count).collect();
            assert_eq!((&hashed, &written), (&expected, &expected));
        }
    }

    #[test]
    fn a_failing_stage_ends_the_others() {
        let work = |fails: bool| move |_: &mut u8| if fails { Err(failed()) } else { Ok(()) };
        for failing in 0..3 {
            let fill = move |_: &mut u8| if failing == 0 { Err(failed()) } else { Ok(true) };
            let result = run([0u8; SLABS], fill, work(failing == 1), work(failing == 2));
            assert!(matches!(result, Err(PublishError::Encoder { .. })), "stage {failing}");
        }
    }
}
