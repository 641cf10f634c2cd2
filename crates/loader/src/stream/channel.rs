//! The way from who reads tensors to who takes them.

use tokio::sync::mpsc;

use crate::error::LoadError;
use crate::fetch::LoadedTensor;

/// Tensors that are read and not taken yet: with the one that is being read, and the one that was taken, this bounds what is
/// in memory.
const WAITING: usize = 1;

/// Where tensors, or why there are no more of them, are put.
pub type TensorSender = mpsc::Sender<Result<LoadedTensor, LoadError>>;
/// Where they are taken from. The end comes also when the load has failed, which only the load tells.
pub type TensorReceiver = mpsc::Receiver<Result<LoadedTensor, LoadError>>;

/// The two ends of a stream of tensors.
pub fn tensor_channel() -> (TensorSender, TensorReceiver) {
    mpsc::channel(WAITING)
}
