"""Tensors on an accelerator, through pinned memory."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping

from ._dtypes import torch_dtype
from ._files import threads

#: One buffer: as much as all threads hash at once, sixteen pieces of a MiB each, between these.
PER_THREAD_BYTES = 16 << 20
LEAST_BYTES = 64 << 20
MOST_BYTES = 256 << 20


class Stretch:
    """Bytes of a file that are read in one go: tensors that lie beside each other there."""

    def __init__(self, file: str, start: int) -> None:
        self.file = file
        self.start = start
        self.end = start
        self.names: list[str] = []


def stretches(facts: Mapping[str, Any]) -> list[Stretch]:
    found: list[Stretch] = []
    for name, (_, _, file, start, size) in sorted(facts.items(), key=lambda item: (item[1][2], item[1][3], item[1][4])):
        if not found or (found[-1].file, found[-1].end) != (file, start):
            found.append(Stretch(file, start))
        found[-1].names.append(name)
        found[-1].end = start + size
    return found


class Upload:
    """The way to a device: two pinned buffers, of which one is filled while the other is copied there."""

    def __init__(self, device: Any, longest: int) -> None:
        import torch

        self.device = torch.device(device)
        self._is_cuda = self.device.type == "cuda"
        size = min(max(threads() * PER_THREAD_BYTES, LEAST_BYTES), MOST_BYTES, max(longest, 1))
        self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=self._is_cuda) for _ in range(2)]
        self._arrays = [buffer.numpy() for buffer in self._buffers]
        self._copied: list[Any] = [None, None]
        self._turn = 0

    def bytes(self, size: int, fill: Callable[[int, Any], None]) -> Any:
        """So many bytes on the device. `fill(at, array)` puts those from `at` on into a buffer."""
        import torch

        there = torch.empty(size, dtype=torch.uint8, device=self.device)
        step = len(self._arrays[0])
        for at in range(0, size, step):
            part, turn = min(step, size - at), self._turn
            if self._copied[turn] is not None:
                self._copied[turn].synchronize()
            fill(at, self._arrays[turn][:part])
            there[at : at + part].copy_(self._buffers[turn][:part], non_blocking=self._is_cuda)
            if self._is_cuda:
                self._copied[turn] = torch.cuda.Event()
                self._copied[turn].record(torch.cuda.current_stream(self.device))
            self._turn = 1 - turn
        return there

    def wait(self) -> None:
        """Until all is there."""
        for event in self._copied:
            if event is not None:
                event.synchronize()


def viewed(there: Any, dtype: str, shape: Any) -> Any:
    """Bytes on a device as a tensor."""
    import torch

    kind = torch_dtype(dtype)
    if not len(there):
        return torch.empty(tuple(shape), dtype=kind, device=there.device)
    if there.data_ptr() % max(torch.empty(0, dtype=kind).element_size(), 1):
        # An odd header: views must begin at whole elements.
        there = there.clone()
    return there.view(kind).reshape(tuple(shape))


def on_device(core: Any, facts: Mapping[str, Any], device: Any, verify: bool) -> dict[str, Any]:
    """All tensors on a device."""
    count = threads()
    all_stretches = stretches(facts)
    upload = Upload(device, max((stretch.end - stretch.start for stretch in all_stretches), default=0))
    tensors: dict[str, Any] = {}
    for stretch in all_stretches:

        def fill(at: int, array: Any, stretch: Stretch = stretch) -> None:
            core.read(stretch.file, stretch.start + at, array, count, verify)

        there = upload.bytes(stretch.end - stretch.start, fill)
        for name in stretch.names:
            dtype, shape, _, start, length = facts[name]
            tensors[name] = viewed(there[start - stretch.start : start - stretch.start + length], dtype, shape)
    upload.wait()
    return tensors


def streamed(core: Any, facts: list[tuple[str, Any]], device: Any, verify: bool) -> Iterator[tuple[str, Any]]:
    """Tensors on a device, one after the other."""
    count = threads()
    upload = Upload(device, max((size for _, (*_, size) in facts), default=0))
    for name, (dtype, shape, (_, file), start, size) in facts:

        def fill(at: int, array: Any, file: str = file, start: int = start) -> None:
            core.read(file, start + at, array, count, verify)

        yield name, viewed(upload.bytes(size, fill), dtype, shape)
    upload.wait()
