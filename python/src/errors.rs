//! Exceptions, by what whoever called can do.

use std::error::Error;

use ::node::Cause;
use pyo3::exceptions::PyException;
use pyo3::{PyErr, create_exception};

create_exception!(libp2p_loader, LoaderError, PyException, "Something failed, and will again.");
create_exception!(libp2p_loader, Unavailable, LoaderError, "Not available now: worth a retry.");
create_exception!(
    libp2p_loader,
    Integrity,
    LoaderError,
    "Something has the right digest but is not valid, or the cache is corrupt, or the chain tells different things."
);
create_exception!(libp2p_loader, BadUsage, LoaderError, "The arguments or the settings are wrong.");

/// The text of the command line: the error and its causes.
pub(crate) fn text(error: &(dyn Error + 'static)) -> String {
    chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The exception for an error.
pub(crate) fn exception(error: &(dyn Error + 'static)) -> PyErr {
    let text = text(error);
    match chain(error).find_map(Cause::of) {
        Some(Cause::Unavailable) => Unavailable::new_err(text),
        Some(Cause::Integrity) => Integrity::new_err(text),
        Some(Cause::Usage) => BadUsage::new_err(text),
        Some(Cause::Failed) | None => LoaderError::new_err(text),
    }
}

pub(crate) fn bad_usage(text: impl Into<String>) -> PyErr {
    BadUsage::new_err(text.into())
}
