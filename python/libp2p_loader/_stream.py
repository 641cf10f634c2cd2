"""Tensors, one after the other, while their model arrives."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Iterator, Optional

from . import _core
from ._core import BadUsage
from ._device import MOST_BYTES, Upload, viewed
from ._dtypes import typed
from ._model import FRAMEWORKS, Model, tensor_of
from ._waiting import in_thread


class TensorStream:
    """Pairs of a name and a tensor, in the order of the files: each as soon as its pieces are verified, while the rest is
    fetched. An iterator, and an asynchronous one.

    What is next is fetched first; who takes tensors slowly does not slow the fetch down. After the last one, all that was
    asked for is in the cache, and `model` is the model, if that is all of it. Arrays are the caller's own; those of types that
    neither numpy nor torch has (`F4`, `F6_…`) are bytes in a row.

    Each tensor was verified against the manifest before it is handed out. When the fetch fails later it raises as
    `Node.load` does: `Unavailable` when the rest cannot be had (the next call goes on from what was verified), and `Integrity` when
    the manifest contradicts itself, which only its publisher can bring about: then nothing of the model is to be used,
    tensors that were handed out included.

    Leaving a `with` block, or `close()`, ends the fetch early.
    """

    def __init__(
        self, core: _core.Stream, framework: str, device: Any, at_end: ExitStack
    ) -> None:
        self._core = core
        self._framework = framework
        self._upload = None if device is None else Upload(device, MOST_BYTES)
        self._at_end = at_end
        self._is_ended = False
        #: The model, after the last tensor, if all of it is in the cache.
        self.model: Optional[Model] = None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self

    def __next__(self) -> tuple[str, Any]:
        found = self._next(None)
        if found is None:
            raise StopIteration
        return found

    def __aiter__(self) -> TensorStream:
        return self

    async def __anext__(self) -> tuple[str, Any]:
        found = await in_thread(self._next)
        if found is None:
            raise StopAsyncIteration
        return found

    def _next(self, cancel: Optional[_core.Cancel]) -> Optional[tuple[str, Any]]:
        if self._is_ended:
            return None
        try:
            found = self._core.next(cancel)
            if found is not None:
                return found[0], self._tensor(*found[1:])
            core = self._core.model()
            self.model = None if core is None else Model(core)
        except _core.LoaderError:
            self._end()
            raise
        self._end()
        return None

    def _tensor(self, dtype: str, shape: Any, array: Any) -> Any:
        dtype, shape = typed(dtype, shape, len(array))
        if self._upload is None:
            return tensor_of(array, dtype, shape, self._framework)

        def fill(at: int, part: Any) -> None:
            part[:] = array[at : at + len(part)]

        there = self._upload.bytes(len(array), fill)
        return viewed(there, dtype, shape)

    def _end(self) -> None:
        self._is_ended = True
        if self._upload is not None:
            self._upload.wait()
        self._core.close()
        self._at_end.close()

    def close(self) -> None:
        """Ends it. What was verified stays in the cache. A second call does nothing."""
        if not self._is_ended:
            self._end()

    def __enter__(self) -> TensorStream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def framework_for(framework: str, device: Any) -> str:
    """The framework, if it goes with the device."""
    if framework not in FRAMEWORKS:
        raise BadUsage(f"framework={framework!r}: expected one of {', '.join(map(repr, FRAMEWORKS))}")
    if device is not None and framework != "pt":
        raise BadUsage(f'device={device!r} is for framework="pt"')
    return framework
