//! Waiting: without the GIL, until it is done, ended from elsewhere, or Ctrl-C was pressed.
//!
//! Work runs on the runtime's own threads, which never take the GIL but to log. No lock of ours is taken while it is held:
//! whoever logs under that lock waits for the GIL.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use loader::{Numbers, Progress};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::errors::bad_usage;

/// How often signals are looked for, and progress is told.
const TICK: Duration = Duration::from_millis(100);

/// The runtime of this process, made when it is first needed.
static RUNTIME: Mutex<Option<Owned>> = Mutex::new(None);

/// A runtime, and the process whose threads run it: a fork has none of them.
#[derive(Clone)]
pub(crate) struct Owned {
    runtime: Arc<Runtime>,
    process: u32,
}

/// What ends a call besides its own end.
#[derive(Default, Clone)]
pub(crate) struct Ends {
    /// Whoever waits has given up: `CancelledError`.
    pub(crate) cancelled: CancellationToken,
    /// The node is closed: `BadUsage`.
    pub(crate) closed: CancellationToken,
}

enum Round<T> {
    Done(T),
    Cancelled,
    Closed,
    Tick,
}

impl Owned {
    pub(crate) fn get() -> PyResult<Self> {
        let mut current = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owned) = current.as_ref().filter(|owned| owned.is_here()) {
            return Ok(owned.clone());
        }
        let runtime = Builder::new_multi_thread().enable_all().thread_name("libp2p-loader").build();
        let runtime = runtime.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let owned = Self { runtime: Arc::new(runtime), process: process::id() };
        // That of a parent has no threads here, and waiting for them would take for ever.
        std::mem::forget(current.replace(owned.clone()));
        Ok(owned)
    }

    pub(crate) fn is_here(&self) -> bool {
        self.process == process::id()
    }

    /// Waits for the work. When it ends early, the work has been dropped.
    ///
    /// # Errors
    /// What a signal handler or `progress` raises, `BadUsage` after a fork or when the node is closed, `CancelledError`.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl Future<Output = T> + Send + 'static,
        progress: Option<(&Progress, &Py<PyAny>)>,
        ends: &Ends,
    ) -> PyResult<T> {
        if !self.is_here() {
            return Err(bad_usage(
                "this process is a fork of the one in which the node was started, and has none of its threads: start a node \
                 in each worker, or start workers with multiprocessing's method `spawn`; models that are mapped stay usable",
            ));
        }
        let mut work = self.runtime.spawn(work);
        let mut told = None;
        let failed = loop {
            let round = py.detach(|| {
                self.runtime.block_on(async {
                    tokio::select! {
                        biased;
                        done = &mut work => Round::Done(done),
                        () = ends.cancelled.cancelled() => Round::Cancelled,
                        () = ends.closed.cancelled() => Round::Closed,
                        () = tokio::time::sleep(TICK) => Round::Tick,
                    }
                })
            });
            match round {
                Round::Done(Ok(done)) => {
                    tell(py, progress, &mut told)?;
                    return Ok(done);
                }
                Round::Done(Err(error)) => return Err(PyRuntimeError::new_err(error.to_string())),
                Round::Cancelled => break cancelled_error(py)?,
                Round::Closed => break bad_usage("this node is closed"),
                // Outside of the runtime: they may call us again.
                Round::Tick => {
                    if let Err(error) = py.check_signals().and_then(|()| tell(py, progress, &mut told)) {
                        break error;
                    }
                }
            }
        };
        work.abort();
        // What it ends with does not matter any more.
        py.detach(|| drop(self.runtime.block_on(work)));
        Err(failed)
    }

    /// Lets a future run on, without anybody waiting for it.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(future);
    }
}

/// Calls `progress` with the numbers, if they have changed.
fn tell(
    py: Python<'_>,
    progress: Option<(&Progress, &Py<PyAny>)>,
    told: &mut Option<Numbers>,
) -> PyResult<()> {
    let Some((progress, callback)) = progress else { return Ok(()) };
    let now = progress.numbers();
    if told.replace(now) == Some(now) {
        return Ok(());
    }
    let numbers = (
        now.total_bytes,
        now.fetched_bytes,
        now.rebuilt_bytes,
        now.reused_bytes,
        now.resumed_bytes,
        now.wrong_bytes,
        now.sources,
        now.is_finishing,
    );
    callback.call1(py, numbers).map(drop)
}

fn cancelled_error(py: Python<'_>) -> PyResult<PyErr> {
    let class = py.import("asyncio")?.getattr("CancelledError")?;
    Ok(PyErr::from_value(class.call0()?))
}

/// Ends a call that another thread waits for.
#[pyclass(frozen, module = "libp2p_loader._core")]
#[derive(Default)]
pub(crate) struct Cancel(pub(crate) CancellationToken);

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// From any thread, once.
    fn cancel(&self) {
        self.0.cancel();
    }
}
