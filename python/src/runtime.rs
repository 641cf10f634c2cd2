//! Waiting: without the GIL, until it is done, cancelled, or Ctrl-C was pressed.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use loader::{Numbers, Progress};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::time::MissedTickBehavior;
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

    fn is_here(&self) -> bool {
        self.process == process::id()
    }

    /// Runs the future to its end on this thread.
    ///
    /// # Errors
    /// What a signal handler or `progress` raises, `BadUsage` after a fork, and `CancelledError` after `cancel`.
    pub(crate) fn wait<T: Send>(
        &self,
        py: Python<'_>,
        future: impl Future<Output = T> + Send,
        progress: Option<(&Progress, &Py<PyAny>)>,
        cancel: Option<&Cancel>,
    ) -> PyResult<T> {
        if !self.is_here() {
            return Err(bad_usage(
                "this process is a fork of the one in which the node was started, and has none of its threads: start a node \
                 in each worker, or start workers with multiprocessing's method `spawn`; models that are mapped stay usable",
            ));
        }
        let cancelled = cancel.map(|cancel| cancel.0.clone()).unwrap_or_default();
        py.detach(|| {
            self.runtime.block_on(async {
                let mut future = Box::pin(future);
                let mut ticks = tokio::time::interval(TICK);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut told = None;
                loop {
                    tokio::select! {
                        biased;
                        result = &mut future => {
                            tell(progress, &mut told)?;
                            return Ok(result);
                        }
                        () = cancelled.cancelled() => return Err(Python::attach(cancelled_error)?),
                        _ = ticks.tick() => {
                            Python::attach(|py| py.check_signals())?;
                            tell(progress, &mut told)?;
                        }
                    }
                }
            })
        })
    }

    /// Lets a future run on, without anybody waiting for it.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if self.is_here() {
            self.runtime.spawn(future);
        }
    }
}

/// Calls `progress` with the numbers, if they have changed.
fn tell(progress: Option<(&Progress, &Py<PyAny>)>, told: &mut Option<Numbers>) -> PyResult<()> {
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
    Python::attach(|py| callback.call1(py, numbers).map(drop))
}

fn cancelled_error(py: Python<'_>) -> PyResult<PyErr> {
    let class = py.import("asyncio")?.getattr("CancelledError")?;
    Ok(PyErr::from_value(class.call0()?))
}

/// Ends a call that another thread waits for.
#[pyclass(frozen, module = "libp2p_loader._core")]
#[derive(Default)]
pub(crate) struct Cancel(CancellationToken);

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
