//! The extension module `libp2p_loader._core`: what Python cannot do itself. What users see is in `libp2p_loader/*.py`.

mod blobs;
mod errors;
mod model;
mod node;
mod runtime;
mod settings;
mod stream;

use pyo3::prelude::*;

/// What is logged to Python's `logging`: our own crates, under their names.
const LOGGERS: [&str; 6] = ["libp2p_loader", "node", "loader", "store", "p2p_blob", "chain_reader"];

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::blobs::BlobStore;
    #[pymodule_export]
    use crate::errors::{BadUsage, Integrity, LoaderError, Unavailable};
    #[pymodule_export]
    use crate::model::{Model, open_model};
    #[pymodule_export]
    use crate::node::{Node, Watch};
    #[pymodule_export]
    use crate::runtime::Cancel;
    #[pymodule_export]
    use crate::stream::Stream;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let logger = crate::LOGGERS.iter().fold(
            pyo3_log::Logger::new(module.py(), pyo3_log::Caching::LoggersAndLevels)?
                .filter(log::LevelFilter::Off),
            |logger, name| logger.filter_target((*name).to_owned(), log::LevelFilter::Debug),
        );
        // A second interpreter in this process finds it installed.
        let _ = logger.install();
        // Else `logging` would print what nobody has asked for.
        let logging = module.py().import("logging")?;
        for name in crate::LOGGERS {
            let handler = logging.call_method0("NullHandler")?;
            logging.call_method1("getLogger", (name,))?.call_method1("addHandler", (handler,))?;
        }
        Ok(())
    }
}
