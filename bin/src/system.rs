//! What the command wants of the system: descriptors, threads, and to be told of limits instead of being ended.

use std::backtrace::Backtrace;
use std::future::Future;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::output::Output;

/// More open files than that are not needed.
const MAX_DESCRIPTORS: u64 = 1 << 16;
/// So many threads wait for the disk while others work: they are there from the start.
const DISK_THREADS: usize = 4;
/// More than that are never needed, and those that were are kept, as later ones may not be had.
const MAX_BLOCKING_THREADS: usize = 64;
const KEEP_THREADS: Duration = Duration::from_secs(365 * 24 * 3600);
/// For so long they wait for each other to be there, so often.
const MEETING: Duration = Duration::from_millis(200);
const MEETINGS: usize = 10;
/// A load hashes and writes on this many at least.
const LOAD_THREADS: usize = 6;

/// Raises the limits that may be raised.
pub(crate) fn prepare() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MAX_DESCRIPTORS, |maximum| maximum.min(MAX_DESCRIPTORS));
    if current.is_some_and(|current| current < wanted) {
        // Else it is as it was, and fewer connections are made.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
    survive_large_files().context("cannot listen for signals")
}

/// How many files and sockets may be open.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(MAX_DESCRIPTORS)
}

/// A write beyond the limit of file sizes is an error then, and does not end the process.
fn survive_large_files() -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    // Heard from now on, also when nobody listens any more.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// Does the work, and makes an error of what else would be a panic.
pub(crate) fn guarded(output: &Output, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let shown = output.clone();
    std::panic::set_hook(Box::new(move |panic| shown.trouble(&in_words(panic))));
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(anyhow!("the command has come to an unexpected end, as was said")))
}

fn in_words(panic: &PanicHookInfo<'_>) -> String {
    let what = panic.payload_as_str().unwrap_or("no reason is known");
    let place = panic.location().map_or(String::new(), |place| format!(" at {place}"));
    let mut text = format!("internal error{place}: {what} (a mistake in loader: please report it)");
    let backtrace = Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        text = format!("{text}\n  {}", backtrace.to_string().replace('\n', "\n  "));
    }
    text.replace("panicked", "failed")
}

/// Runs the future on a runtime of its own, and leaves behind what still blocks on a thread: the process ends next.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let cores = available_parallelism().map_or(1, usize::from);
    // The runtime ends the process, or waits for ever, when it gets none.
    let threads = count_threads(cores + DISK_THREADS + LOAD_THREADS);
    let needed = 1 + DISK_THREADS + LOAD_THREADS;
    let too_few = |threads: usize| {
        anyhow!(
            "the system lets this user or container start {threads} more threads, and {needed} are needed: end others, or \
             raise the limit (`ulimit -u`, or the `pids` limit of the container)"
        )
    };
    if threads < needed {
        return Err(too_few(threads));
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(cores.min(threads - DISK_THREADS - LOAD_THREADS))
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_keep_alive(KEEP_THREADS)
        .enable_all()
        .build()
        .context("cannot start the threads of the runtime")?;
    let done = runtime.block_on(async {
        match hold_disk_threads().await {
            DISK_THREADS => work.await,
            // Others have taken them meanwhile.
            held => Err(too_few(threads - DISK_THREADS + held)),
        }
    });
    runtime.shutdown_background();
    done
}

/// How many threads can be started now, up to `wanted`.
fn count_threads(wanted: usize) -> usize {
    let (gate, before) = (RwLock::new(()), running_threads());
    let closed = gate.write();
    let count = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, || drop(gate.read())).ok();
        let count = (0..wanted).map_while(start).count();
        drop(closed);
        count
    });
    // One that has ended still counts until the system has cleared it away.
    let started = Instant::now();
    while running_threads() > before && started.elapsed() < MEETING {
        thread::yield_now();
    }
    count
}

/// Threads of this process, as far as the system tells.
fn running_threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Makes the runtime start threads for what blocks; gives how many of them there are at least. Where the system gives no more,
/// what is spawned waits for those that run: none of them may wait for it for ever.
async fn hold_disk_threads() -> usize {
    let mut held = 0;
    for _ in 0..MEETINGS {
        let meeting = Arc::new((Mutex::new(0), Condvar::new()));
        let meet = |_| {
            let meeting = Arc::clone(&meeting);
            tokio::task::spawn_blocking(move || {
                let (arrived, all) = &*meeting;
                let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
                *arrived += 1;
                all.notify_all();
                let waited = all.wait_timeout_while(arrived, MEETING, |arrived| *arrived < DISK_THREADS);
                !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
            })
        };
        let threads: Vec<_> = (0..DISK_THREADS).map(meet).collect();
        let mut met = 0;
        for thread in threads {
            met += usize::from(thread.await.unwrap_or(false));
        }
        held = held.max(met);
        if held == DISK_THREADS {
            break;
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_up_to_what_is_wanted() {
        assert_eq!(count_threads(0), 0);
        assert_eq!(count_threads(7), 7);
    }

    #[test]
    fn threads_that_cannot_be_had_are_not_waited_for() {
        let held = |max| {
            let runtime =
                Builder::new_current_thread().enable_all().max_blocking_threads(max).build().unwrap();
            runtime.block_on(hold_disk_threads())
        };
        assert_eq!(held(DISK_THREADS), DISK_THREADS);
        assert!(held(DISK_THREADS / 2) < DISK_THREADS);
    }

    #[test]
    fn work_that_blocks_goes_on_beside_what_waits_without_end() {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<()>(0);
        block_on(async {
            let _waiting = tokio::task::spawn_blocking(move || receiver.recv());
            tokio::task::spawn_blocking(|| ()).await?;
            drop(sender);
            Ok(())
        })
        .unwrap();
    }
}
