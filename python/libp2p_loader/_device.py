"""Tensors on an accelerator, through pinned memory."""

from __future__ import annotations

from typing import Any, Mapping

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


def on_device(core: Any, facts: Mapping[str, Any], device: Any, verify: bool) -> dict[str, Any]:
    """All tensors on a device. While one buffer is copied there, the other is filled."""
    import torch

    device = torch.device(device)
    is_cuda = device.type == "cuda"
    count = threads()
    all_stretches = stretches(facts)
    longest = max((stretch.end - stretch.start for stretch in all_stretches), default=0)
    size = min(max(count * PER_THREAD_BYTES, LEAST_BYTES), MOST_BYTES, max(longest, 1))
    buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=is_cuda) for _ in range(2)]
    arrays = [buffer.numpy() for buffer in buffers]
    copied: list[Any] = [None, None]
    tensors: dict[str, Any] = {}
    turn = 0
    for stretch in all_stretches:
        there = torch.empty(stretch.end - stretch.start, dtype=torch.uint8, device=device)
        for at in range(0, len(there), size):
            part = min(size, len(there) - at)
            if copied[turn] is not None:
                copied[turn].synchronize()
            core.read(stretch.file, stretch.start + at, arrays[turn][:part], count, verify)
            there[at : at + part].copy_(buffers[turn][:part], non_blocking=is_cuda)
            if is_cuda:
                copied[turn] = torch.cuda.Event()
                copied[turn].record(torch.cuda.current_stream(device))
            turn = 1 - turn
        for name in stretch.names:
            dtype, shape, _, start, length = facts[name]
            kind = torch_dtype(dtype)
            piece = there[start - stretch.start : start - stretch.start + length]
            if piece.data_ptr() % max(torch.empty(0, dtype=kind).element_size(), 1):
                # An odd header: views must begin at whole elements.
                piece = piece.clone()
            tensors[name] = piece.view(kind).reshape(tuple(shape)) if length else torch.empty(tuple(shape), dtype=kind, device=device)
    for event in copied:
        if event is not None:
            event.synchronize()
    return tensors
