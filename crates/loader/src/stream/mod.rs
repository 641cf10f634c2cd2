//! Tensors of a model, one after the other, while it is fetched: each as soon as its pieces are verified.
//!
//! A thread reads them from the files that the fetch writes to, in the order of the files, and tells the fetch what it wants
//! next ([`Ahead`]); the fetch never waits for it.

mod ahead;
mod channel;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::Model;

pub use ahead::Ahead;
pub use channel::{TensorReceiver, TensorSender, tensor_channel};
use reader::{Filling, Place, Reader};

use crate::error::LoadError;
use crate::fetch::{FetchOptions, TensorChoice};
use crate::observer::{Event, Observer};

/// Where the events of a load go, so that its tensors come out at the other end. It passes them on to another observer.
///
/// Dropping it without [`Self::complete`] ends the stream early.
pub struct TensorFeed<'a> {
    choices: Vec<TensorChoice>,
    verify: bool,
    threads: usize,
    ahead: Ahead,
    observer: &'a dyn Observer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Gone once nothing more can begin.
    sender: Option<TensorSender>,
    filling: Option<Filling>,
}

impl<'a> TensorFeed<'a> {
    /// For one load of a model: the tensors that are chosen, or all where there is no choice, go to `sender`. With `verify`
    /// each piece is hashed again while its bytes are copied out, so that neither the disk nor whoever wrote to it meanwhile
    /// is trusted.
    ///
    /// **What was sent already when a load fails.** Each tensor was verified against the digests of the manifest before. A load
    /// that fails later has either not got the rest, and says so, or its manifest contradicts itself
    /// ([`LoadError::is_integrity`]): then nothing of the model is to be used.
    pub fn new(
        choices: Vec<TensorChoice>,
        verify: bool,
        options: &FetchOptions,
        observer: &'a dyn Observer,
        sender: TensorSender,
    ) -> Self {
        let state = Mutex::new(State { sender: Some(sender), filling: None });
        let (threads, ahead) = (options.threads().max(1), Ahead::default());
        Self { choices, verify, threads, ahead, observer, state }
    }
}

impl TensorFeed<'_> {
    /// The tensors that are wanted; none: all.
    pub fn choices(&self) -> &[TensorChoice] {
        &self.choices
    }

    /// For the options of the load.
    pub fn ahead(&self) -> Ahead {
        self.ahead.clone()
    }

    /// The load has ended well, with all that is wanted; `model` is what is in the cache now, if that is all of it.
    pub fn complete(self, model: Option<&Model>) {
        let State { sender, filling } = std::mem::take(&mut *self.state());
        if let (None, Some(model), Some(sender)) = (&filling, model, sender) {
            self.start(Place::Here(model.clone()), sender);
        }
        // All that is wanted is verified: nobody has to wait.
        if let Some(filling) = filling {
            filling.is_complete.store(true, Ordering::Relaxed);
            filling.offer.close();
        }
    }

    fn start(&self, place: Place, sender: TensorSender) {
        let failed = sender.clone();
        let reader = Reader {
            place,
            choices: self.choices.clone(),
            verify: self.verify,
            threads: self.threads,
            ahead: self.ahead.clone(),
            sender,
        };
        if let Err(error) = std::thread::Builder::new().name("tensors".into()).spawn(move || reader.run()) {
            // Nothing else was sent, so there is room.
            let _ = failed.try_send(Err(LoadError::Worker(error)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for TensorFeed<'_> {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Filling { offer } = event {
            let mut state = self.state();
            // Of a blob that is tried in another size, nothing was verified before.
            let filling = Filling { offer: Arc::clone(offer), is_complete: Arc::default() };
            if let Some(before) = state.filling.replace(filling.clone()) {
                before.offer.close();
            }
            if let Some(sender) = &state.sender {
                self.start(Place::Filling(filling), sender.clone());
            }
        }
        self.observer.on_event(event);
    }
}

impl Drop for TensorFeed<'_> {
    fn drop(&mut self) {
        if let Some(filling) = self.state().filling.take() {
            filling.offer.close();
        }
    }
}
